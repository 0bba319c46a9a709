#pragma once

namespace annulus::app {

/// How pages look, on screens bright and dark, and on paper.
constexpr const char* page_style = R"css(
:root { --ink: #1d2329; --faint: #5d6873; --line: #dde2e7; --box: #f5f7f9; --page: #fff; --mark: 0, 114, 178; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --faint: #9aa5b0; --line: #39424b; --box: #20272e; --page: #161b20; --mark: 86, 180, 233; }
}
body { color: var(--ink); background: var(--page); font: 15px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; margin: 1.6em 0 0; overflow-wrap: anywhere; } h1:first-child { margin-top: 0; }
h2 { font-size: 1.15em; margin: 2em 0 .5em; border-bottom: 1px solid var(--line); padding-bottom: .2em; }
h3 { font-size: 1em; margin: 1.6em 0 .4em; }
.sub, figcaption { color: var(--faint); margin: .2em 0 1em; } figcaption { font-size: .9em; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: .6em; margin: 1em 0; }
.facts div { background: var(--box); border-radius: 6px; padding: .5em .8em; } .facts dt { color: var(--faint); font-size: .8em; }
.facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9em; margin: .6em 0; }
th, td { text-align: left; padding: .25em .9em .25em 0; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--faint); font-weight: 600; } .n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; } .s { white-space: nowrap; }
figure { margin: 1.2em 0; } figure img { width: 100%; border-radius: 4px; }
details { margin: .8em 0; } summary { cursor: pointer; color: var(--faint); }
pre { background: var(--box); padding: .8em; overflow-x: auto; font-size: .85em; border-radius: 6px; }
.warning { background: #b3261e; color: #fff; padding: .5em .8em; border-radius: 6px; }
.tokens { line-height: 1.9; border: 1px solid var(--line); border-radius: 6px; padding: .8em; max-height: 26em; overflow-y: auto; }
.tokens span { display: inline-block; white-space: pre; line-height: 1.4; padding: .1em .15em; border-radius: 3px; cursor: pointer; }
.tokens span.seen { outline: 2px solid #D55E00; } .tokens span.asks { outline: 2px solid rgb(var(--mark)); }
.looks { min-height: 11em; background: var(--box); border-radius: 6px; padding: .6em .8em; margin: .6em 0; font-size: .9em; }
.looks mark { background: rgba(var(--mark), .3); color: inherit; } .heads { margin-bottom: .4em; } .choose label { margin-right: 1em; white-space: nowrap; }
@media print { .tokens { max-height: none; } details { display: none; } }
)css";

}  // namespace annulus::app
