#include "app/report/excerpt.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/memory/device.hpp"

namespace annulus::app {
namespace {

using nlohmann::json;

constexpr Index shown_tokens = 400, shown_keys = 5;

// Shades the tokens by how sharply the chosen head looks, and shows where the pointed one does. Data: see document_of.
constexpr const char* excerpt_script = R"js(
(() => {
  const part = (name) => document.currentScript.parentElement.querySelector(name);
  const data = JSON.parse(part(".data").textContent), box = part(".tokens"), looks = part(".looks"), heads = part(".choose");
  const spans = data.words.map((word, i) => {
    const span = document.createElement("span");
    span.textContent = word;
    span.onmouseenter = span.onclick = () => show(i);
    box.append(span, data.gap);
    return span;
  });
  let head = 0, shown = 0;
  const text = (key) => data.around[key] || ["", "?", ""];
  function line(key, share) {
    const row = document.createElement("div"), mark = document.createElement("mark"), [before, word, after] = text(key);
    mark.textContent = word;
    row.append((100 * share).toFixed(1) + " % at " + key.toLocaleString("en") + ": ... " + before + data.gap, mark, data.gap + after + " ...");
    return row;
  }
  function show(i) {
    shown = i;
    spans.forEach((span) => { span.className = ""; });
    spans[i].className = "asks";
    const title = document.createElement("div");
    title.textContent = "head " + data.heads[head] + ", token " + (data.first + i).toLocaleString("en") + ", \u201c" + data.words[i] + "\u201d looks at";
    looks.replaceChildren(title);
    for (const [key, share] of data.looks[i][head]) {
      looks.append(line(key, share));
      const near = spans[key - data.first];
      if (near && near.className === "") near.className = "seen";
    }
  }
  function choose(h) {
    head = h;
    spans.forEach((span, i) => { const best = data.looks[i][h][0]; span.style.background = "rgba(var(--mark)," + (best ? 0.7 * best[1] : 0).toFixed(2) + ")"; });
    show(shown);
  }
  data.heads.forEach((name, h) => {
    const label = document.createElement("label"), button = document.createElement("input");
    button.type = "radio"; button.name = "head"; button.checked = h === data.start; button.onchange = () => choose(h);
    label.append(button, " head " + name);
    heads.append(label);
  });
  choose(data.start);
})();
)js";

// Where the excerpt begins: where the user says, else some tokens into the later side of the longest passage, else at the middle, where
// there is something to look back at.
Index beginning(const InputFile& file, Index tokens, const ReportChoice& choice) {
  require(choice.at < tokens, "--at must name a token of ", file.path(), ", 0 to ", tokens - 1, ": it is ", choice.at);
  if (choice.at >= 0) return choice.at;
  Index first = tokens / 2;
  if (file.has("passages/second_begin"))
    if (const auto begins = file.read_integers("passages/second_begin"); !begins.empty())
      first = std::clamp<Index>(begins.front(), 0, tokens) - 40;
  return std::clamp<Index>(first, 0, std::max<Index>(0, tokens - shown_tokens));
}

// {first, gap, heads: [names], start: index of the head that looks most sharply, words: [token],
//  looks: [token][head][[key, share]], around: {key: [words before, word, words behind]}}
json document_of(const InputFile& file, const std::string& group, const Words& words, const ReportChoice& choice,
                 const Shape& shape) {
  const Index heads = shape.dims[1], kept = shape.dims[2], first = beginning(file, shape.dims[0], choice),
              count = std::min(shown_tokens, shape.dims[0] - first);
  const annulus::Run run{first, count, 1};
  std::vector<Index> keys(static_cast<std::size_t>(count * heads * kept));
  file.read_integer_rows(sentence(group, "/topk_index"), {&run, 1}, keys);
  CpuDevice cpu;
  const Array shares(cpu, DType::f64, count, heads, kept);
  file.read_rows(sentence(group, "/topk_probability"), {&run, 1}, shares.rows());
  const std::vector<Index> shown = shown_heads(choice, heads);
  json out{
      {"first", first}, {"gap", words.gap()}, {"heads", shown}, {"words", json::array()}, {"looks", json::array()}};
  std::set<Index> seen;
  std::vector<double> sharpness(shown.size());
  for (Index i = 0; i < count; ++i) {
    out["words"].push_back(words.at(first + i));
    json looks = json::array();
    for (std::size_t h = 0; h < shown.size(); ++h) {
      json head = json::array();
      const auto row = static_cast<std::size_t>((i * heads + shown[h]) * kept);
      for (Index n = 0; n < std::min(kept, shown_keys); ++n) {
        const Index key = keys[row + static_cast<std::size_t>(n)];
        const double share = shares.elements<double>()[row + static_cast<std::size_t>(n)];
        if (key < 0 || !std::isfinite(share) || share < 5e-4) continue;
        head.push_back({key, std::round(share * 1e4) / 1e4});
        seen.insert(key);
        if (n == 0) sharpness[h] += share;
      }
      looks.push_back(std::move(head));
    }
    out["looks"].push_back(std::move(looks));
  }
  const Index around = words.gap().empty() ? 12 : 5;  // tokens on each side
  for (const Index key : seen)
    out["around"][std::to_string(key)] = {words.text({key - around, key}), words.at(key),
                                          words.text({key + 1, key + 1 + around})};
  out["start"] = std::ranges::max_element(sharpness) - sharpness.begin();
  return out;
}

}  // namespace

std::optional<Words> Words::of(const InputFile& file) {
  constexpr Index most = Index{1} << 24;
  if (!file.has("tokens/ids") || !file.has("tokens/vocabulary") || file.shape("tokens/ids").elements() > most)
    return std::nullopt;
  Words words;
  words.ids_ = file.read_integers("tokens/ids", most);
  words.vocabulary_ = file.read_texts("tokens/vocabulary", most);
  const auto kind = file.attribute("/", "token_kind");
  words.gap_ = kind == Value("bytes") || kind == Value("bases") ? "" : " ";
  return words;
}

std::string Words::at(Index token) const {
  if (token < 0 || token >= count()) return "?";
  const Index id = ids_[static_cast<std::size_t>(token)];
  return id >= 0 && id < static_cast<Index>(vocabulary_.size()) ? vocabulary_[static_cast<std::size_t>(id)] : "?";
}

std::string Words::text(Range tokens) const {
  std::string text;
  for (Index token = std::max<Index>(0, tokens.begin); token < std::min(tokens.end, count()); ++token)
    text += (text.empty() ? "" : gap_) + at(token);
  return text;
}

void add_excerpt(const InputFile& file, const std::string& group, const Words& words, const ReportChoice& choice,
                 Page& page) {
  const std::string index = sentence(group, "/topk_index");
  if (!file.has(index) || !file.has(sentence(group, "/topk_probability"))) return;
  const Shape shape = file.shape(index);
  require<Failure::file>(shape.dims.size() == 3 && file.shape(sentence(group, "/topk_probability")).dims == shape.dims,
                         "the keys that were kept must be [token, head, k], and their probabilities, too: ",
                         file.path(), ": ", index, " is ", text_of(shape));
  if (shape.elements() == 0) return;
  const json document = document_of(file, group, words, choice, shape);
  std::string data = document.dump(-1, ' ', false, json::error_handler_t::replace);
  for (std::size_t at = 0; (at = data.find('<', at)) != data.npos;)
    data.replace(at, 1, "\\u003c");  // nothing ends the element
  const Index first = document["first"].get<Index>(), count = static_cast<Index>(document["words"].size());
  page.section("Where each token looks");
  page.paragraph(sentence(
      "Tokens ", grouped(first), " to ", grouped(first + count - 1), " of ", grouped(shape.dims[0]),
      " (--at shows others): the darker, the more the chosen head looks at one key. Point at one to see its keys."));
  page.html(
      sentence("<div>\n<form class=\"choose\"></form>\n<div class=\"tokens\"></div>\n<div class=\"looks\"></div>\n",
               "<script type=\"application/json\" class=\"data\">", data, "</script>\n<script>", excerpt_script,
               "</script>\n</div>\n"));
}

}  // namespace annulus::app
