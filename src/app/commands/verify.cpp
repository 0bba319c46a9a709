#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/memory/device.hpp"
#include "annulus/store/content_hash.hpp"
#include "annulus/store/input_file.hpp"
#include "annulus/transport/in_process.hpp"
#include "app/commands/commands.hpp"
#include "app/job.hpp"
#include "app/recompute.hpp"
#include "app/sequence.hpp"
#include "app/tensors.hpp"

namespace annulus::app {
namespace {

using nlohmann::json;

// What a result was made from, and where its datasets lie.
struct Subject {
  RowSource source;
  std::string out, lse, traces;  // names in the result; lse may be empty
  bool gradients = false;
  std::shared_ptr<void> keeps;  // what source.read reads from
};

void check_hash(const std::string& path, const std::string& expected) {
  const std::string hash = content_hash(path);
  require<Failure::file>(hash == expected, path, " has changed since the result was made: its hash is ", hash,
                         ", and was ", expected);
}

Subject attend_subject(const InputFile& result, const std::string& moved) {
  const std::string path = moved.empty() ? result.text("/", "input") : moved;
  check_hash(path, result.text("/", "input_hash"));
  const bool gradients = result.has("dq");
  CacheChoice cache;
  if (result.attribute("/", "cached_tokens") && result.number("/", "cached_tokens") > 0)
    cache = {result.text("/", "cache"), static_cast<Index>(result.number("/", "cached_tokens"))};
  auto input =
      std::make_shared<TensorInput>(open_tensors(path, result.text("/", "mask"), parse_dtype(result.text("/", "dtype")),
                                                 result.number("/", "softmax_scale"), gradients, cache));
  Subject s{{input->shape, input->mask, {}}, "out", "lse", "trace", gradients, input};
  s.source.read = [input](RowSource::What what, std::span<const Run> runs, const Rows& into) {
    static constexpr const char* names[] = {"q", "k", "v", "dout"};
    input->read(names[static_cast<int>(what)], runs, into);
  };
  return s;
}

template <class T>
T attribute_of(const InputFile& file, const char* name) {
  const auto value = file.attribute("/", name);
  require<Failure::file>(value && std::holds_alternative<T>(*value), file.path(),
                         " must say what it was made from: its attribute ", name, " is missing or of another kind");
  return std::get<T>(*value);
}

Subject run_subject(const InputFile& result) {
  SequenceChoice choice;
  choice.model = result.text("/", "model");
  choice.tokens = result.text("/", "token_kind");
  choice.files = attribute_of<std::vector<std::string>>(result, "inputs");
  choice.type = parse_dtype(result.text("/", "dtype"));
  const std::string mask = result.text("/", "mask");
  choice.documents_apart = names_term(mask, "documents");
  const auto hashes = attribute_of<std::vector<std::string>>(result, "input_hashes");
  require<Failure::file>(hashes.size() == choice.files.size(), result.path(), " must have one hash per input");
  for (std::size_t f = 0; f < hashes.size(); ++f) check_hash(choice.files[f], hashes[f]);
  std::shared_ptr<Sequence> sequence = make_sequence(choice);
  Fabric alone(1);
  const auto transport = alone.transport(0);
  sequence->prepare(*transport);
  const Mask usual = sequence->mask("");
  Subject s{{sequence->shape(), mask == usual.name() ? usual : sequence->mask(mask), {}},
            "layers/000/out",
            "layers/000/attention/lse",
            "layers/000/attention",
            false,
            sequence};
  s.source.read = [sequence](RowSource::What what, std::span<const Run> runs, const Rows& into) {
    const Rows none;
    sequence->embed(runs, what == RowSource::What::q ? into : none, what == RowSource::What::k ? into : none,
                    what == RowSource::What::v ? into : none);
  };
  return s;
}

// One line of the report.
struct Line {
  std::string what;
  double largest = 0, typical = 0, allowed = 0;
  bool fine() const { return largest <= allowed; }
};

// Errors of stored against exact, over `scale` (0: over the largest exact magnitude).
Line compare(const std::string& what, std::span<const float> stored, std::span<const double> exact, double scale,
             double allowed) {
  Line line{what, 0, 0, allowed};
  double largest = 0;
  for (double y : exact)
    if (std::isfinite(y)) largest = std::max(largest, std::abs(y));
  const double unit = scale > 0 ? scale : largest > 0 ? largest : 1.0;
  std::vector<double> errors;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const double x = stored[i], y = exact[i];
    const double error = x == y ? 0.0 : std::abs(x - y) / unit;
    errors.push_back(std::isfinite(error) ? error : INFINITY);
  }
  if (errors.empty()) return line;
  line.largest = std::ranges::max(errors);
  const auto middle = errors.begin() + static_cast<std::ptrdiff_t>(errors.size() / 2);
  std::ranges::nth_element(errors, middle);
  line.typical = *middle;
  return line;
}

std::vector<float> stored_rows(const InputFile& file, const std::string& name, const std::vector<Index>& rows,
                               Index heads, Index channels) {
  CpuDevice cpu;
  std::vector<Run> runs;
  for (Index row : rows) runs.push_back({row, 1, 1});
  const Array values(cpu, DType::f32, static_cast<Index>(rows.size()), heads, channels);
  const annulus::Shape shape = file.shape(name);
  const Rows& view = values;
  if (shape.dims.size() == 2 && channels > 1) {  // [token, channel]: heads side by side
    file.read_rows(name, runs, dense_rows(view.data, DType::f32, view.tokens, 1, heads * channels));
  } else {
    file.read_rows(name, runs, values);
  }
  return {values.elements<float>().begin(), values.elements<float>().end()};
}

std::vector<Index> choose_rows(const Settings& settings, const Subject& subject, bool& all) {
  const AttentionShape& s = subject.source.shape;
  const Index queries = subject.source.mask.queries();
  const double cost =
      2.0 * static_cast<double>(s.query_heads * (s.channels + s.value_channels));  // operations per pair
  constexpr double budget = 6e9;                                                   // a few seconds
  all = settings.flag("all") || static_cast<double>(subject.source.mask.pairs()) * cost <= budget / 8;
  std::vector<Index> rows;
  if (all) {
    for (Index i = 0; i < queries; ++i) rows.push_back(i);
    return rows;
  }
  Index wish = settings.has("rows")
                   ? settings.count("rows", 1)
                   : std::clamp<Index>(
                         static_cast<Index>(budget / (cost * static_cast<double>(subject.source.mask.keys()))), 4, 64);
  wish = std::min(wish, queries);
  std::mt19937_64 random(static_cast<std::uint64_t>(settings.count("seed")));
  std::set<Index> chosen;
  while (static_cast<Index>(chosen.size()) < wish)
    chosen.insert(static_cast<Index>(random() % static_cast<std::uint64_t>(queries)));
  return {chosen.begin(), chosen.end()};
}

// Half a unit in the last place of what is stored, relative.
double rounding_of(Element element) {
  return element == Element::bf16 ? 0x1p-8 : element == Element::f16 ? 0x1p-11 : 0x1p-24;
}

std::vector<Line> compare_all(const InputFile& file, const Subject& subject, const Recomputed& exact, Index top_k) {
  const AttentionShape& s = subject.source.shape;
  const auto [forward, out, gradient] =
      error_bounds(file.attribute("/", "kernel") ? file.text("/", "kernel") : "", s.type, exact.largest_score);
  std::vector<Line> lines;
  const auto line = [&](const std::string& what, const std::string& name, const std::vector<Index>& rows, Index heads,
                        Index channels, std::span<const double> values, double scale, double allowed) {
    lines.push_back(compare(what, stored_rows(file, name, rows, heads, channels), values, scale,
                            allowed + rounding_of(file.shape(name).element)));
  };
  line("out", subject.out, exact.rows, s.query_heads, s.value_channels, exact.out, 0, out);
  if (file.has(subject.lse)) {
    double largest = 1;
    for (double x : exact.lse)
      if (std::isfinite(x)) largest = std::max(largest, std::abs(x));
    line("lse", subject.lse, exact.rows, s.query_heads, 1, exact.lse, largest, forward);
  }
  const std::string& group = subject.traces;
  if (file.has(group + "/entropy")) {
    const double most_entropy = std::max(1.0, std::log(std::max(1.0, static_cast<double>(subject.source.mask.keys()))));
    line("entropy", group + "/entropy", exact.rows, s.query_heads, 1, exact.entropy, most_entropy, 4 * forward);
    line("max_probability", group + "/max_probability", exact.rows, s.query_heads, 1, exact.max_probability, 1,
         2 * forward);
  }
  if (top_k > 0)
    line("topk_probability", group + "/topk_probability", exact.rows, s.query_heads, top_k, exact.top_probability, 1,
         2 * forward);
  if (!subject.gradients) return lines;
  line("dq", "dq", exact.rows, s.query_heads, s.channels, exact.dq, 0, gradient);
  if (exact.dk.empty()) return lines;
  std::vector<Index> keys;
  for (Index j = 0; j < subject.source.mask.keys(); ++j) keys.push_back(j);
  line("dk", "dk", keys, s.kv_heads, s.channels, exact.dk, 0, gradient);
  line("dv", "dv", keys, s.kv_heads, s.value_channels, exact.dv, 0, gradient);
  return lines;
}

int run(const Settings& settings, Context& context) {
  if (!context.lead()) return 0;
  const InputFile file(settings.positional().front());
  const std::string schema = file.attribute("/", "schema") ? file.text("/", "schema") : "";
  require<Failure::file>(schema == "annulus-attend" || schema == "annulus-run", file.path(),
                         " must be a result of annulus attend or annulus run");
  require<Failure::file>(file.text("/", "status") == "complete", file.path(), " must be complete: its status is ",
                         file.text("/", "status"));
  Subject subject = schema == "annulus-attend" ? attend_subject(file, settings.text("input")) : run_subject(file);
  RecomputeChoice choice;
  bool all = false;
  choice.rows = choose_rows(settings, subject, all);
  choice.gradients = subject.gradients;
  if (file.has(subject.traces + "/topk_probability"))
    choice.top_k = file.shape(subject.traces + "/topk_probability").dims.back();
  const Recomputed exact = recompute(subject.source, choice);
  const auto lines = compare_all(file, subject, exact, choice.top_k);

  std::printf("annulus verify: %s, %s of %s rows recomputed in float64%s\n", file.path().c_str(),
              grouped(static_cast<Index>(choice.rows.size())).c_str(), grouped(subject.source.mask.queries()).c_str(),
              all ? "" : sentence(" (seed ", settings.count("seed"), ")").c_str());
  std::printf("  %-18s %14s %14s %12s\n", "what", "largest error", "typical error", "allowed");
  json out{{"file", file.path()},
           {"rows", choice.rows.size()},
           {"of", subject.source.mask.queries()},
           {"lines", json::array()}};
  bool fine = true;
  for (const Line& line : lines) {
    std::printf("  %-18s %14.2e %14.2e %12.1e  %s\n", line.what.c_str(), line.largest, line.typical, line.allowed,
                line.fine() ? "ok" : "WRONG");
    out["lines"].push_back({{"what", line.what},
                            {"largest", line.largest},
                            {"typical", line.typical},
                            {"allowed", line.allowed},
                            {"ok", line.fine()}});
    fine = fine && line.fine();
  }
  if (subject.gradients && !all) std::printf("  dk, dv             not checked: they need every row (--all)\n");
  std::printf("  verdict: %s\n", fine ? "ok" : "OUT OF TOLERANCE");
  out["ok"] = fine;
  if (settings.has("json")) {
    std::ofstream twin(settings.text("json"));
    twin << out.dump(2) << '\n';
    require<Failure::file>(twin.good(), settings.name_of("json"), " cannot be written: ", settings.text("json"));
  }
  return fine ? 0 : static_cast<int>(Failure::tolerance);
}

}  // namespace

Command verify_command() {
  return {.name = "verify",
          .summary = "recomputes rows of a result in float64 on the CPU and says how far off it is",
          .arguments = {"RESULT.h5", 1, 1},
          .options = {{.name = "rows",
                       .value = "N",
                       .fallback = "(4 to 64, a few seconds)",
                       .group = "Rows",
                       .help = "random rows to recompute",
                       .check = whole_number(1)},
                      {.name = "all", .group = "Rows", .help = "every row, and so dk and dv (small results: always)"},
                      {.name = "seed",
                       .value = "N",
                       .fallback = "1",
                       .group = "Rows",
                       .help = "of the random choice",
                       .check = whole_number(0)},
                      {.name = "input",
                       .value = "FILE",
                       .fallback = "(as recorded)",
                       .group = "Input",
                       .help = "where the input of attend is now"},
                      {.name = "json", .value = "FILE", .group = "Output", .help = "the same for machines"}},
          .examples = {"annulus verify results/demo.h5", "annulus verify out.h5 --rows 256 --seed 7",
                       "annulus verify grads.h5 --all --json verdict.json"},
          .run = run};
}

}  // namespace annulus::app
