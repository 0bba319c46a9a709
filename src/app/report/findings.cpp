#include <algorithm>
#include <cmath>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/memory/device.hpp"
#include "app/report/report.hpp"

namespace annulus::app {
namespace {

// What every head predicts, and the baseline: predictions/accuracy and bits_per_token are [head and then unigram].
void add_predictions(const InputFile& file, Page& page) {
  if (!file.has("predictions/accuracy")) return;
  const auto right = file.read_numbers("predictions/accuracy"), bits = file.read_numbers("predictions/bits_per_token");
  const auto context = file.read_integers("predictions/context");
  require<Failure::file>(right.size() == context.size() + 1 && bits.size() == right.size(),
                         "predictions must be of every head and the baseline: ", file.path(), " has ", right.size(),
                         " of ", context.size(), " heads");
  Table table{{"head", "tokens of context", "right", "bits per token"}};
  Curve bars{"", {}, bits};
  Chart chart{.x = {}, .y = {"bits per token", 0}, .marks = Chart::Marks::bars};
  for (std::size_t i = 0; i < right.size(); ++i) {
    const bool head = i < context.size();
    table.rows.push_back({head ? std::to_string(i) : "the most frequent token", head ? grouped(context[i]) : "-",
                          percent(100 * right[i]), fixed(bits[i], 2)});
    bars.x.push_back(static_cast<double>(i));
    chart.x.ticks.emplace_back(bars.x.back(), head ? sentence("head ", i, " (", context[i], ")") : "most frequent");
  }
  chart.x.least = -0.7;
  chart.x.largest = static_cast<double>(right.size()) - 0.3;
  chart.curves.push_back(std::move(bars));
  page.section("What follows, by the earlier places with the same context");
  page.table(table);
  page.figure({.name = "predictions",
               .caption = "What a token costs when a head predicts it from so many tokens before it, beside a baseline "
                          "that knows only "
                          "how frequent tokens are: less is better.",
               .height = 230,
               .panels = {std::move(chart)}});
}

void add_passages(const InputFile& file, const std::optional<Words>& words, Page& page) {
  if (!file.has("passages/text")) return;
  const auto texts = file.read_texts("passages/text");
  const auto begins = file.read_integers("passages/first_begin"), ends = file.read_integers("passages/first_end");
  require<Failure::file>(begins.size() == texts.size() && ends.size() == texts.size(),
                         "passages must have a begin and an end each: ", file.path(), " has ", begins.size(), " and ",
                         ends.size(), " of ", texts.size());
  const bool spelled = words.has_value();
  page.section("Passages that occur twice");
  if (texts.empty()) {
    page.paragraph("None of the length that was asked for (--passage-tokens).");
    return;
  }
  constexpr std::size_t most = 200;
  const Index spelled_tokens = words && words->gap().empty() ? 40 : 14;
  Table table{{"tokens", "where"}};
  if (spelled) table.headings.push_back("begins with");
  for (std::size_t i = 0; i < std::min(most, texts.size()); ++i) {
    table.rows.push_back({readable(static_cast<double>(ends[i]) - static_cast<double>(begins[i])), texts[i]});
    if (spelled)
      table.rows.back().push_back(
          words->text({begins[i], std::min(ends[i], std::clamp<Index>(begins[i], 0, far) + spelled_tokens)}) + " ...");
  }
  page.paragraph(sentence(grouped(static_cast<Index>(texts.size())), texts.size() == 1 ? " passage" : " passages",
                          ", longest first", texts.size() > most ? sentence("; the first ", most, " are here") : "",
                          "."));
  Table first{
      table.headings,
      {table.rows.begin(), table.rows.begin() + static_cast<long>(std::min<std::size_t>(12, table.rows.size()))}};
  page.table(first);
  table.rows.erase(table.rows.begin(), table.rows.begin() + static_cast<long>(first.rows.size()));
  if (!table.rows.empty()) page.folded(sentence(table.rows.size(), " more"), table);
}

}  // namespace

void add_reuse(const InputFile& file, const std::optional<Words>& words, Page& page) {
  add_predictions(file, page);
  add_passages(file, words, page);
}

// Of every head, the keys that receive the most.
void add_received(const InputFile& file, const ShownTraces& traces, const std::optional<Words>& words, Page& page) {
  const std::string name = sentence(traces.group, "/received_mass");
  if (!file.has(name)) return;
  const Shape shape = file.shape(name);
  require<Failure::file>(shape.dims.size() == 2, "a trace must have the axes [key, head]: ", file.path(), ": ", name,
                         " is ", text_of(shape));
  const Index keys = shape.dims[0], count = shape.dims[1];
  const std::vector<Index> heads = traces.shown_heads(count);
  if (keys == 0 || heads.empty()) return;
  constexpr std::size_t most = 8;
  std::vector<std::vector<std::pair<double, Index>>> best(heads.size());  // largest first
  const Index at_once = std::clamp<Index>((Index{1} << 21) / count, 1, keys);
  CpuDevice cpu;
  const Array values(cpu, DType::f64, at_once, count, 1);
  for (Index first = 0; first < keys; first += at_once) {
    const annulus::Run run{first, std::min(at_once, keys - first), 1};
    file.read_rows(name, {&run, 1}, values.rows().slice(0, run.count));
    for (Index i = 0; i < run.count; ++i)
      for (std::size_t h = 0; h < heads.size(); ++h) {
        auto& list = best[h];
        const double mass = values.elements<double>()[static_cast<std::size_t>(i * count + heads[h])];
        if (!std::isfinite(mass) || (list.size() == most && mass <= list.back().first)) continue;
        const std::pair<double, Index> entry{mass, first + i};
        list.insert(
            std::ranges::upper_bound(list, entry, [](const auto& a, const auto& b) { return a.first > b.first; }),
            entry);
        if (list.size() > most) list.pop_back();
      }
  }
  const std::vector<double> times =
      file.has("tokens/time_s") ? file.read_numbers("tokens/time_s") : std::vector<double>{};
  const auto place_of = [&](Index key) {
    const auto i = static_cast<std::size_t>(key);
    return i < times.size() ? fixed(times[i], 2) + " s" : grouped(key);
  };
  Table table{{"place"}};
  for (const Index head : heads) table.headings.push_back(sentence("head ", head));
  for (std::size_t i = 0; i < most; ++i) {
    std::vector<std::string> row{std::to_string(i + 1)};
    for (const auto& list : best)
      row.push_back(i >= list.size()
                        ? ""
                        : sentence(readable(list[i].first),
                                   words ? sentence(" \u201c", visible(words->at(list[i].second)), "\u201d") : "",
                                   " at ", place_of(list[i].second)));
    table.rows.push_back(std::move(row));
  }
  traces.section("Keys that receive the most attention", page);
  page.paragraph(
      "Attention of all queries together: a key that everybody sees alone receives as much as there are queries.");
  page.table(table);
}

}  // namespace annulus::app
