#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <utility>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/transport/collectives.hpp"
#include "app/backends.hpp"
#include "app/bench.hpp"
#include "app/outputs.hpp"
#include "app/processor_peak.hpp"

namespace annulus::app {
namespace {

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return text.data();
}

// A value as the table shows it: whole numbers as they are, others with the column's digits, nothing as '-'.
std::string shown(const Column& column, const Row& value) {
  if (value.is_null()) return "-";
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_number_float()) return value.dump();
  const double number = value.get<double>();
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), column.digits < 0 ? "%.*e" : "%.*f", std::abs(column.digits), number);
  return text.data();
}

std::string csv_field(const Row& value) {
  if (value.is_null()) return "";
  if (!value.is_string()) return value.dump();
  std::string quoted(1, '"');
  for (char c : value.get<std::string>()) quoted.append(c == '"' ? 2 : 1, c);
  quoted.push_back('"');
  return quoted;
}

}  // namespace

Samples::Samples(std::vector<double> measured) : seconds(std::move(measured)) {
  require<Failure::runtime>(!seconds.empty(), "a benchmark needs at least one repetition");
  std::ranges::sort(seconds);
}

double Samples::median() const {
  const std::size_t middle = seconds.size() / 2;
  return seconds.size() % 2 == 1 ? seconds[middle] : (seconds[middle - 1] + seconds[middle]) / 2;
}

double Samples::p99() const {
  const auto place = static_cast<std::size_t>(std::ceil(0.99 * static_cast<double>(seconds.size())));
  return seconds[std::max<std::size_t>(1, place) - 1];
}

std::vector<std::string> hosts_of_ranks(Context& context, double patience_seconds) {
  std::vector<std::string> hosts;
  context.on_every_rank(context.ranks(0), patience_seconds, [&](RankTools& tools) {
    std::array<char, 256> name{};
    gethostname(name.data(), name.size() - 1);
    const std::string mine = name.data();
    for (const auto& bytes : all_gather(tools.transport, std::as_bytes(std::span(mine))))
      hosts.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  });
  return hosts;
}

int shared_code(Context& context, int code, double patience_seconds) {
  std::vector<double> codes{static_cast<double>(code)};
  context.on_every_rank(context.ranks(0), patience_seconds, [&](RankTools& tools) {
    std::vector<double> mine = codes;
    all_max(tools.transport, mine);
    codes = mine;
  });
  return static_cast<int>(codes[0]);
}

Report::Report(const Settings& settings, Context& context, std::vector<Column> columns)
    : columns_(std::move(columns)), lead_(context.lead()), progress_mode_(settings.text("progress")) {
  context.on_every_rank(context.ranks(0), settings.number("timeout"), [&](RankTools& tools) {
    together(tools.transport, [&] {
      if (!tools.lead) return;
      check_outputs(settings, {});
      if (settings.has("csv")) csv_.emplace(settings.name_of("csv"), settings.text("csv"));
      if (settings.has("json")) json_.emplace(settings.name_of("json"), settings.text("json"));
    });
  });
  head(settings, context);
}

void Report::head(const Settings& settings, Context& context) {
  const std::vector<std::string> hosts = hosts_of_ranks(context, settings.number("timeout"));
  std::string command = "annulus", by_host;
  for (const std::string& argument : context.arguments()) command += " " + argument;
  for (std::size_t i = 0; i < hosts.size();) {
    const auto same = static_cast<std::size_t>(std::ranges::count(hosts, hosts[i]));
    if (std::ranges::find(hosts, hosts[i]) == hosts.begin() + static_cast<std::ptrdiff_t>(i))
      by_host += sentence(by_host.empty() ? "" : ", ", hosts[i], " x ", same);
    ++i;
  }
  const std::string time = utc_now();
  std::string device;
  if (settings.text("device") != "cpu")
    for (const Gpu& gpu : gpu_list()) device += sentence(device.empty() ? "" : ", ", gpu.name);
  if (device.empty()) device = "cpu";
  note(sentence("annulus ", ANNULUS_VERSION, ", bench ", settings.positional().front(), ", ", time));
  note(sentence("command: ", command));
  note(sentence("hosts x processes: ", by_host, "; ", processor_name(), ", ", Context::cores(),
                " cores for this process"));
  note(sentence("mpi: ", context.under_mpi() ? mpi_library() : "not used", "; transport: ",
                context.transport(), "; device: ", device));
  Row arguments;
  for (const Setting& setting : settings.all())
    arguments[setting.option.name] = setting.text.empty() ? Row(nullptr) : Row(setting.text);
  document_ = {{"benchmark", settings.positional().front()},
               {"command", command},
               {"arguments", std::move(arguments)},
               {"environment",
                {{"version", ANNULUS_VERSION},
                 {"time", time},
                 {"hosts", hosts},
                 {"processor", processor_name()},
                 {"cores", Context::cores()},
                 {"mpi", context.under_mpi() ? mpi_library() : ""},
                 {"transport", context.transport()},
                 {"device", device}}}};
}

void Report::note(const std::string& text) {
  if (!lead_) return;
  if (progress_) progress_->hide();
  std::printf("# %s\n", text.c_str());
  std::fflush(stdout);  // who reads along in a pipe sees what is being measured
}

void Report::expect(Index cases) {
  progress_.emplace(progress_mode_, lead_, "bench", cases);
  progress_->begin();
}

void Report::refused(const std::string& text) {
  note(text);
  if (progress_) progress_->add(1);
}

void Report::used(const std::string& option, const std::vector<std::string>& values) {
  std::string text;
  for (const std::string& value : values) text += sentence(text.empty() ? "" : ",", value);
  document_["arguments"][option] = text;
}

void Report::describe(const Row& row) {
  const auto word = [&](const char* name) {
    return row[name].is_string() ? row[name].get<std::string>() : row[name].dump();
  };
  const std::string threads = word("threads"), trace = word("trace");
  const std::string keys = row["keys"] == row["tokens"] ? "" : word("keys") + " keys, ";
  const std::string traced = trace == "none" ? "" : sentence(" and traces (", trace, ")");
  const std::string job = sentence("job: ", word("pass"), " pass", traced, ", ", keys, word("dtype"), ", ", word("heads"), " heads x ",
                                   word("channels"), ":", word("value_channels"), " channels, kernel ", word("kernel"),
                                   ", ", threads, threads == "1" ? " thread" : " threads", " per rank");
  if (job != std::exchange(described_, job)) note(job);
}

void Report::row(const Row& row) {
  rows_.push_back(row);
  if (!lead_) return;
  if (progress_) progress_->hide();
  if (!head_printed_) {
    std::string line = "#";
    for (const Column& column : columns_) {
      if (column.width == 0) continue;
      const std::string& heading = column.heading.empty() ? column.name : column.heading;
      line += line.size() > 1 ? " " : "";
      line.append(std::max(0, column.width - static_cast<int>(heading.size()) - (line.size() == 1 ? 1 : 0)), ' ');
      line += heading;
    }
    std::printf("#\n%s\n", line.c_str());
    head_printed_ = true;
  }
  std::string line;
  for (const Column& column : columns_) {
    if (column.width == 0) continue;
    const std::string text = shown(column, row.value(column.name, Row(nullptr)));
    line += line.empty() ? "" : " ";
    line.append(static_cast<std::size_t>(std::max(0, column.width - static_cast<int>(text.size()))), ' ');
    line += text;
  }
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
  if (progress_) progress_->add(1);
}

void Report::collect(const std::function<void()>& measure) {
  try {
    measure();
  } catch (const Agreed& e) {
    if (e.failure() != Failure::stopped) throw;
    const std::string finished = sentence(rows_.size(), rows_.size() == 1 ? " row was" : " rows were", " measured");
    finish(std::nullopt, "stopped on request: " + finished);
    throw Agreed(Error(Failure::stopped, sentence("stopped on request: ", finished, csv_ || json_ ? " and written" : "",
                                                  "; start it again for the rest")));
  }
}

int Report::finish(std::optional<bool> holds, const std::string& verdict) {
  if (progress_) progress_->finish();
  const char* word = !holds ? "MEASURED, nothing to check" : *holds ? "PASSED" : "FAILED";
  if (lead_) std::printf("#\n");
  note(sentence("verdict: ", word, "; ", verdict));
  if (csv_) {
    std::string text;
    for (const Column& column : columns_) text += sentence(text.empty() ? "" : ",", column.name);
    for (const Row& row : rows_) {
      text += "\n";
      for (const Column& column : columns_)
        text += sentence(&column == columns_.data() ? "" : ",", csv_field(row.value(column.name, Row(nullptr))));
    }
    csv_->commit(text + "\n");
  }
  document_["results"] = rows_;
  document_["verdict"] = {{"passed", holds ? Row(*holds) : Row(nullptr)}, {"text", verdict}};
  if (json_) json_->commit(document_.dump(2) + "\n");
  return holds.value_or(true) ? 0 : static_cast<int>(Failure::tolerance);
}

}  // namespace annulus::app
