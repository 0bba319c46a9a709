#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "app/context.hpp"
#include "app/hardware.hpp"
#include "app/job.hpp"
#include "app/progress.hpp"
#include "app/text_draft.hpp"
#include "app/traces.hpp"

namespace annulus::app {

using Row = nlohmann::ordered_json;  ///< one line of a table: values by column

/// What repetitions took, in seconds.
struct Samples {
  std::vector<double> seconds;  ///< ascending
  explicit Samples(std::vector<double> measured);
  double least() const { return seconds.front(); }
  double most() const { return seconds.back(); }
  double median() const;
  /// The value that 99 % do not exceed; with fewer than 100 repetitions the largest.
  double p99() const;
};

struct Column {
  std::string name;  ///< key in CSV and JSON
  int width = 8;     ///< in the printed table; 0: not shown there
  int digits = 2;    ///< after the point, for numbers that are not whole
  std::string heading = {};  ///< in the printed table, if not the name
};

/// The output of one benchmark: '#' lines with versions, hosts and command, a table of fixed columns, a verdict, and the same
/// as CSV and JSON. Only the lead's report speaks and writes.
class Report {
 public:
  /// Opens --csv and --json. All ranks. Throws Error (file).
  Report(const Settings& settings, Context& context, std::vector<Column> columns);
  /// "# text"
  void note(const std::string& text);
  /// So many rows or refusals will come: --progress tells how far it is.
  void expect(Index cases);
  /// What is the same for the rows that follow, so that they can be understood without the command: "# job".
  void describe(const Row& row);
  void row(const Row& row);
  /// A case that will not be measured, as a note.
  void refused(const std::string& text);
  /// What an option stood for that has no single value, in the JSON's arguments.
  void used(const std::string& option, const std::vector<std::string>& values);
  /// The verdict line and the files. holds: absent when nothing was checked. Returns the exit code: 0, or 3 when it does not
  /// hold.
  int finish(std::optional<bool> holds, const std::string& verdict);
  /// Runs what measures. Asked to stop, it still writes the finished rows and passes the stop on, saying so.
  void collect(const std::function<void()>& measure);
  const std::vector<Row>& rows() const { return rows_; }

 private:
  void head(const Settings& settings, Context& context);
  std::vector<Column> columns_;
  std::vector<Row> rows_;
  std::string described_;
  bool lead_, head_printed_ = false;
  std::string progress_mode_;
  std::optional<Progress> progress_;
  nlohmann::ordered_json document_;
  std::optional<TextDraft> csv_, json_;
};

/// The lead's exit code, on all ranks. All processes.
int shared_code(Context& context, int code, double patience_seconds);

/// "host-a host-a host-b" by rank. All processes.
std::vector<std::string> hosts_of_ranks(Context& context, double patience_seconds);

/// Runs body on the first `ranks` ranks of an mpirun, the others wait; without mpirun on so many threads. Stops before it when
/// any rank was asked to.
void on_first_ranks(Context& context, int ranks, double patience_seconds, const std::function<void(RankTools&)>& body);

/// One attention job to measure.
struct Case {
  AttentionShape shape;
  Index tokens = 0, keys = 0;
  std::vector<Index> documents;  ///< offsets, for masks that have the term
  std::string mask;
  std::string strategy = "auto";
  int ranks = 1;
  bool backward = false;
  std::string trace = "none";
  TraceChoice traces = {};  ///< what follows the pass
};

/// Measures a case and returns its row (lead): all columns of attention_columns() and hidden_columns().
std::vector<Column> attention_columns(const Settings& settings);
/// Of CSV alone: what "# job" says in the printed table, and the fastest and slowest repetition.
std::vector<Column> hidden_columns();
struct Outcome {
  Row row;
  double error_over_tolerance = 0;
};
Outcome measure(const Settings& settings, Context& context, const Case& job, const std::optional<Hardware>& hardware);
/// How a case is measured on one rank without any exchange.
struct AloneChoice {
  Index warm_ups = 1, repetitions = 1;
  std::function<void()> between = {};  ///< called before every repetition and after the last
  bool stops = true;  ///< within a pass, by itself: not where other ranks do the same and wait for this one
  Index block_tokens = 0;  ///< keys of one call of the kernel, as a step of a ring brings them; 0: all
  Index samples = 0;       ///< rows checked against float64
};
/// The largest error of sampled own rows against float64: as it is, and over what `annulus verify` allows.
struct Checked {
  double over_tolerance = 0, error = 0;
};
struct Alone {
  std::vector<double> seconds;          ///< in order
  std::vector<double> compute_seconds;  ///< of them, inside the kernel
  double operations = 0;        ///< of one pass
  std::string kernel;
  Checked checked;
};
/// Throws Error (stopped) when this process is asked to stop.
Alone run_alone(const Settings& settings, const Case& job, int threads, const AloneChoice& choice);
/// The formulas behind the columns, as notes.
void explain_attention_columns(Report& report, const Settings& settings);

/// What --tokens, --query-heads ... ask for; tokens: of --tokens' list.
Case case_of(const Settings& settings, Index tokens);
/// "1Ki,4Ki" as numbers.
std::vector<Index> counts_of(const Settings& settings, const std::string& option);

/// The benchmarks. Each returns the exit code.
int bench_kernel(const Settings& settings, Context& context);
int bench_blocks(const Settings& settings, Context& context);
int bench_strategies(const Settings& settings, Context& context);
int bench_strong(const Settings& settings, Context& context);
int bench_weak(const Settings& settings, Context& context);
int bench_overlap(const Settings& settings, Context& context);
int bench_exchange(const Settings& settings, Context& context);
int bench_calibrate(const Settings& settings, Context& context);

}  // namespace annulus::app
