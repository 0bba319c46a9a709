#include "app/report/excerpt.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <vector>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "app/report/kept_keys.hpp"

namespace annulus::app {
namespace {

using nlohmann::json;

constexpr Index shown_tokens = 400, shown_keys = 5;

// Shades the tokens by how sharply the chosen head looks, and shows where the pointed one does. Data: see document_of.
constexpr const char* excerpt_script = R"js(
(() => {
  const part = (name) => document.currentScript.parentElement.querySelector(name);
  const data = JSON.parse(part(".data").textContent), box = part(".tokens"), looks = part(".looks");
  const layers = part(".layers"), heads = part(".heads"), layerOf = (view) => data.layers ? data.layers[view] : -1;
  const visible = (word) => word.replace(/[\x00-\x1f]/g, (c) => c === "\n" ? "\u21b5" : String.fromCharCode(0x2400 + c.charCodeAt(0)));
  const spans = data.words.map((word, i) => {
    const span = document.createElement("span");
    span.textContent = visible(word);
    span.onmouseenter = span.onclick = () => show(i);
    box.append(span, data.gap);
    if (word.includes("\n")) box.append(document.createElement("br"));
    return span;
  });
  let view = data.start, shown = 0;
  const text = (key) => data.around[key] || ["", "?", ""];
  const name = (view) => (data.layers ? "layer " + data.layers[view] + ", " : "") + "head " + data.heads[view];
  function line(key, share) {
    const row = document.createElement("div"), mark = document.createElement("mark"), [before, word, after] = text(key);
    mark.textContent = visible(word);
    row.append((100 * share).toFixed(1) + " % at " + key.toLocaleString("en") + ": ... " + before + data.gap, mark, data.gap + after + " ...");
    return row;
  }
  function show(i) {
    shown = i;
    spans.forEach((span) => { span.className = ""; });
    spans[i].className = "asks";
    const title = document.createElement("div");
    title.textContent = name(view) + ", token " + (data.first + i).toLocaleString("en") + ", \u201c" + visible(data.words[i]) + "\u201d looks at";
    looks.replaceChildren(title);
    for (const [key, share] of data.looks[i][view]) {
      looks.append(line(key, share));
      const near = spans[key - data.first];
      if (near && near.className === "") near.className = "seen";
    }
  }
  function offer(form, word, of) {  // of: what can be chosen, and which view that is
    form.replaceChildren();
    for (const [thing, v] of of) {
      const label = document.createElement("label"), button = document.createElement("input");
      button.type = "radio"; button.name = word; button.onchange = () => choose(v);
      button.checked = thing === (word === "layer" ? layerOf(view) : data.heads[view]);
      label.append(button, " " + word + " " + thing);
      form.append(label);
    }
  }
  function choose(v) {
    const other = v !== view && layerOf(v) !== layerOf(view);
    view = v;
    spans.forEach((span, i) => { const best = data.looks[i][v][0]; span.style.background = "rgba(var(--mark)," + (best ? 0.7 * best[1] : 0).toFixed(2) + ")"; });
    show(shown);
    if (other || !heads.children.length) list();
  }
  function list() {
    const views = [...data.heads.keys()];
    if (data.layers) offer(layers, "layer", data.picks.map((v) => [layerOf(v), v]));
    offer(heads, "head", views.filter((v) => layerOf(v) === layerOf(view)).map((v) => [data.heads[v], v]));
  }
  choose(data.start);
})();
)js";

// The stretch's keys of the shown heads of one group, added to the looks and sharpness of all views.
struct Views {
  json heads = json::array(), layers = json::array();
  std::vector<json> looks;  // [token] of [view]
  std::set<Index> seen;
  std::vector<Index> picks;  // of each group, the view to begin with
  Index start = 0;
};

void add_views(const InputFile& file, const ShownTraces& traces, const annulus::Run& run, Views& views) {
  const std::optional<Shape> shape = shape_of_kept_keys(file, traces.group);
  if (!shape || shape->elements() == 0) return;
  require<Failure::file>(run.at(run.count - 1) < shape->dims[0], "kept keys must be of all tokens: ", file.path(), ": ",
                         traces.group, "/topk_index is ", text_of(*shape));
  const KeptKeys kept(file, traces.group, *shape, run);
  const double faintest = traces.layer < 0 ? 5e-4 : 5e-3;  // many layers are many numbers
  Index pick = -1, sharpest_view = static_cast<Index>(views.heads.size());
  double sharpest = -1;
  for (const Index head : traces.shown_heads(kept.heads)) {
    if (head == traces.telling) pick = static_cast<Index>(views.heads.size());
    views.heads.push_back(head);
    views.layers.push_back(traces.layer);
    double sharpness = 0;
    for (Index i = 0; i < run.count; ++i) {
      json keys = json::array();
      const auto row = static_cast<std::size_t>((i * kept.heads + head) * kept.kept);
      for (Index n = 0; n < std::min(kept.kept, shown_keys); ++n) {
        const Index key = kept.keys[row + static_cast<std::size_t>(n)];
        const double share = kept.shares[row + static_cast<std::size_t>(n)];
        if (key < 0 || !std::isfinite(share) || share < faintest) continue;
        keys.push_back({key, std::round(share * 1e4) / 1e4});
        views.seen.insert(key);
        if (n == 0) sharpness += share;
      }
      views.looks[static_cast<std::size_t>(i)].push_back(std::move(keys));
    }
    if (sharpness > sharpest) sharpest_view = static_cast<Index>(views.heads.size()) - 1;
    sharpest = std::max(sharpest, sharpness);
  }
  views.picks.push_back(pick >= 0 ? pick : sharpest_view);
  if (traces.begins) views.start = views.picks.back();
}

// {first, gap, heads: [view], layers: [view], picks: [view to begin with in each layer] (of several),
//  start: the view that is chosen first, words: [token],
//  looks: [token][view][[key, share]], around: {key: [words before, word, words behind]}}; null where no keys were kept
json document_of(const InputFile& file, std::span<const ShownTraces> shown, const Words& words, const Range& tokens) {
  Views views;
  views.looks.assign(static_cast<std::size_t>(tokens.count()), json::array());
  for (const ShownTraces& traces : shown) add_views(file, traces, {tokens.begin, tokens.count(), 1}, views);
  if (views.picks.empty()) return nullptr;
  if (std::ranges::none_of(shown, &ShownTraces::begins)) views.start = views.picks.front();
  json out{{"first", tokens.begin},
           {"gap", words.gap()},
           {"heads", views.heads},
           {"words", json::array()},
           {"looks", views.looks}};
  if (shown.front().layer >= 0) {
    out["layers"] = views.layers;
    out["picks"] = views.picks;
  }
  for (Index token = tokens.begin; token < tokens.end; ++token) out["words"].push_back(words.at(token));
  const Index around = words.gap().empty() ? 12 : 5;  // tokens on each side
  for (const Index key : views.seen)
    out["around"][std::to_string(key)] = {words.text({key - around, key}), words.at(key),
                                          words.text({key + 1, key + 1 + around})};
  out["start"] = views.start;
  return out;
}

}  // namespace

Range excerpt_of(const InputFile& file, Index tokens, const ReportChoice& choice) {
  require(choice.at < tokens, "--at must name a token of ", file.path(), ", 0 to ", tokens - 1, ": it is ", choice.at);
  Index first = choice.at;
  if (first < 0) {
    first = tokens / 2;
    if (file.has("passages/second_begin"))
      if (const auto begins = file.read_integers("passages/second_begin"); !begins.empty())
        first = std::clamp<Index>(begins.front(), 0, tokens) - 40;
    first = std::clamp<Index>(first, 0, std::max<Index>(0, tokens - shown_tokens));
  }
  return {first, std::min(tokens, first + shown_tokens)};
}

void add_excerpt(const InputFile& file, std::span<const ShownTraces> shown, const Words& words,
                 const ReportChoice& choice, Page& page) {
  std::optional<Shape> shape;
  for (const ShownTraces& traces : shown)
    if (!shape) shape = shape_of_kept_keys(file, traces.group);
  if (!shape || shape->elements() == 0) return;
  const Range tokens = excerpt_of(file, shape->dims[0], choice);
  const json document = document_of(file, shown, words, tokens);
  if (document.is_null()) return;
  std::string data = document.dump(-1, ' ', false, json::error_handler_t::replace);
  for (std::size_t at = 0; (at = data.find('<', at)) != data.npos;)
    data.replace(at, 1, "\\u003c");  // nothing ends the element
  page.section("Where each token looks");
  page.paragraph(sentence(
      "Tokens ", grouped(tokens.begin), " to ", grouped(tokens.end - 1), " of ", grouped(shape->dims[0]),
      " (--at shows others): the darker, the more the chosen head looks at one key. Point at one to see its keys."));
  page.html(
      sentence("<div>\n<form class=\"choose layers\"></form><form class=\"choose heads\"></form>\n<div "
               "class=\"tokens\"></div>\n<div class=\"looks\"></div>\n",
               "<script type=\"application/json\" class=\"data\">", data, "</script>\n<script>", excerpt_script,
               "</script>\n</div>\n"));
}

}  // namespace annulus::app
