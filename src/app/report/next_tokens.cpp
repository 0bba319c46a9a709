#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "app/report/along.hpp"
#include "app/report/excerpt.hpp"
#include "app/report/layered.hpp"

namespace annulus::app {
namespace {

constexpr Index most_tokens = Index{1} << 24;

// Of every token, what a model expected behind it. All are as long as the text; positions, begins and ends may be missing.
struct Predictions {
  std::vector<Index> ids, expected, positions, begins, ends;
  std::vector<double> probability, bits;  // bits are no number where nothing follows

  Index count() const { return static_cast<Index>(bits.size()); }
  bool followed(Index token) const { return token + 1 < count() && !std::isnan(bits[static_cast<std::size_t>(token)]); }
};

template <class Read>
auto read(const InputFile& file, const char* name, Index tokens, const Read& read_all) {
  auto values = read_all(name);
  require<Failure::file>(static_cast<Index>(values.size()) == tokens, name,
                         " must have a value for each token: ", file.path(), " has ", values.size(), " of ", tokens,
                         " tokens");
  return values;
}

Predictions predictions_of(const InputFile& file) {
  Predictions p;
  p.bits = file.read_numbers("predictions/bits", most_tokens);
  const auto whole = [&](const char* name) {
    return read(file, name, p.count(), [&](const char* n) { return file.read_integers(n, most_tokens); });
  };
  p.probability = read(file, "predictions/probability", p.count(),
                       [&](const char* name) { return file.read_numbers(name, most_tokens); });
  p.ids = whole("tokens/ids");
  p.expected = whole("predictions/ids");
  if (file.has("tokens/position")) p.positions = whole("tokens/position");
  const bool texts = file.attribute("/", "token_kind") == Value("model");  // bytes of other files are no text
  if (texts && file.has("tokens/byte_begin") && file.has("tokens/byte_end")) {
    p.begins = whole("tokens/byte_begin");
    p.ends = whole("tokens/byte_end");
  }
  return p;
}

void add_facts(const Predictions& p, Page& page) {
  double bits = 0, right = 0, followed = 0, bytes = 0;
  for (std::size_t i = 0; i < p.bits.size(); ++i) {
    if (!p.followed(static_cast<Index>(i))) continue;
    followed += 1;
    bits += p.bits[i];
    right += p.expected[i] == p.ids[i + 1] ? 1 : 0;
    if (!p.ends.empty()) bytes += static_cast<double>(p.ends[i + 1] - p.begins[i + 1]);
  }
  std::vector<std::pair<std::string, std::string>> facts{{"right", percent(100 * right / followed)},
                                                         {"bits per token", fixed(bits / followed, 3)},
                                                         {"perplexity", readable(std::exp2(bits / followed))}};
  if (bytes > 0) facts.emplace_back("bits per byte", fixed(bits / bytes, 3));
  facts.emplace_back("tokens that were expected", grouped(static_cast<Index>(followed)));
  page.facts(facts);
}

void add_curves(const Predictions& p, Page& page) {
  Along along(p.count(), 1);
  constexpr std::size_t classes = 41;  // tokens of context: 1-2, 3-4, 5-8, 9-16 ...
  std::array<double, classes> sums{}, counts{};
  std::size_t longest = 1;
  for (Index token = 0; token < p.count(); ++token) {
    const double bits = p.bits[static_cast<std::size_t>(token)];
    if (!p.followed(token) || !std::isfinite(bits)) continue;
    along.add(token, 0, bits);
    const Index before = p.positions.empty() ? token : p.positions[static_cast<std::size_t>(token)];
    const auto bin = std::clamp<std::size_t>(std::bit_width(static_cast<std::uint64_t>(before)), 1, classes - 1);
    sums[bin] += bits;
    counts[bin] += 1;
    longest = std::max(longest, bin);
  }
  const std::vector<Index> middles = along.middles();
  page.figure({.name = "bits",
               .caption = sentence("What the token behind each place costs, along the text",
                                   along.each() > 1 ? sentence(": means of ", along.each(), " tokens") : "", "."),
               .height = 220,
               .panels = {Chart{.x = {"token", 0, static_cast<double>(p.count())},
                                .y = {"bits per token", 0},
                                .curves = {{"", {middles.begin(), middles.end()}, along.points(0)}}}}});
  Chart chart{.x = {"tokens of context, up to", 0.5, static_cast<double>(longest) + 0.5},
              .y = {"bits per token", 0},
              .marks = Chart::Marks::linked_points,
              .curves = {Curve{}}};
  for (std::size_t bin = 1; bin <= longest; ++bin) {
    chart.curves[0].x.push_back(static_cast<double>(bin));
    chart.curves[0].y.push_back(sums[bin] / counts[bin]);
    if (longest < 14 || bin % 2 == 0) chart.x.ticks.emplace_back(static_cast<double>(bin), grouped(Index{1} << bin));
  }
  page.figure({.name = "context",
               .caption = "What a token costs by how many tokens of its document came before it: each point counts "
                          "from where the one before it ends. Where the curve still falls, more context still helps.",
               .height = 220,
               .panels = {std::move(chart)}});
}

// Tokens that were least expected, with what stands before them.
void add_costliest(const Predictions& p, const Words& words, Page& page) {
  constexpr std::size_t most = 12;
  constexpr Index context = 12;
  std::vector<Index> places;
  for (Index token = 0; token < p.count(); ++token)
    if (p.followed(token)) places.push_back(token);
  const auto bits = [&](Index token) { return p.bits[static_cast<std::size_t>(token)]; };
  const auto middle = places.begin() + static_cast<long>(std::min(most, places.size()));
  std::ranges::partial_sort(places, middle, std::ranges::greater{}, bits);
  Table table{{"bits", "token", "where", "expected", "after"}};
  for (auto place = places.begin(); place != middle; ++place) {
    const auto i = static_cast<std::size_t>(*place);
    table.rows.push_back(
        {fixed(p.bits[i], 1), sentence("\u201c", visible(words.at(*place + 1)), "\u201d"), grouped(*place + 1),
         sentence("\u201c", visible(words.word(p.expected[i])), "\u201d, ", percent(100 * p.probability[i])),
         sentence("... ", words.text({*place + 1 - context, *place + 1}))});
  }
  page.subsection("Tokens that were least expected");
  page.table(table);
}

// A stretch of the text, every token as dark as it was dear.
void add_shaded(const InputFile& file, const Predictions& p, const Words& words, const ReportChoice& choice,
                Page& page) {
  constexpr double dearest = 12;  // bits of the darkest shade
  const Range shown = excerpt_of(file, p.count(), choice);
  std::string html = "<div class=\"tokens\">";
  for (Index token = shown.begin; token < shown.end; ++token) {
    const bool known = token > 0 && p.followed(token - 1);
    const auto i = static_cast<std::size_t>(std::max<Index>(token - 1, 0));
    const std::string word = words.at(token);
    html += "<span";
    if (known)
      html += sentence(" style=\"background:rgba(213,94,0,", fixed(0.75 * std::clamp(p.bits[i] / dearest, 0.0, 1.0), 2),
                       ")\" title=\"token ", grouped(token), ": ", fixed(p.bits[i], 1), " bits; expected \u201c",
                       escaped(visible(words.word(p.expected[i]))), "\u201d, ", percent(100 * p.probability[i]), "\"");
    html += sentence(">", escaped(visible(word)), "</span>", words.gap(), word.find('\n') == word.npos ? "" : "<br>");
  }
  page.subsection("What each token costs");
  page.paragraph(sentence("Tokens ", grouped(shown.begin), " to ", grouped(shown.end - 1), " of ", grouped(p.count()),
                          " (--at shows others): the darker, the less the model expected it; from ", dearest,
                          " bits on it is darkest. Point at one to see what was expected."));
  page.html(html + "</div>\n");
}

}  // namespace

void add_next_tokens(const InputFile& file, const std::optional<Words>& words, const ReportChoice& choice, Page& page) {
  if (!file.has("predictions/bits")) return;
  const Shape shape = file.shape("predictions/bits");
  if (shape.dims.size() != 1 || shape.elements() > most_tokens) return;  // of several heads, or too many to hold
  const Predictions p = predictions_of(file);
  bool any = false;
  for (Index token = 0; token < p.count(); ++token) any = any || p.followed(token);
  if (!any) return;
  page.section("What comes next");
  add_facts(p, page);
  add_curves(p, page);
  if (!words) return;
  add_costliest(p, *words, page);
  add_shaded(file, p, *words, choice, page);
}

}  // namespace annulus::app
