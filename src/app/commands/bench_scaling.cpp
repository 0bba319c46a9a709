#include <algorithm>
#include <optional>
#include <utility>

#include "annulus/base/error.hpp"
#include "annulus/plan/itinerary.hpp"
#include "annulus/transport/collectives.hpp"
#include "app/bench.hpp"

namespace annulus::app {
namespace {

std::vector<Column> joined_columns(std::vector<Column> columns, const std::vector<Column>& more) {
  columns.insert(columns.end(), more.begin(), more.end());
  return columns;
}

// --hardware, if given; it must know the rates of what is measured.
std::optional<Hardware> usable_hardware(const Settings& settings) {
  auto hardware = hardware_of(settings);
  const Case any = case_of(settings, 1);
  if (hardware) hardware->rates_of(any.shape.type, any.backward);
  return hardware;
}

// The cases of one benchmark on their way through the table.
class Table {
 public:
  Table(const Settings& settings, Context& context, std::vector<Column> columns)
      : settings_(settings),
        context_(context),
        hardware_(usable_hardware(settings)),
        report_(settings, context, joined_columns(std::move(columns), hidden_columns())) {
    explain_attention_columns(report_, settings);
  }
  Report& report() { return report_; }
  /// Measures the case; finish adds columns to its row. A strategy that is refused becomes a note.
  void add(const Case& c, const std::function<void(Row&)>& finish = {}) {
    Outcome outcome;
    try {
      report_.collect([&] { outcome = measure(settings_, context_, c, hardware_); });
    } catch (const Agreed& e) {
      if (e.failure() != Failure::usage || !optional_) throw;
      return report_.refused(sentence(c.strategy, " on ", c.ranks, " ranks: refused: ", e.what()));
    }
    if (!context_.lead()) return;
    report_.describe(outcome.row);
    worst_ = std::max(worst_, outcome.error_over_tolerance);
    if (finish) finish(outcome.row);
    report_.row(outcome.row);
  }
  void refusals_are_notes() { optional_ = true; }
  int finish(const std::string& more) {
    const bool checked = settings_.count("rows") > 0;
    const std::string errors =
        checked ? sentence("largest error ", worst_, " of what is allowed") : "errors not checked";
    const auto cases = report_.rows().size();
    require(!context_.lead() || cases > 0, "no case could be measured");
    // the verdict is the lead's; all ranks end with its exit code
    int code = 0;
    if (context_.lead())
      code = report_.finish(checked ? std::optional(worst_ <= 1) : std::nullopt, sentence(cases, cases == 1 ? " case, " : " cases, ", errors, more));
    return shared_code(context_, code, settings_.number("timeout"));
  }

 private:
  const Settings& settings_;
  Context& context_;
  std::optional<Hardware> hardware_;
  Report report_;
  double worst_ = 0;
  bool optional_ = false;
};

int most_ranks(const Settings& settings, Context& context) {
  return context.ranks(settings.has("ranks") ? settings.count("ranks", 1) : 0, settings.text("transport"));
}

std::vector<int> rank_counts(int most) {
  std::vector<int> counts;
  for (int ranks = 1; ranks < most; ranks *= 2) counts.push_back(ranks);
  counts.push_back(most);
  return counts;
}

int scaling(const Settings& settings, Context& context, bool weak) {
  require(!settings.has("grid"), settings.name_of("grid"), " is for a fixed number of ranks: use --strategy");
  std::vector<Column> columns = attention_columns(settings);
  for (Column& column : columns)  // room for those that follow
    if (column.name == "tokens_per_s" || column.name == "peak_mb") column.width = 0;
  if (!weak) columns.push_back({"speed_up", 7, 2, "speedup"});
  columns.push_back({"efficiency", 6, 3, "effic."});
  Table table(settings, context, std::move(columns));
  table.report().note(weak ? "effic.: operations per second and rank over those of the first line"
                           : "speedup: time of the first line / time; effic.: speedup / ranks");
  const int most = most_ranks(settings, context);
  const auto lengths = counts_of(settings, "tokens");
  table.report().expect(std::ssize(lengths) * std::ssize(rank_counts(most)));
  double last = 1;
  for (Index tokens : lengths) {
    double first_ms = 0, first_rate = 0;
    for (int ranks : rank_counts(most)) {
      Case c = case_of(settings, weak ? tokens * ranks : tokens);
      c.ranks = ranks;
      table.add(c, [&](Row& row) {
        const auto ms = row["median_ms"].get<double>(), rate = row["tflops_per_rank"].get<double>();
        if (ranks == 1) first_ms = ms, first_rate = rate;
        row["speed_up"] = first_ms / ms;
        row["efficiency"] = last = weak ? rate / first_rate : first_ms / ms / ranks;
      });
    }
  }
  return table.finish(sentence(", efficiency on ", most, most == 1 ? " rank " : " ranks ", last));
}

}  // namespace

int bench_strong(const Settings& settings, Context& context) { return scaling(settings, context, false); }
int bench_weak(const Settings& settings, Context& context) { return scaling(settings, context, true); }

int bench_overlap(const Settings& settings, Context& context) {
  const int ranks = most_ranks(settings, context);
  require(ranks >= 2, "bench overlap needs at least two ranks: start it with mpirun, or give --ranks 2");
  Table table(settings, context,
              {{"tokens", 8},
               {"ranks", 5},
               {"strategy", 11},
               {"partition", 0},
               {"mask", 16},
               {"heads", 0},
               {"dtype", 0},
               {"median_ms", 10},
               {"compute_ms", 10},
               {"exchange_ms", 11},
               {"exposed_ms", 10},
               {"hidden_percent", 14, 1},
               {"exposed_percent", 15, 1},
               {"max_error", 9, -1}});
  table.report().note(
      "compute_ms: the busiest rank's computing within the pass; exchange_ms: the same messages without it");
  table.report().note("exposed_ms: pass - compute; these are medians of the repetitions");
  table.report().note("hidden_percent = 100 x (1 - exposed / exchange), at least 0");
  table.report().expect(std::ssize(counts_of(settings, "tokens")));
  for (Index tokens : counts_of(settings, "tokens")) {
    Case c = case_of(settings, tokens);
    c.ranks = ranks;
    table.add(c, [](Row& row) {
      const auto exchange = row["exchange_ms"].get<double>();
      const auto exposed = row["exposed_ms"].get<double>();
      row["hidden_percent"] = exchange > 0 ? Row(100 * std::max(0.0, 1 - exposed / exchange)) : Row(nullptr);
    });
  }
  return table.finish("");
}

int bench_strategies(const Settings& settings, Context& context) {
  Table table(settings, context, attention_columns(settings));
  const int ranks = most_ranks(settings, context);
  std::vector<std::string> names{settings.text("strategy")};
  if (names.front() == "auto" && !settings.has("grid")) {
    names.clear();
    for (const Strategy& strategy : strategies()) names.emplace_back(strategy.name);
    table.refusals_are_notes();
  }
  const auto lengths = counts_of(settings, "tokens");
  table.report().expect(std::ssize(lengths) * std::ssize(names));
  for (Index tokens : lengths)
    for (const std::string& name : names) {
      Case c = case_of(settings, tokens);
      c.ranks = ranks;
      c.strategy = name;
      table.add(c);
    }
  const auto& rows = table.report().rows();
  const auto fastest = std::ranges::min_element(
      rows, {}, [](const Row& row) { return row["median_ms"].get<double>() / row["tokens"].get<double>(); });
  return table.finish(fastest == rows.end() ? "" : sentence(", fastest ", (*fastest)["strategy"].get<std::string>()));
}

}  // namespace annulus::app
