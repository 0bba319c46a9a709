#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <istream>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "annulus/base/error.hpp"
#include "app/commands/commands.hpp"
#include "app/context.hpp"
#include "app/outputs.hpp"
#include "app/report/gnuplot.hpp"
#include "app/report/report.hpp"
#include "app/stop.hpp"
#include "app/text_draft.hpp"

namespace annulus::app {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

bool is_hdf5(const std::string& path) {
  std::array<char, 8> begin{};
  std::ifstream(path, std::ios::binary).read(begin.data(), begin.size());
  return std::string_view(begin.data(), begin.size()) == "\x89HDF\r\n\x1a\n";
}

// What somebody nests deeper than that is no table.
json parse(std::istream& file) {
  constexpr int deepest = 32;
  bool deep = false;
  const json::parser_callback_t watch = [&](int depth, json::parse_event_t, json&) {
    deep = deep || depth > deepest;
    return !deep;
  };
  json document = json::parse(file, watch, false);
  return deep ? json() : document;
}

void add_file(const std::string& path, const ReportChoice& choice, Page& page) {
  std::error_code ignored;
  const fs::file_status status = fs::status(path, ignored);
  require<Failure::file>(fs::is_regular_file(status), path, " cannot be read: ",
                         !fs::exists(status)        ? "there is no such file"
                         : fs::is_directory(status) ? "it is a directory"
                                                    : "it is no regular file");
  require_not_stopped();
  if (is_hdf5(path) || path.ends_with(".h5") || path.ends_with(".hdf5")) {
    add_result(InputFile(path), choice, page);
    return;
  }
  std::ifstream file(path);
  const json document = parse(file);
  require<Failure::file>(document.is_object(), path,
                         " must be a result (HDF5) or what bench or plan --json writes: it is neither");
  try {
    if (document.contains("by_ranks") || document.contains("strategies")) add_plan(document, page);
    else add_benchmark(document, path, page);
  } catch (const json::exception& reason) {  // a number where a text should be, and the like
    throw Error(Failure::file, sentence(path, " is not as bench or plan --json writes it: ", reason.what()));
  }
}

// Both kinds of every figure.
std::vector<fs::path> names_of(const Page& page) {
  std::vector<fs::path> names;
  for (const Figure& figure : page.figures())
    for (const char* ending : {".svg", ".png"}) names.emplace_back(figure.name + ending);
  return names;
}

void refuse_to_replace(const Settings& settings, const char* option, const fs::path& path) {
  std::error_code ignored;
  require<Failure::file>(settings.flag("overwrite") || !fs::is_regular_file(path, ignored), settings.name_of(option),
                         ": ", path.string(),
                         ": the file exists, and existing files are replaced only with --overwrite");
}

// Figures go to a folder, which is made if need be, one after another: each is there when it is whole.
void keep_figures(const Page& page, const Gnuplot& drawn, const std::string& option, const fs::path& folder) {
  std::error_code problem;
  fs::create_directories(folder, problem);
  for (const fs::path& name : names_of(page)) {
    const fs::path whole = folder / name, draft = folder / (name.string() + ".partial");
    if (!problem) fs::copy_file(drawn.folder() / name, draft, fs::copy_options::overwrite_existing, problem);
    if (!problem) fs::rename(draft, whole, problem);
  }
  require<Failure::file>(!problem, option, " cannot be written: ", folder.string(), ": ", problem.message());
}

ReportChoice choice_of(const Settings& settings) {
  ReportChoice choice;
  for (const Range& range : settings.list("heads"))
    for (Index head = range.begin; head < range.end; ++head) {
      require(choice.heads.size() < 32, settings.name_of("heads"), " must name at most 32 heads: it is ",
              settings.text("heads"));
      choice.heads.push_back(head);
    }
  for (const Range& range : settings.list("layers"))
    for (Index layer = range.begin; layer < range.end; ++layer) {
      require(choice.layers.size() < 32, settings.name_of("layers"), " must name at most 32 layers: it is ",
              settings.text("layers"));
      choice.layers.push_back(layer);
    }
  if (settings.has("at")) choice.at = settings.count("at");
  return choice;
}

int run(const Settings& settings, Context& context) {
  if (!context.lead()) return 0;
  catch_stop_signals();
  const auto& files = settings.positional();
  const Settings named =
      settings.has("output") ? settings : settings.with("output", fs::path(files.front()).replace_extension(".html"));
  check_outputs(named, files);
  const std::string &output = named.text("output"), &folder = settings.text("figures");
  refuse_to_replace(settings, "output", output);
  TextDraft draft(settings.name_of("output"), output);
  Gnuplot gnuplot;
  Page page(files.size() == 1 ? fs::path(files.front()).filename().string()
                              : sentence("annulus: ", files.size(), " files"));
  const ReportChoice choice = choice_of(settings);
  for (const std::string& path : files) add_file(path, choice, page);
  if (!folder.empty())
    for (const fs::path& name : names_of(page)) {
      const std::string path = fs::path(folder) / name;
      for (const std::string& input : files)
        require(!same_file(path, input), settings.name_of("figures"), " must not replace an input: it would be ",
                input);
      require(!same_file(path, output), settings.name_of("figures"), " must not replace the page: it would be ",
              output);
      refuse_to_replace(settings, "figures", path);
    }
  const auto drawn = gnuplot.draw(page.figures(), !folder.empty());
  if (!folder.empty()) keep_figures(page, gnuplot, settings.name_of("figures"), folder);
  draft.commit(page.text(drawn));
  std::printf("wrote %s: %zu %s\n", output.c_str(), drawn.size(), drawn.size() == 1 ? "figure" : "figures");
  if (!folder.empty()) std::printf("wrote %s: each as SVG and PNG\n", folder.c_str());
  return 0;
}

}  // namespace

Command report_command() {
  return {
      .name = "report",
      .summary = "a page (HTML) with pictures, from results, benchmarks and plans",
      .details =
          "The page needs no other file. Figures are drawn by gnuplot, which must be installed (Debian, Ubuntu: "
          "gnuplot-nox).\n",
      .arguments = {"FILE...", 1, 1000},
      .options = {{.name = "layers",
                   .value = "LIST",
                   .fallback = "(those with the most telling heads)",
                   .group = "What is shown",
                   .help = "layers of a trained model that are shown in detail, for example 0,5 or 8-11",
                   .check = number_list()},
                  {.name = "heads",
                   .value = "LIST",
                   .fallback = "(8 of them)",
                   .group = "What is shown",
                   .help = "heads, for example 0,3 or 8-15",
                   .check = number_list()},
                  {.name = "at",
                   .value = "TOKEN",
                   .fallback = "(near the longest passage)",
                   .group = "What is shown",
                   .help = "first token of the excerpt that shows where tokens look",
                   .check = whole_number()},
                  {.name = "output",
                   .value = "FILE",
                   .fallback = "(FILE.html)",
                   .group = "Output",
                   .help = "HTML file to write: by default beside the first file, under its name"},
                  {.name = "figures",
                   .value = "FOLDER",
                   .group = "Output",
                   .help = "also keeps every figure there, as SVG and PNG"},
                  {.name = "overwrite", .group = "Output", .help = "replace an existing file"}},
      .examples = {"annulus report book.h5", "annulus report out.h5 --heads 0,3 --figures figures --output out.html",
                   "annulus report strong.json weak.json --output scaling.html"},
      .run = run};
}

}  // namespace annulus::app
