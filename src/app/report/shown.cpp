#include "app/report/shown.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

#include "annulus/base/error.hpp"

namespace annulus::app {
namespace {

constexpr Index usual_heads = 8;
constexpr std::size_t usual_layers = 4;

// What heads do, the most telling first.
std::vector<const Measure*> by_interest(const HeadMeans& means) {
  std::vector<const Measure*> measures;
  for (const char* name :
       {"induction", "previous", "first", "itself", "entropy", "mean_distance", "max_probability", "sink_mass"})
    for (const auto* some : {&means.roles, &means.traces})
      if (const auto found = std::ranges::find(*some, name, &Measure::name); found != some->end())
        measures.push_back(&*found);
  return measures;
}

// Heads that show most, and the first others.
std::vector<Index> telling_heads(const std::vector<Index>& telling, Index count) {
  std::vector<Index> heads;
  const auto add = [&](Index head) {
    if (static_cast<Index>(heads.size()) < usual_heads && std::ranges::find(heads, head) == heads.end())
      heads.push_back(head);
  };
  for (const Index head : telling) add(head);
  for (Index head = 0; head < count; ++head) add(head);
  std::ranges::sort(heads);
  return heads;
}

// Those with the heads that do most of anything; where the same layers do most of much, some over the depth besides.
std::vector<std::size_t> telling_layers(const HeadMeans& means, const std::vector<const Measure*>& measures) {
  std::vector<std::size_t> layers;
  const auto add = [&](std::size_t layer) {
    if (layers.size() < usual_layers && std::ranges::find(layers, layer) == layers.end()) layers.push_back(layer);
  };
  for (const Measure* measure : measures)
    for (const HeadMeans::Head& best : means.strongest(*measure, 1)) add(best.layer);
  if (const std::size_t count = means.layers.size(); count > 0)
    for (const std::size_t layer : {count / 2, count - 1, std::size_t{0}}) add(layer);
  std::ranges::sort(layers);
  return layers;
}

// Those that the user names.
std::vector<std::size_t> chosen_layers(const HeadMeans& means, const std::vector<Index>& chosen) {
  std::vector<std::size_t> layers;
  std::vector<Index> numbers;
  for (const Layer& layer : means.layers) numbers.push_back(layer.number);
  for (const Index number : chosen) {
    const auto found = std::ranges::find(numbers, number);
    require(found != numbers.end(), "--layers must name layers of the result that have traces, ",
            numbers.empty() ? "and it has none" : list_text(numbers), ": it names ", number);
    layers.push_back(static_cast<std::size_t>(found - numbers.begin()));
  }
  return layers;
}

}  // namespace

std::vector<Index> ShownTraces::shown_heads(Index count) const {
  std::vector<Index> some = heads;
  for (Index head = 0; heads.empty() && head < std::min(count, usual_heads); ++head) some.push_back(head);
  for (const Index head : some)
    require(head < count, "--heads must name heads of the result, 0 to ", count - 1, ": it names ", head);
  return some;
}

void ShownTraces::section(const std::string& heading, Page& page) const {
  if (layer < 0) page.section(heading);
  else page.subsection(heading);
}

std::string ShownTraces::named(const std::string& figure) const {
  std::array<char, 24> number{};
  if (layer >= 0) std::snprintf(number.data(), number.size(), "-%03lld", static_cast<long long>(layer));
  return figure + number.data();
}

std::vector<ShownTraces> shown_layers(const HeadMeans& means, const ReportChoice& choice) {
  const std::vector<const Measure*> measures = by_interest(means);
  const std::vector<std::size_t> layers =
      choice.layers.empty() ? telling_layers(means, measures) : chosen_layers(means, choice.layers);
  std::vector<ShownTraces> shown;
  bool begun = false;
  for (const std::size_t layer : layers)
    shown.push_back({.group = means.layers[layer].attention(), .layer = means.layers[layer].number});
  std::vector<std::vector<Index>> telling(layers.size());
  for (const Measure* measure : measures) {
    const auto best = means.strongest(*measure, 1);
    const auto found = best.empty() ? layers.end() : std::ranges::find(layers, best[0].layer);
    if (found == layers.end()) continue;
    const auto at = static_cast<std::size_t>(found - layers.begin());
    telling[at].push_back(best[0].head);
    shown[at].why.push_back(
        sentence("head ", best[0].head, " ", measure->superlative, " (", readable(best[0].value), ")"));
    if (shown[at].telling < 0) shown[at].telling = best[0].head;
    if (!std::exchange(begun, true)) shown[at].begins = true;
  }
  for (std::size_t at = 0; at < shown.size(); ++at)
    shown[at].heads = choice.heads.empty() ? telling_heads(telling[at], means.heads) : choice.heads;
  return shown;
}

}  // namespace annulus::app
