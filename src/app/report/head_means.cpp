#include "app/report/head_means.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>

#include "annulus/base/error.hpp"
#include "app/report/along.hpp"
#include "app/report/kept_keys.hpp"

namespace annulus::app {
namespace {

constexpr Index most_numbers = Index{1} << 19;  // of a layer's trace
constexpr Index most_tokens = Index{1} << 24;   // whose ids and positions are held

// What the tokens are, as far as the file says.
struct Tokens {
  std::vector<Index> ids, positions;

  bool first(Index token) const {
    return positions.empty() ? token == 0 : positions[static_cast<std::size_t>(token)] == 0;
  }
  // The token before the key is the query's: what follows there may follow here.
  bool induces(Index key, Index query) const {
    return !first(key) && key > 0 && key <= query &&
           ids[static_cast<std::size_t>(key - 1)] == ids[static_cast<std::size_t>(query)];
  }
};

std::vector<Index> numbers_of_tokens(const InputFile& file, const char* name, Index tokens) {
  if (!file.has(name) || tokens > most_tokens) return {};
  std::vector<Index> numbers = file.read_integers(name, most_tokens);
  require<Failure::file>(static_cast<Index>(numbers.size()) == tokens, name,
                         " must be as long as traces: ", file.path(), " has ", numbers.size(), " of ", tokens,
                         " tokens");
  return numbers;
}

std::vector<Measure> traces() {
  return {{"entropy", "entropy, nat", "spreads its attention most"},
          {"mean_distance", "distance, tokens", "looks farthest"},
          {"sink_mass", "share on the first tokens", "looks most at the first tokens", 1},
          {"max_probability", "largest probability", "is the sharpest", 1}};
}

std::vector<Measure> roles() {
  return {{"previous", "previous token", "looks most at the previous token", 1},
          {"induction", "induction", "looks most at what followed the same token earlier", 1},
          {"first", "first token", "looks most at the first token", 1},
          {"itself", "the token itself", "looks most at the token itself", 1}};
}

// Adds the shares of attention that a layer's heads give to each role. Places of layers that keep no keys stay NaN.
void add_roles(const InputFile& file, const Tokens& tokens, std::size_t layer, HeadMeans& means) {
  const std::string group = means.layers[layer].attention();
  const std::optional<Shape> shape = shape_of_kept_keys(file, group);
  if (!shape || shape->elements() == 0) return;
  require<Failure::file>(shape->dims[0] == means.tokens && shape->dims[1] == means.heads,
                         "kept keys must be of the same tokens and heads as traces: ", file.path(), ": ", group,
                         "/topk_index is ", text_of(*shape));
  means.kept = std::max(means.kept, shape->dims[2]);
  const KeptKeys keys(file, group, *shape, evenly(means.tokens, most_numbers / (means.heads * shape->dims[2])));
  means.kept_queries = std::max(means.kept_queries, keys.queries.count);
  const std::vector<double> seeing = keys.seeing();
  for (Measure& role : means.roles)
    for (Index head = 0; head < means.heads; ++head)
      if (seeing[static_cast<std::size_t>(head)] > 0 && (role.name != "induction" || !tokens.ids.empty()))
        role.values[means.place(layer, head)] = 0;
  keys.visit([&](Index n, Index head, Index key, double share) {
    const Index query = keys.queries.at(n);
    if (key >= means.tokens || !std::isfinite(share)) return;
    const std::size_t at = means.place(layer, head);
    const double part = share / seeing[static_cast<std::size_t>(head)];
    if (key == query - 1) means.roles[0].values[at] += part;
    if (!tokens.ids.empty() && tokens.induces(key, query)) means.roles[1].values[at] += part;
    if (tokens.first(key)) means.roles[2].values[at] += part;
    if (key == query) means.roles[3].values[at] += part;
  });
}

}  // namespace

bool Measure::known() const {
  return std::ranges::any_of(values, [](double value) { return std::isfinite(value); });
}

std::vector<HeadMeans::Head> HeadMeans::strongest(const Measure& measure, std::size_t count) const {
  std::vector<Head> all;
  for (std::size_t at = 0; at < measure.values.size(); ++at)
    if (std::isfinite(measure.values[at]))
      all.push_back({at / static_cast<std::size_t>(heads), static_cast<Index>(at) % heads, measure.values[at]});
  std::ranges::stable_sort(all, std::ranges::greater{}, &Head::value);
  all.resize(std::min(count, all.size()));
  return all;
}

HeadMeans head_means(const InputFile& file, const std::vector<Layer>& traced) {
  HeadMeans means{.layers = traced, .traces = traces(), .roles = roles()};
  if (traced.empty()) return means;
  const Shape shape = shape_of_trace(file, traced[0].attention() + "/entropy");
  means.tokens = shape.dims[0];
  means.heads = shape.dims[1];
  if (shape.elements() == 0) return means;
  constexpr Index most_places = Index{1} << 16;
  require<Failure::file>(static_cast<Index>(traced.size()) * means.heads <= most_places, "layers must have at most ",
                         most_places, " heads together: ", file.path(), " has ", traced.size(), " layers of ",
                         means.heads, " heads");
  for (auto* measures : {&means.traces, &means.roles})
    for (Measure& measure : *measures) measure.values.assign(means.place(traced.size(), 0), NAN);
  const annulus::Run rows = evenly(means.tokens, most_numbers / means.heads);
  means.queries = rows.count;
  const Tokens tokens{numbers_of_tokens(file, "tokens/ids", means.tokens),
                      numbers_of_tokens(file, "tokens/position", means.tokens)};
  for (std::size_t layer = 0; layer < traced.size(); ++layer) {
    const std::string group = traced[layer].attention();
    for (Measure& measure : means.traces) {
      const std::string name = sentence(group, "/", measure.name);
      if (!file.has(name)) continue;
      require<Failure::file>(shape_of_trace(file, name).dims == shape.dims,
                             "traces must be of the same tokens and heads: ", file.path(), ": ", name, " is ",
                             text_of(shape_of_trace(file, name)), ", and ", traced[0].attention(), "/entropy is ",
                             text_of(shape));
      std::ranges::copy(along(file, group, measure.name, rows).means(),
                        measure.values.begin() + static_cast<long>(means.place(layer, 0)));
    }
    add_roles(file, tokens, layer, means);
  }
  return means;
}

}  // namespace annulus::app
