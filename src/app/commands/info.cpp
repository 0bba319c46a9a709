#include <algorithm>
#include <boost/version.hpp>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/kernel/cpu.hpp"
#include "annulus/store/element.hpp"
#include "app/backends.hpp"
#include "app/commands/commands.hpp"
#include "app/context.hpp"
#include "app/outputs.hpp"
#include "app/processor_peak.hpp"
#include "app/report/gnuplot.hpp"
#include "app/text_draft.hpp"

namespace annulus::app {
namespace {

std::string transport_text(const Context& context) {
  if (context.transport() == "shared") return "shared: ranks of this node read one another's blocks where they lie";
  if (context.transport() == "mpi") return "mpi: messages are copied";
  return "threads: ranks of this process read one another's blocks where they lie";
}

// The types of inputs a kernel can compute here; when there are none, why not.
struct Verdict {
  std::vector<std::string> types;
  std::string refusal;
};

Verdict judge(const KernelRow& row) {
  Verdict verdict;
  std::string wrong_type;
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    Problem problem;
    problem.type = type;
    const std::string reason = row.refusal(problem, row.place);
    if (reason.empty()) verdict.types.emplace_back(name_of(type));
    else if (reason.starts_with("it is for")) wrong_type = reason;
    else if (verdict.refusal.empty()) verdict.refusal = reason;
  }
  if (verdict.refusal.empty()) verdict.refusal = wrong_type;
  if (!verdict.types.empty()) verdict.refusal.clear();
  return verdict;
}

// "runs", "runs (bf16 inputs)", or that it does not.
std::string text_of(const Verdict& verdict) {
  if (verdict.types.empty()) return "cannot run";
  if (verdict.types.size() == 3) return "runs";
  std::string types;
  for (const std::string& type : verdict.types) types += sentence(types.empty() ? "" : " and ", type);
  return sentence("runs (", types, " inputs)");
}

std::string instruction_sets() {
  std::string names;
  for (const CpuFeature& feature : cpu_features())
    if (feature.offered) names += sentence(names.empty() ? "" : ", ", feature.name);
  return names.empty() ? "none that the kernels know" : names;
}

// Of the program that draws the figures of reports.
std::string gnuplot_text() {
  try {
    return Gnuplot().version();
  } catch (const Error&) {
    return "gnuplot is not installed";
  }
}

// "1.74" of "1_74"
std::string boost_version() {
  std::string text = BOOST_LIB_VERSION;
  std::ranges::replace(text, '_', '.');
  return text;
}

int run(const Settings& settings, Context& context) {
  constexpr double patience_seconds = 60;
  context.on_every_rank(context.ranks(0), patience_seconds, [](RankTools&) {});  // then the transport is known
  if (!context.lead()) return 0;
  check_outputs(settings, {});
  TextDraft twin(settings.name_of("json"), settings.text("json"));
  using nlohmann::json;
  json info{{"version", ANNULUS_VERSION},   {"processor", processor_name()},
            {"cores", Context::cores()},    {"memory_available_bytes", available_memory()},
            {"mpi", mpi_library()},         {"transport", context.transport()},
            {"ranks", context.ranks(0)},    {"threads_per_rank", context.threads_per_rank(context.ranks(0), 0)},
            {"openmp", has_threads()},      {"audio", has_audio() ? "libsndfile, libsoxr" : "not compiled in"},
            {"models", has_checkpoints() ? "oneDNN, PCRE2, utf8proc" : "not compiled in"},
            {"cuda", cuda_text()},          {"cuda_missing", cuda_missing()},
            {"gpus", json::array()},        {"nccl", nccl_text()},
            {"kernels", json::array()},     {"instruction_sets", json::object()},
            {"hdf5", hdf5_version()},       {"boost", boost_version()},
            {"gnuplot", gnuplot_text()},
            {"compiler", ANNULUS_COMPILER}, {"build_type", ANNULUS_BUILD_TYPE}};
  for (const CpuFeature& feature : cpu_features())
    info["instruction_sets"][std::string(feature.name)] = feature.offered;
  for (const Gpu& gpu : gpu_list())
    info["gpus"].push_back({{"name", gpu.name},
                            {"capability", sentence(gpu.major, ".", gpu.minor)},
                            {"memory_bytes", gpu.bytes},
                            {"memory_free_bytes", gpu_free_bytes(static_cast<int>(info["gpus"].size()))}});
  std::printf("annulus %s\n", ANNULUS_VERSION);
  std::printf("  processor   %s, %d core%s for this process, %s free\n", processor_name().c_str(), Context::cores(),
              Context::cores() == 1 ? "" : "s", bytes_text(static_cast<double>(available_memory())).c_str());
  std::printf("  has         %s\n", instruction_sets().c_str());
  std::printf("  ranks       %d here, %d thread%s each (cores / ranks of the node)\n", context.ranks(0),
              context.threads_per_rank(context.ranks(0), 0),
              context.threads_per_rank(context.ranks(0), 0) == 1 ? "" : "s");
  std::printf("  transport   %s\n  mpi         %s\n  openmp      %s\n  recordings  %s\n  models      %s\n",
              transport_text(context).c_str(), mpi_library().c_str(), has_threads() ? "yes" : "not compiled in",
              info["audio"].get<std::string>().c_str(), info["models"].get<std::string>().c_str());
  std::printf("  libraries   HDF5 %s, Boost %s\n  reports     %s\n  built       %s, %s\n", hdf5_version().c_str(),
              boost_version().c_str(), info["gnuplot"].get<std::string>().c_str(), ANNULUS_COMPILER, ANNULUS_BUILD_TYPE);
  std::printf("  cuda        %s%s%s\n  nccl        %s\n", cuda_text().c_str(), cuda_missing().empty() ? "" : ": ",
              cuda_missing().c_str(), nccl_text().c_str());
  for (const auto& gpu : info["gpus"])
    std::printf("    %-36s %s, %s, %s free\n", gpu["name"].get<std::string>().c_str(),
                gpu["capability"].get<std::string>().c_str(), bytes_text(gpu["memory_bytes"].get<double>()).c_str(),
                bytes_text(gpu["memory_free_bytes"].get<double>()).c_str());
  std::printf("  kernels     (auto takes the first that can run)\n");
  std::vector<std::pair<std::string, std::string>> refusals;  // why not, and the kernels that cannot run for it
  for (const KernelRow& row : kernels()) {
    const Verdict verdict = judge(row);
    info["kernels"].push_back(
        {{"name", row.name}, {"what", row.what}, {"dtypes", verdict.types}, {"refusal", verdict.refusal}});
    std::printf("    %-18s %-51s %s\n", std::string(row.name).c_str(), std::string(row.what).c_str(),
                text_of(verdict).c_str());
    if (!verdict.types.empty()) continue;
    auto same = std::ranges::find(refusals, verdict.refusal, [](const auto& refusal) { return refusal.first; });
    if (same == refusals.end()) refusals.emplace_back(verdict.refusal, row.name);
    else same->second += sentence(", ", row.name);
  }
  for (const auto& [why, names] : refusals) std::printf("  %s cannot run:\n    %s\n", names.c_str(), why.c_str());
  twin.commit(info.dump(2) + "\n");
  return 0;
}

}  // namespace

Command info_command() {
  return {.name = "info",
          .summary = "versions, devices, instruction sets, what was compiled in",
          .arguments = {},
          .options = {{.name = "json", .value = "FILE", .group = "Output", .help = "the same for machines"}},
          .examples = {"annulus info", "mpirun -n 4 annulus info", "annulus info --json info.json"},
          .run = run};
}

}  // namespace annulus::app
