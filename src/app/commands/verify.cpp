#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/store/content_hash.hpp"
#include "annulus/store/input_file.hpp"
#include "annulus/transport/in_process.hpp"
#include "app/backends.hpp"
#include "app/checkpoint_folder.hpp"
#include "app/commands/commands.hpp"
#include "app/help.hpp"
#include "app/model_verify.hpp"
#include "app/job.hpp"
#include "app/outputs.hpp"
#include "app/sequence.hpp"
#include "app/tensors.hpp"
#include "app/text_draft.hpp"
#include "app/verdict.hpp"

namespace annulus::app {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

void check_hash(const std::string& path, const std::string& expected) {
  const std::string hash = content_hash(path);
  require<Failure::file>(hash == expected, path, " has changed since the result was made: its hash is ", hash,
                         ", and was ", expected);
}

// What an attribute of the result says; nonsense there is the file's fault.
template <class Read>
auto meaning(const InputFile& result, const char* attribute, const Read& read) {
  try {
    return read();
  } catch (const Error& e) {
    if (e.failure() == Failure::file) throw;
    throw Error(Failure::file, sentence("attribute ", attribute, " of ", result.path(), ": ", e.what()), e.where());
  }
}

DType dtype_of_result(const InputFile& result) {
  return meaning(result, "dtype", [&] { return parse_dtype(result.text("/", "dtype")); });
}

// Where the inputs are now: as --input says, or as the result does.
std::vector<std::string> input_paths(const Settings& settings, std::vector<std::string> recorded) {
  if (!settings.has("input")) return recorded;
  const std::string& given = settings.text("input");
  std::vector<std::string> moved{given};
  if (recorded.size() > 1) {  // the values of an option that repeats come joined by commas
    moved.clear();
    std::istringstream list(given);
    for (std::string path; std::getline(list, path, ',');) moved.push_back(path);
  }
  require(moved.size() == recorded.size(), settings.name_of("input"),
          " must name as many files as the result has inputs, ", recorded.size(), ", in their order: it names ",
          moved.size());
  return moved;
}

Subject attend_subject(const InputFile& result, const Settings& settings) {
  const std::string path = input_paths(settings, {result.text("/", "input")}).front();
  check_hash(path, result.text("/", "input_hash"));
  const bool gradients = result.has("dq");
  CacheChoice cache;
  const bool cached = result.attribute("/", "cached_tokens") && result.number("/", "cached_tokens") > 0;
  require(cached || !settings.has("cache"), settings.name_of("cache"),
          " is for results of attend --append: ", result.path(), " was made without a cache");
  if (cached)
    cache = {settings.has("cache") ? settings.text("cache") : result.text("/", "cache"),
             static_cast<Index>(result.number("/", "cached_tokens"))};
  const double scale = result.number("/", "softmax_scale");
  require<Failure::file>(std::isfinite(scale) && scale > 0, "attribute softmax_scale of ", result.path(),
                         " must be above zero: it is ", scale);
  const DType type = dtype_of_result(result);
  auto input = meaning(result, "mask", [&] {
    return std::make_shared<TensorInput>(open_tensors(path, {.places = recorded_places(result),
                                                             .mask = result.text("/", "mask"),
                                                             .dtype = type,
                                                             .softmax_scale = scale,
                                                             .backward = gradients,
                                                             .cache = cache}));
  });
  Subject s{{input->shape, input->mask, {}}, "out", "lse", "trace", gradients, input};
  s.source.read = [input](RowSource::What what, std::span<const Run> runs, const Rows& into) {
    static constexpr const char* names[] = {"q", "k", "v", "dout"};
    input->read(names[static_cast<int>(what)], runs, into);
  };
  return s;
}

// The result and what it was made from.
std::vector<std::string> files_of(const InputFile& result) {
  std::vector<std::string> files{result.path()};
  for (const char* name : {"input", "inputs", "cache"}) {
    const auto value = result.attribute("/", name);
    if (!value) continue;
    if (const auto* one = std::get_if<std::string>(&*value)) files.push_back(*one);
    if (const auto* many = std::get_if<std::vector<std::string>>(&*value))
      files.insert(files.end(), many->begin(), many->end());
  }
  return files;
}

template <class T>
T attribute_of(const InputFile& file, const char* name) {
  const auto value = file.attribute("/", name);
  require<Failure::file>(value && std::holds_alternative<T>(*value), file.path(),
                         " must say what it was made from: its attribute ", name, " is missing or of another kind");
  return std::get<T>(*value);
}

Subject run_subject(const InputFile& result, const Settings& settings) {
  require(!settings.has("cache"), settings.name_of("cache"), " is for results of attend --append, not of run");
  SequenceChoice choice;
  choice.model = result.text("/", "model");
  choice.tokens = result.text("/", "token_kind");
  choice.files = input_paths(settings, attribute_of<std::vector<std::string>>(result, "inputs"));
  choice.type = dtype_of_result(result);
  if (result.attribute("/", "contexts"))  // older results are of the usual ones, and recordings have none
    choice.contexts = attribute_of<std::vector<Index>>(result, "contexts");
  const std::string mask = result.text("/", "mask");
  choice.documents_apart = names_term(mask, "documents");
  const auto hashes = attribute_of<std::vector<std::string>>(result, "input_hashes");
  require<Failure::file>(hashes.size() == choice.files.size(), result.path(), " must have one hash per input");
  for (std::size_t f = 0; f < hashes.size(); ++f) check_hash(choice.files[f], hashes[f]);
  std::shared_ptr<Sequence> sequence = meaning(result, "token_kind", [&] { return make_sequence(choice); });
  Fabric alone(1);
  const auto transport = alone.transport(0);
  sequence->prepare(*transport);
  const Mask usual = sequence->mask("");
  Subject s{{sequence->shape(),
             mask == usual.name() ? usual : meaning(result, "mask", [&] { return sequence->mask(mask); }),
             {}},
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

// layers: of as many as this one.
std::vector<Index> choose_rows(const Settings& settings, const Subject& subject, std::size_t layers, bool& all) {
  const AttentionShape& s = subject.source.shape;
  const Index queries = subject.source.mask.queries();
  const double cost =
      2.0 * static_cast<double>(s.query_heads * (s.channels + s.value_channels));  // operations per pair
  const double budget = 6e9 / static_cast<double>(layers);                         // a few seconds
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

// What was recomputed, and what that says.
struct Judgement {
  std::size_t rows = 0;
  Index of = 0;
  bool all = false;
  Verdict verdict = {};
  std::string note = {};  // on what could not be
};

Judgement judge_one(const InputFile& file, const Settings& settings, const Subject& subject) {
  Judgement out{.of = subject.source.mask.queries()};
  const RecomputeChoice choice = recompute_choice(file, subject, choose_rows(settings, subject, 1, out.all));
  out.rows = choice.rows.size();
  out.verdict = judge(file, subject, choice, recompute(subject.source, choice));
  return out;
}

// Every layer that a trained transformer's result has kept.
Judgement judge_model(const InputFile& file, const Settings& settings) {
  const std::string folder = settings.has("model") ? checkpoint_folder(settings.text("model")) : file.text("/", "model");
  const auto inputs = input_paths(settings, attribute_of<std::vector<std::string>>(file, "inputs"));
  const auto check_all = [&](const std::vector<std::string>& files, const char* name) {
    const auto hashes = attribute_of<std::vector<std::string>>(file, name);
    require<Failure::file>(hashes.size() == files.size(), file.path(), " must have one hash per file: ", name, " are ",
                           hashes.size(), ", and files ", files.size());
    for (std::size_t f = 0; f < files.size(); ++f) check_hash(files[f], hashes[f]);
  };
  check_all(inputs, "input_hashes");
  auto files = attribute_of<std::vector<std::string>>(file, "model_files");
  for (std::string& path : files) path = (fs::path(folder) / fs::path(path).filename()).string();
  check_all(files, "model_hashes");
  const auto evidence = meaning(file, "mask", [&] { return open_evidence(file, folder, inputs); });
  Judgement out{.of = evidence->tokens(), .note = evidence->note()};
  std::vector<Index> rows;
  const auto layers = evidence->layers();
  const auto add = [&](const std::string& where, Verdict verdict) {
    for (Line& line : verdict.lines) line.where = where;
    out.verdict.add(std::move(verdict));
  };
  for (const Index layer : layers) {
    const Subject subject = evidence->subject(layer);
    if (rows.empty()) rows = choose_rows(settings, subject, layers.size(), out.all);
    const RecomputeChoice choice = recompute_choice(file, subject, rows);
    const Recomputed exact = recompute(subject.source, choice);
    const std::string where = sentence("layer ", layer);
    add(where, judge(file, subject, choice, exact));
    add(where, evidence->judge_layer(layer, exact));
  }
  out.rows = rows.size();
  add("", evidence->judge_rest(rows));
  return out;
}

// Of each kind of line the worst, in the order in which they came.
std::vector<Line> worst_of(const std::vector<Line>& lines) {
  const auto badness = [](const Line& line) {
    return line.allowed > 0 ? line.largest / line.allowed : line.largest > 0 ? INFINITY : 0;
  };
  std::vector<Line> worst;
  for (const Line& line : lines) {
    Line short_line = line;
    if (!line.where.empty()) short_line.what = line.what.substr(line.what.rfind('/') + 1);
    const auto known = std::ranges::find_if(worst, [&](const Line& other) {
      return other.what == short_line.what && other.where.empty() == line.where.empty();
    });
    if (known == worst.end()) worst.push_back(short_line);
    else if (badness(short_line) > badness(*known)) *known = short_line;
  }
  return worst;
}

// Datasets of layers by what they are, once.
void print_names(const std::vector<std::string>& names, const char* why) {
  std::string list;
  std::set<std::string> told;
  for (const std::string& name : names) {
    const std::string word = name.starts_with("layers/") ? name.substr(name.rfind('/') + 1) : name;
    if (told.insert(word).second) list += (list.empty() ? "" : ", ") + word;
  }
  if (!list.empty()) std::printf("  not checked: %s%s\n", list.c_str(), why);
}

int run(const Settings& settings, Context& context) {
  if (!context.lead()) return 0;
  const InputFile file(settings.positional().front());
  const std::string schema = file.attribute("/", "schema") ? file.text("/", "schema") : "";
  require<Failure::file>(schema == "annulus-attend" || schema == "annulus-run", file.path(),
                         " must be a result of annulus attend or annulus run");
  require<Failure::file>(file.text("/", "status") == "complete", file.path(), " must be complete: its status is ",
                         file.text("/", "status"));
  check_outputs(settings, files_of(file));
  TextDraft twin(settings.name_of("json"), settings.text("json"));
  const bool trained = schema == "annulus-run" && file.attribute("/", "model_kind");
  require(trained || !settings.has("model"), settings.name_of("model"), " is for results of trained models: ",
          file.path(), " is none");
  const Judgement found =
      trained ? judge_model(file, settings)
              : judge_one(file, settings,
                          schema == "annulus-attend" ? attend_subject(file, settings) : run_subject(file, settings));
  const Verdict& verdict = found.verdict;

  std::printf("annulus verify: %s, %s of %s rows recomputed in float64%s\n", file.path().c_str(),
              grouped(static_cast<Index>(found.rows)).c_str(), grouped(found.of).c_str(),
              found.all ? "" : sentence(" (seed ", settings.count("seed"), ")").c_str());
  std::printf("  %-18s %14s %14s %12s\n", "what", "largest error", "typical error", "allowed");
  json out{{"file", file.path()}, {"rows", found.rows}, {"of", found.of}, {"lines", json::array()}};
  for (const Line& line : worst_of(verdict.lines))
    std::printf("  %-18s %14.2e %14.2e %12.1e  %s%s\n", line.what.c_str(), line.largest, line.typical, line.allowed,
                line.fine() ? "ok" : "WRONG", line.where.empty() || line.largest == 0 ? "" : (", worst in " + line.where).c_str());
  bool fine = true;
  for (const Line& line : verdict.lines) {
    out["lines"].push_back({{"what", line.what},
                            {"largest", line.largest},
                            {"typical", line.typical},
                            {"allowed", line.allowed},
                            {"ok", line.fine()}});
    if (!line.where.empty()) out["lines"].back()["where"] = line.where;
    fine = fine && line.fine();
  }
  const std::vector<std::string> rest = unchecked(file, verdict);
  out["not_checked"] = rest;
  for (const std::string& name : verdict.need_all) out["not_checked"].push_back(name);
  print_names(verdict.need_all, "; they need every row (--all)");
  print_names(rest, "");
  if (!found.note.empty()) std::printf("  not checked: %s\n", wrapped_line(found.note, 15).c_str());
  std::printf("  verdict: %s\n", !fine ? "OUT OF TOLERANCE" : found.note.empty() ? "ok" : "ok, as far as it was checked");
  out["ok"] = fine;
  twin.commit(out.dump(2) + "\n");
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
                       .help = "where the input is now; for run once for each of its files, in their order",
                       .repeats = true},
                      {.name = "model",
                       .value = "FOLDER",
                       .fallback = "(as recorded)",
                       .group = "Input",
                       .help = "where a trained model is now"},
                      {.name = "cache",
                       .value = "FILE",
                       .fallback = "(as recorded)",
                       .group = "Input",
                       .help = "where the cache of attend --append is now"},
                      {.name = "json", .value = "FILE", .group = "Output", .help = "the same for machines"}},
          .examples = {"annulus verify results/demo.h5", "annulus verify out.h5 --rows 256 --seed 7",
                       "annulus verify grads.h5 --all --json verdict.json",
                       "annulus verify results/demo.h5 --input book.txt"},
          .run = run};
}

}  // namespace annulus::app
