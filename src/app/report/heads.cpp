#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "app/report/layered.hpp"

namespace annulus::app {
namespace {

std::string name_of(const HeadMeans& means, const HeadMeans::Head& head) {
  return sentence("layer ", means.layers[head.layer].number, ", head ", head.head);
}

// "2,048 queries", "1,024 of 65,536 queries".
std::string queries_text(Index some, Index all) {
  return sentence(some < all ? grouped(some) + " of " : "all ", grouped(all), " queries");
}

// Above all values, and round. Shares that are next to nothing stay pale.
double end_of_shades(const Measure& measure) {
  double largest = std::isnan(measure.most) ? 0 : 0.1 * measure.most;
  for (const double value : measure.values) largest = std::isfinite(value) ? std::max(largest, value) : largest;
  if (!(largest > 0)) return 1;
  const double power = std::pow(10.0, std::floor(std::log10(largest)));
  constexpr std::array steps{1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0};
  for (const double step : steps)
    if (step * power >= largest) return std::min(step * power, std::isnan(measure.most) ? INFINITY : measure.most);
  return largest;
}

// At most a dozen, in the middle of cells.
Axis cells_axis(const char* label, const std::vector<Index>& numbers) {
  constexpr std::size_t most = 12;
  std::size_t step = 1;
  for (int n = 0; numbers.size() > most * step; ++n) step = step * (n % 3 == 1 ? 5 : 4) / 2;  // 1, 2, 5, 10 ...
  Axis axis{label};
  for (std::size_t i = 0; i < numbers.size(); i += step)
    axis.ticks.emplace_back(static_cast<double>(i) + 0.5, std::to_string(numbers[i]));
  return axis;
}

Figure maps_of(const HeadMeans& means, const std::vector<Measure>& measures) {
  std::vector<Index> layers, heads;
  for (const Layer& layer : means.layers) layers.push_back(layer.number);
  for (Index head = 0; head < means.heads; ++head) heads.push_back(head);
  Figure figure;
  figure.columns = 2;
  for (const Measure& measure : measures)
    if (measure.known())
      figure.panels.emplace_back(HeatMap{.title = measure.label,
                                         .x = cells_axis("head", heads),
                                         .y = cells_axis("layer", layers),
                                         .rows = static_cast<Index>(layers.size()),
                                         .columns = means.heads,
                                         .values = measure.values,
                                         .faintest = 0,
                                         .fullest = end_of_shades(measure),
                                         .logarithmic = false});
  const double down = std::ceil(static_cast<double>(figure.panels.size()) / 2);
  constexpr double around = 120, row = 8, label = 15;  // pixels
  const auto rows = static_cast<double>(layers.size()),
             labels = static_cast<double>(cells_axis("", layers).ticks.size());
  figure.height = down * std::clamp(around + std::max(row * rows, label * labels), 190.0, 420.0);
  return figure;
}

// What layers see, where it is not the same for all.
void add_masks(const InputFile& file, const HeadMeans& means, Page& page) {
  std::vector<std::pair<std::string, std::vector<Index>>> masks;
  for (const Layer& layer : means.layers) {
    const auto mask = file.attribute(layer.attention(), "mask");
    const std::string text = mask && std::holds_alternative<std::string>(*mask) ? std::get<std::string>(*mask) : "?";
    auto found = std::ranges::find(masks, text, &std::pair<std::string, std::vector<Index>>::first);
    if (found == masks.end()) found = masks.insert(found, {text, {}});
    found->second.push_back(layer.number);
  }
  if (masks.size() < 2) return;
  Table table{{"mask", "layers"}};
  for (const auto& [mask, layers] : masks) table.rows.push_back({mask, list_text(layers)});
  page.table(table);
}

// The strongest heads side by side.
void add_strongest(const HeadMeans& means, Page& page) {
  constexpr std::size_t most = 6;
  Table table{{""}};
  std::vector<std::vector<HeadMeans::Head>> best;
  for (const Measure& role : means.roles) {
    if (!role.known()) continue;
    table.headings.push_back(role.label);
    best.push_back(means.strongest(role, most));
  }
  for (std::size_t i = 0; i < best.front().size(); ++i) {
    table.rows.push_back({std::to_string(i + 1)});
    for (const auto& heads : best)
      table.rows.back().push_back(i < heads.size() ? sentence(name_of(means, heads[i]), ": ", fixed(heads[i].value, 2))
                                                   : "");
  }
  page.table(table);
}

// All numbers.
void add_numbers(const HeadMeans& means, Page& page) {
  Table table{{"layer", "head"}};
  std::vector<const Measure*> known;
  for (const auto* measures : {&means.traces, &means.roles})
    for (const Measure& measure : *measures)
      if (measure.known()) {
        known.push_back(&measure);
        table.headings.push_back(measure.label);
      }
  for (std::size_t layer = 0; layer < means.layers.size(); ++layer)
    for (Index head = 0; head < means.heads; ++head) {
      table.rows.push_back({std::to_string(means.layers[layer].number), std::to_string(head)});
      for (const Measure* measure : known)
        table.rows.back().push_back(readable(measure->values[means.place(layer, head)]));
    }
  page.folded(sentence("The numbers of all ", table.rows.size(), " heads"), table);
}

}  // namespace

void add_heads(const InputFile& file, const HeadMeans& means, Page& page) {
  if (!means.traces.front().known()) return;
  std::vector<Index> numbers;
  for (const Layer& layer : means.layers) numbers.push_back(layer.number);
  page.section("What heads do");
  const bool several = numbers.size() > 1;
  page.paragraph(sentence(several ? "Layers " : "Layer ", list_text(numbers), " of ", means.heads,
                          means.heads == 1 ? " head" : " heads", several ? " each" : "", "."));
  add_masks(file, means, page);
  if (std::ranges::any_of(means.roles, &Measure::known)) {
    add_strongest(means, page);
    Figure figure = maps_of(means, means.roles);
    figure.name = "roles";
    figure.caption = sentence(
        "Shares of attention, means over ", queries_text(means.kept_queries, means.tokens), ", counting only the ",
        means.kept,
        " keys with the most attention that were kept of each: on the token before the query; on tokens whose "
        "predecessor is the query's token (induction: what followed it earlier); on the first token of the sequence, "
        "or of the document where positions begin anew; on the query's own token.");
    page.figure(std::move(figure));
  }
  Figure figure = maps_of(means, means.traces);
  figure.name = "heads";
  figure.caption = sentence(
      "Means over ", queries_text(means.queries, means.tokens),
      " that see a key: entropy of their attention (n nat are as many keys as e to the n, equally seen), distance to "
      "what they attend to, attention on the first tokens of the sequence (--sink-tokens), and "
      "what the key with the most attention gets.");
  page.figure(std::move(figure));
  add_numbers(means, page);
}

}  // namespace annulus::app
