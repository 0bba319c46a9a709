#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <span>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/memory/device.hpp"
#include "app/report/report.hpp"
#include "app/stop.hpp"

namespace annulus::app {
namespace {

constexpr Index most_points = 400;  // along a curve: of more tokens, means of neighbours are drawn
constexpr Index most_cells = 512;   // along a side of a map
constexpr Index most_at_once = Index{1} << 21;

// Of one trace: the mean of every head, and means of neighbouring tokens. What is not finite is left out, and queries that see nothing.
struct Along {
  Index tokens = 0, heads = 0, each = 1;
  std::vector<double> means;   // [heads]
  std::vector<double> points;  // [heads, points]
  Index blind = 0;             // queries and heads that see nothing
  Index count() const { return tokens == 0 ? 0 : (tokens + each - 1) / each; }
};

Along along(const InputFile& file, const std::string& group, const char* trace) {
  const std::string name = sentence(group, "/", trace), lse = sentence(group, "/lse");
  const Shape shape = file.shape(name);
  require<Failure::file>(shape.dims.size() == 2, "a trace must have the axes [token, head]: ", file.path(), ": ", name,
                         " is ", text_of(shape));
  Along out{shape.dims[0], shape.dims[1], std::max<Index>(1, ceil_div(shape.dims[0], most_points)), {}, {}};
  const auto heads = static_cast<std::size_t>(out.heads), points = static_cast<std::size_t>(out.count());
  const bool known = file.has(lse) && file.shape(lse).dims == shape.dims;
  std::vector<double> sums(heads * points), counts(heads * points);
  const Index at_once =
      std::clamp<Index>(most_at_once / std::max<Index>(out.heads, 1), 1, std::max<Index>(out.tokens, 1));
  CpuDevice cpu;
  const Array values(cpu, DType::f64, at_once, out.heads, 1),
      seen = Array::zeros(cpu, DType::f64, at_once, out.heads, 1);
  for (Index first = 0; first < out.tokens; first += at_once) {
    require_not_stopped();
    const annulus::Run run{first, std::min(at_once, out.tokens - first), 1};
    file.read_rows(name, {&run, 1}, values.rows().slice(0, run.count));
    if (known) file.read_rows(lse, {&run, 1}, seen.rows().slice(0, run.count));
    const auto numbers = values.elements<double>(), sees = seen.elements<double>();
    for (std::size_t i = 0; i < static_cast<std::size_t>(run.count) * heads; ++i) {
      out.blind += sees[i] == -INFINITY ? 1 : 0;
      if (!std::isfinite(numbers[i]) || sees[i] == -INFINITY) continue;
      const std::size_t point = (static_cast<std::size_t>(first) + i / heads) / static_cast<std::size_t>(out.each);
      sums[i % heads * points + point] += numbers[i];
      counts[i % heads * points + point] += 1;
    }
  }
  for (std::size_t head = 0; head < heads; ++head) {
    double sum = 0, count = 0;
    for (std::size_t i = head * points; i < (head + 1) * points; ++i) {
      sum += sums[i];
      count += counts[i];
      out.points.push_back(counts[i] > 0 ? sums[i] / counts[i] : NAN);
    }
    out.means.push_back(count > 0 ? sum / count : NAN);
  }
  return out;
}

// Where the points of curves stand: the middle token of each, or its time.
std::vector<double> places_of(const InputFile& file, const Along& values, bool timed) {
  std::vector<double> times, places;
  if (timed) {
    times = file.read_numbers("tokens/time_s");
    require<Failure::file>(static_cast<Index>(times.size()) == values.tokens,
                           "tokens/time_s must be as long as traces: ", file.path(), " has ", times.size(),
                           " times of ", values.tokens, " tokens");
  }
  for (Index point = 0; point < values.count(); ++point) {
    const Index middle = std::min(values.tokens - 1, point * values.each + values.each / 2);
    places.push_back(timed ? times[static_cast<std::size_t>(middle)] : static_cast<double>(middle));
  }
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

void add_curves(const InputFile& file, const std::string& group, const ReportChoice& choice, Page& page) {
  Table table{{"head", "entropy, nat", "as many keys", "largest probability", "distance, tokens", "on the first keys"}};
  std::vector<Along> values;
  for (const Trace& trace : curves) {
    values.push_back(along(file, group, trace.name));
    require<Failure::file>(values.back().tokens == values[0].tokens && values.back().heads == values[0].heads,
                           "traces must be of the same tokens and heads: ", file.path(), ": ", group, "/", trace.name,
                           " is not of those of ", curves[0].name);
  }
  for (std::size_t head = 0; head < values[0].means.size(); ++head)
    table.rows.push_back({std::to_string(head), readable(values[0].means[head]),
                          readable(std::exp(values[0].means[head])), readable(values[1].means[head]),
                          readable(values[2].means[head]), readable(values[3].means[head])});
  page.section("Attention, head by head");
  const Along& first = values.front();
  page.paragraph(first.blind == 0
                     ? "Means over all queries."
                     : sentence("Means over the queries that see a key: of ", grouped(first.tokens * first.heads),
                                " queries of all heads ", grouped(first.blind), " see none."));
  if (table.rows.size() <= 16) page.table(table);
  else page.folded(sentence(table.rows.size(), " heads"), table);
  const bool timed = file.has("tokens/time_s");
  const std::vector<double> places = places_of(file, values[0], timed);
  const std::string means = values[0].each > 1 ? sentence(" Points are means of ", values[0].each, " tokens.") : "";
  for (std::size_t i = 0; i < curves.size(); ++i) {
    Chart chart{.x = {timed ? "time, s" : "token"}, .y = {curves[i].label, 0, curves[i].largest}};
    const auto points = static_cast<std::size_t>(values[i].count());
    for (const Index head : shown_heads(choice, values[i].heads)) {
      const auto* begin = values[i].points.data() + static_cast<std::size_t>(head) * points;
      chart.curves.push_back({sentence("head ", head), places, {begin, begin + points}});
    }
    page.figure(
        {.name = curves[i].name, .caption = curves[i].caption + means, .height = 240, .panels = {std::move(chart)}});
  }
}

// How far what queries attend to lies back, of the keys that were kept: in classes that double.
void add_distances(const InputFile& file, const std::string& group, const ReportChoice& choice, Page& page) {
  const std::string index = sentence(group, "/topk_index"), probability = sentence(group, "/topk_probability");
  if (!file.has(index) || !file.has(probability)) return;
  const Shape shape = file.shape(index);
  require<Failure::file>(shape.dims.size() == 3 && file.shape(probability).dims == shape.dims,
                         "the keys that were kept must be [token, head, k], and ",
                         "their probabilities, too: ", file.path(), ": ", index, " is ", text_of(shape));
  const Index tokens = shape.dims[0], heads = shape.dims[1], kept = shape.dims[2];
  const std::string received = sentence(group, "/received_mass");
  const bool known = file.has(received) && file.shape(received).dims.size() == 2;
  const Index keys_before = known ? file.shape(received).dims[0] - tokens : 0;  // ends are aligned
  if (tokens == 0 || heads * kept == 0) return;
  const Index most = std::clamp<Index>(most_at_once / (heads * kept), 1, std::min<Index>(tokens, 4096)),
              sampled = ceil_div(tokens, ceil_div(tokens, most));  // evenly over all
  const annulus::Run run{0, sampled, ceil_div(tokens, most)};
  std::vector<Index> keys(static_cast<std::size_t>(sampled * heads * kept));
  file.read_integer_rows(index, {&run, 1}, keys);
  CpuDevice cpu;
  const Array shares(cpu, DType::f64, sampled, heads, kept);
  file.read_rows(probability, {&run, 1}, shares.rows());
  constexpr std::size_t classes = 40;
  std::vector<double> sums(static_cast<std::size_t>(heads) * classes);
  std::size_t farthest = 0;
  std::vector<double> seeing(static_cast<std::size_t>(heads));  // queries that see a key
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (keys[i] < 0) continue;
    if (static_cast<Index>(i) % kept == 0) seeing[static_cast<std::size_t>(static_cast<Index>(i) / kept % heads)] += 1;
    const auto row = static_cast<Index>(i) / (heads * kept), head = static_cast<Index>(i) / kept % heads;
    const auto distance = static_cast<double>(std::abs(run.at(row) + keys_before - keys[i]));
    const auto bin = std::min(classes - 1, static_cast<std::size_t>(std::log2(distance + 1)));
    sums[static_cast<std::size_t>(head) * classes + bin] += shares.elements<double>()[i];
    farthest = std::max(farthest, bin);
  }
  Chart chart{.x = {"distance to the key, tokens", -0.5, static_cast<double>(farthest) + 0.5},
              .y = {"share of attention", 0},
              .marks = Chart::Marks::linked_points};
  for (std::size_t bin = 0; bin <= farthest; ++bin) {
    const Index least = (Index{1} << bin) - 1;
    if (farthest < 12 || bin % 2 == 0)
      chart.x.ticks.emplace_back(static_cast<double>(bin), bin == 0 ? "0" : sentence(grouped(least), "+"));
  }
  for (const Index head : shown_heads(choice, heads)) {
    Curve curve{sentence("head ", head), {}, {}};
    for (std::size_t bin = 0; bin <= farthest; ++bin) {
      curve.x.push_back(static_cast<double>(bin));
      curve.y.push_back(sums[static_cast<std::size_t>(head) * classes + bin] / seeing[static_cast<std::size_t>(head)]);
    }
    chart.curves.push_back(std::move(curve));
  }
  page.figure({.name = "distances",
               .caption = sentence("How far away the ", kept, " keys with the most attention are, of ",
                                   grouped(sampled), " queries: each point counts distances up to the next one."),
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

void add_maps(const InputFile& file, const std::string& group, const ReportChoice& choice, Page& page) {
  const std::string name = sentence(group, "/block_mass");
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
  const std::vector<Index> heads = shown_heads(choice, shape.dims[0]);
  Figure figure{.name = "maps",
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
  page.section("Where the attention lies");
  page.figure(std::move(figure));
}

}  // namespace

void add_attention(const InputFile& file, const std::string& group, const ReportChoice& choice, Page& page) {
  if (file.shape(sentence(group, "/entropy")).elements() == 0) return;  // nothing to look at
  add_curves(file, group, choice, page);
  add_distances(file, group, choice, page);
  add_maps(file, group, choice, page);
}

}  // namespace annulus::app
