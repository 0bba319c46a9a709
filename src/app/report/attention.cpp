#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <span>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/memory/device.hpp"
#include "app/report/along.hpp"
#include "app/report/kept_keys.hpp"
#include "app/report/report.hpp"
#include "app/stop.hpp"

namespace annulus::app {
namespace {

constexpr Index most_cells = 512;            // along a side of a map
constexpr Index most_kept = Index{1} << 21;  // of the keys that are looked at

// Where the points of curves stand: the middle token of each, or its time.
std::vector<double> places_of(const InputFile& file, const Along& values, bool timed) {
  const std::vector<Index> middles = values.middles();
  if (!timed) return {middles.begin(), middles.end()};
  const std::vector<double> times = file.read_numbers("tokens/time_s");
  require<Failure::file>(static_cast<Index>(times.size()) == values.tokens(),
                         "tokens/time_s must be as long as traces: ", file.path(), " has ", times.size(), " times of ",
                         values.tokens(), " tokens");
  std::vector<double> places;
  for (const Index middle : middles) places.push_back(times[static_cast<std::size_t>(middle)]);
  return places;
}

struct Trace {
  const char *name, *label, *caption;
  double largest;  // of the y axis
};
constexpr std::array curves{
    Trace{"entropy", "entropy, nat",
          "Entropy of a query's attention: n nat are as many keys as e to the n, equally seen.", NAN},
    Trace{"max_probability", "largest probability",
          "What the key with the most attention gets: 1 is a query that looks at one key.", 1},
    Trace{"mean_distance", "distance, tokens", "Mean distance between a query and what it attends to.", NAN},
    Trace{"sink_mass", "share", "Share of attention on the first keys of the sequence (--sink-tokens).", NAN}};

void add_curves(const InputFile& file, const ShownTraces& traces, Page& page) {
  Table table{{"head", "entropy, nat", "as many keys", "largest probability", "distance, tokens", "on the first keys"}};
  std::vector<Along> values;
  for (const Trace& trace : curves) {
    values.push_back(along(file, traces.group, trace.name));
    require<Failure::file>(values.back().tokens() == values[0].tokens() && values.back().heads() == values[0].heads(),
                           "traces must be of the same tokens and heads: ", file.path(), ": ", traces.group, "/",
                           trace.name, " is not of those of ", curves[0].name);
  }
  const Along& first = values.front();
  for (Index head = 0; head < first.heads(); ++head)
    table.rows.push_back({std::to_string(head), readable(first.mean(head)), readable(std::exp(first.mean(head))),
                          readable(values[1].mean(head)), readable(values[2].mean(head)),
                          readable(values[3].mean(head))});
  traces.section("Attention, head by head", page);
  page.paragraph(first.blind == 0
                     ? "Means over all queries."
                     : sentence("Means over the queries that see a key: of ", grouped(first.tokens() * first.heads()),
                                " queries of all heads ", grouped(first.blind), " see none."));
  if (table.rows.size() <= 16) page.table(table);
  else page.folded(sentence(table.rows.size(), " heads"), table);
  const bool timed = file.has("tokens/time_s");
  const std::vector<double> places = places_of(file, first, timed);
  const std::string means = first.each() > 1 ? sentence(" Points are means of ", first.each(), " tokens.") : "";
  for (std::size_t i = 0; i < curves.size(); ++i) {
    Chart chart{.x = {timed ? "time, s" : "token"}, .y = {curves[i].label, 0, curves[i].largest}};
    for (const Index head : traces.shown_heads(values[i].heads()))
      chart.curves.push_back({sentence("head ", head), places, values[i].points(head)});
    page.figure({.name = traces.named(curves[i].name),
                 .caption = curves[i].caption + means,
                 .height = 240,
                 .panels = {std::move(chart)}});
  }
}

// How far what queries attend to lies back, of the keys that were kept: in classes that double.
void add_distances(const InputFile& file, const ShownTraces& traces, Page& page) {
  const std::optional<Shape> shape = shape_of_kept_keys(file, traces.group);
  if (!shape || shape->elements() == 0) return;
  const Index tokens = shape->dims[0], heads = shape->dims[1], kept = shape->dims[2];
  const std::string received = sentence(traces.group, "/received_mass");
  const bool known = file.has(received) && file.shape(received).dims.size() == 2;
  const Index keys_before = known ? file.shape(received).dims[0] - tokens : 0;  // ends are aligned
  const KeptKeys keys(file, traces.group, *shape, evenly(tokens, std::min<Index>(most_kept / (heads * kept), 4096)));
  constexpr std::size_t classes = 40;
  std::vector<double> sums(static_cast<std::size_t>(heads) * classes);
  std::size_t farthest = 0;
  const std::vector<double> seeing = keys.seeing();
  keys.visit([&](Index n, Index head, Index key, double share) {
    const auto distance = static_cast<double>(std::abs(keys.queries.at(n) + keys_before - key));
    const auto bin = std::min(classes - 1, static_cast<std::size_t>(std::log2(distance + 1)));
    sums[static_cast<std::size_t>(head) * classes + bin] += share;
    farthest = std::max(farthest, bin);
  });
  Chart chart{.x = {"distance to the key, tokens", -0.5, static_cast<double>(farthest) + 0.5},
              .y = {"share of attention", 0},
              .marks = Chart::Marks::linked_points};
  for (std::size_t bin = 0; bin <= farthest; ++bin) {
    const Index least = (Index{1} << bin) - 1;
    if (farthest < 12 || bin % 2 == 0)
      chart.x.ticks.emplace_back(static_cast<double>(bin), bin == 0 ? "0" : sentence(grouped(least), "+"));
  }
  for (const Index head : traces.shown_heads(heads)) {
    Curve curve{sentence("head ", head), {}, {}};
    for (std::size_t bin = 0; bin <= farthest; ++bin) {
      curve.x.push_back(static_cast<double>(bin));
      curve.y.push_back(sums[static_cast<std::size_t>(head) * classes + bin] / seeing[static_cast<std::size_t>(head)]);
    }
    chart.curves.push_back(std::move(curve));
  }
  page.figure(
      {.name = traces.named("distances"),
       .caption = sentence("How far away the ", kept, " keys with the most attention are, of ",
                           grouped(keys.queries.count), " queries: each point counts distances up to the next one."),
       .height = 260,
       .panels = {std::move(chart)}});
}

// Of each x each cells.
std::vector<double> means_of_cells(std::span<const double> cells, Index rows, Index columns, Index each) {
  const Index across = ceil_div(columns, each);
  std::vector<double> sums(static_cast<std::size_t>(ceil_div(rows, each) * across)), counts(sums.size());
  for (Index row = 0; row < rows; ++row)
    for (Index column = 0; column < columns; ++column) {
      const auto to = static_cast<std::size_t>(row / each * across + column / each);
      sums[to] += cells[static_cast<std::size_t>(row * columns + column)];
      counts[to] += 1;
    }
  std::ranges::transform(sums, counts, sums.begin(), std::divides{});
  return sums;
}

void add_maps(const InputFile& file, const ShownTraces& traces, Page& page) {
  const std::string name = sentence(traces.group, "/block_mass");
  if (!file.has(name)) return;
  const Shape shape = file.shape(name);
  require<Failure::file>(shape.dims.size() == 3, "a block map must be [head, query block, key block]: ", file.path(),
                         ": ", name, " is ", text_of(shape));
  const double block = file.number(name, "block_tokens");
  require<Failure::file>(std::isfinite(block) && block > 0 && block < 1e15, "attribute block_tokens of ", name, " of ",
                         file.path(), " must be a number of tokens: it is ", block);
  const Index rows = shape.dims[1], columns = shape.dims[2];
  if (shape.elements() == 0) return;
  const Index each =
      std::max<Index>(1, ceil_div(std::max(rows, columns), most_cells));  // more than a screen shows: means
  const std::vector<Index> heads = traces.shown_heads(shape.dims[0]);
  Figure figure{.name = traces.named("maps"),
                .caption = sentence("Mean attention of blocks of ", readable(block),
                                    " queries (downwards) on blocks of as many keys "
                                    "(to the right). White is next to nothing."),
                .columns = heads.size() < 3    ? static_cast<int>(heads.size())
                           : heads.size() == 4 ? 2
                                               : 3};
  CpuDevice cpu;
  const Array values(cpu, DType::f64, 1, rows, columns);
  for (const Index head : heads) {
    const annulus::Run run{head, 1, 1};
    require_not_stopped();
    file.read_rows(name, {&run, 1}, values.rows());
    figure.panels.emplace_back(HeatMap{.title = sentence("head ", head),
                                       .x = {"key"},
                                       .y = {"query"},
                                       .cell_x = block * static_cast<double>(each),
                                       .cell_y = block * static_cast<double>(each),
                                       .rows = ceil_div(rows, each),
                                       .columns = ceil_div(columns, each),
                                       .values = means_of_cells(values.elements<double>(), rows, columns, each)});
  }
  const auto across = static_cast<double>(figure.columns), down = std::ceil(static_cast<double>(heads.size()) / across);
  figure.height =
      std::max(220.0, std::min(1.0, static_cast<double>(rows) / static_cast<double>(columns)) * 760 / across) * down;
  traces.section("Where the attention lies", page);
  page.figure(std::move(figure));
}

}  // namespace

void add_attention(const InputFile& file, const ShownTraces& traces, Page& page) {
  if (file.shape(sentence(traces.group, "/entropy")).elements() == 0) return;  // nothing to look at
  if (traces.layer < 0) {
    add_curves(file, traces, page);
    add_distances(file, traces, page);
    add_maps(file, traces, page);
    return;
  }
  add_maps(file, traces, page);  // of several layers, what tells most comes first
  add_distances(file, traces, page);
  page.fold("Head by head, along the sequence");
  add_curves(file, traces, page);
  page.unfold();
}

}  // namespace annulus::app
