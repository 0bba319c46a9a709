#include "app/hardware.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "app/ini.hpp"

namespace annulus::app {
namespace {

std::string_view trimmed(std::string_view text) {
  const auto begin = text.find_first_not_of(' ');
  return begin == text.npos ? std::string_view() : text.substr(begin, text.find_last_not_of(' ') - begin + 1);
}

// Between bounds that no machine comes near, so that times stay finite.
double positive(std::string_view text, const std::string& where) {
  constexpr double least = 1e-15, most = 1e30;
  text = trimmed(text);
  double value = 0;
  const auto [stop, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(problem == std::errc{} && stop == text.data() + text.size() && value >= least && value <= most, where,
          ": numbers must lie between 1e-15 and 1e30: it is '", text, "'");
  return value;
}

int whole(const IniLine& line, const std::string& where) {
  try {
    return narrow(parse_count(line.value, 1));
  } catch (const Error& e) {
    throw Error(Failure::usage, sentence(where, ": ", e.what()));
  }
}

double memory_of_a_rank(const IniLine& line, const std::string& where) {
  constexpr double most = 1e18;
  double bytes = 0;
  try {  // 141GB, as --memory-limit has it, or 1.41e11
    bytes = std::isalpha(static_cast<unsigned char>(line.value.empty() ? ' ' : line.value.back())) != 0
                ? static_cast<double>(parse_bytes(line.value))
                : positive(line.value, where);
  } catch (const Error&) {
    bytes = 0;
  }
  require(bytes >= 1 && bytes <= most, where, ": memory-bytes, what a rank has, must be 1 to 1e18 bytes, 141GB or 1.41e11: it is '",
          line.value, "'");
  return bytes;
}

template <class Each>
void split(std::string_view text, char mark, const Each& each) {
  for (;; text.remove_prefix(text.find(mark) + 1)) {
    each(text.substr(0, text.find(mark)));
    if (text.find(mark) == text.npos) return;
  }
}

LinkPrice parse_link(const IniLine& line, LinkClass kind, const std::string& where) {
  std::vector<std::string_view> parts;
  split(line.value, ',', [&](std::string_view text) { parts.push_back(text); });
  require(parts.size() == 2 || parts.size() == 3 || parts.size() == 5, where,
          ": a link is 'seconds, bytes per second', with ', hidden' and ', bytes, seconds' of long messages if you "
          "like: it is '",
          line.value, "'");
  LinkPrice link = ordinary(kind, positive(parts[0], where), positive(parts[1], where));
  if (parts.size() < 3) return link;
  link.hidden = trimmed(parts[2]) == "0" ? 0 : positive(parts[2], where);
  require(link.hidden <= 1, where, ": what a link hides is a share, 0 to 1: it is '", parts[2], "'");
  if (parts.size() < 5) return link;
  link.long_bytes = positive(parts[3], where);
  link.long_latency_seconds = positive(parts[4], where);
  return link;
}

std::vector<RatePoint> parse_rates(const IniLine& line, const std::string& where) {
  std::vector<RatePoint> points;
  split(line.value, ',', [&](std::string_view text) {
    const auto colon = text.find(':');
    require(colon != text.npos, where, ": rates are 'tokens:operations per second, ...': it is '", line.value, "'");
    points.push_back({positive(text.substr(0, colon), where), positive(text.substr(colon + 1), where)});
    require(points.size() < 2 || points[points.size() - 2].tokens < points.back().tokens, where,
            ": the tokens of rates must ascend: they are '", line.value, "'");
  });
  return points;
}

bool is_rate_name(std::string_view name) {
  for (const char* type : {"f32", "bf16", "f16"})
    for (const char* pass : {"forward", "backward"})
      for (const char* mask : {"full", "causal"})
        if (name == sentence(type, ".", pass, ".", mask)) return true;
  return false;
}

std::string scientific(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.4g", value);
  return text.data();
}

}  // namespace

LinkPrice Hardware::link(LinkClass kind) const {
  for (std::size_t i = static_cast<std::size_t>(kind); i < links.size(); ++i)
    if (links[i]) return *links[i];
  for (std::size_t i = links.size(); i-- > 0;)
    if (links[i]) return *links[i];
  throw Error(Failure::usage, sentence("the hardware profile '", name, "' has no link"));
}

LinkClass Hardware::inside() const {
  for (const LinkClass kind : {LinkClass::node, LinkClass::shared, LinkClass::process})
    if (links[static_cast<std::size_t>(kind)]) return kind;
  return LinkClass::network;
}

Rates Hardware::rates_of(DType type, bool backward) const {
  const std::string stem = sentence(name_of(type), backward ? ".backward." : ".forward.");
  Rates found;
  if (const auto full = rates.find(stem + "full"); full != rates.end()) found.full = full->second;
  if (const auto causal = rates.find(stem + "causal"); causal != rates.end()) found.causal = causal->second;
  require(!found.full.empty() || !found.causal.empty(), "the hardware profile '", name, "' has no rates of ",
          name_of(type), backward ? " backward" : " forward", " (kernel.", stem, "full or .causal); it has those of ",
          known(), ": name one of these with --dtype, or add the line");
  return found;
}

std::string Hardware::known() const {
  std::string names;
  for (const DType type : {DType::f32, DType::bf16, DType::f16})
    for (const char* pass : {"forward", "backward"}) {
      const std::string stem = sentence(name_of(type), ".", pass, ".");
      if (rates.contains(stem + "full") || rates.contains(stem + "causal"))
        names += sentence(names.empty() ? "" : ", ", name_of(type), " ", pass);
    }
  return names;
}

DType Hardware::known_type(DType wish) const {
  for (const DType type : {wish, DType::f32, DType::bf16, DType::f16})
    for (const char* mask : {"full", "causal"})
      if (rates.contains(sentence(name_of(type), ".forward.", mask))) return type;
  return wish;
}

LinkPrice ordinary(LinkClass kind, double latency_seconds, double bytes_per_second) {
  const bool needs_a_core = kind == LinkClass::process || kind == LinkClass::shared;
  return {latency_seconds, bytes_per_second, needs_a_core ? 0.0 : 1.0, kind == LinkClass::process};
}

Hardware read_hardware(const std::string& path) {
  Hardware hardware;
  std::vector<std::string> seen;
  for (const IniLine& line : read_ini(path, "--hardware")) {
    const std::string where = sentence(path, ", line ", line.line);
    require(std::ranges::find(seen, line.key) == seen.end(), where, ": '", line.key, "' is given twice");
    seen.push_back(line.key);
    const auto link = std::ranges::find_if(link_names, [&](auto name) { return line.key == sentence("link.", name); });
    if (line.key == "name") {
      hardware.name = line.value;
    } else if (line.key == "ranks-per-node") {
      hardware.ranks_per_node = whole(line, where);
    } else if (link != link_names.end()) {
      const auto kind = static_cast<std::size_t>(link - link_names.begin());
      hardware.links[kind] = parse_link(line, static_cast<LinkClass>(kind), where);
    } else if (line.key == "network-ports") {
      hardware.network_ports = whole(line, where);
    } else if (line.key == "memory") {
      hardware.memory_bytes_per_second = positive(line.value, where);
    } else if (line.key == "memory-bytes") {
      hardware.memory_bytes = memory_of_a_rank(line, where);
    } else if (line.key == "pass") {
      hardware.seconds_per_pass = positive(line.value, where);
    } else if (line.key == "keys.f32" || line.key == "keys.bf16" || line.key == "keys.f16") {
      hardware.key_bytes_per_second[line.key.substr(5)] = positive(line.value, where);
    } else if (line.key.starts_with("kernel.") && is_rate_name(line.key.substr(7))) {
      hardware.rates[line.key.substr(7)] = parse_rates(line, where);
    } else {
      throw Error(
          Failure::usage,
          sentence(where, ": '", line.key,
                   "' is not known: the keys are name, ranks-per-node, network-ports, memory, memory-bytes, pass, "
                   "keys.(f32|bf16|f16), link.(process|shared|node|network) and "
                   "kernel.(f32|bf16|f16).(forward|backward).(full|causal)"));
    }
  }
  require(!hardware.name.empty(), path, " must have a line 'name = ...'");
  require(!hardware.rates.empty(), path, " must have at least one line kernel.DTYPE.PASS.MASK");
  require(std::ranges::any_of(hardware.links, [](const auto& link) { return link.has_value(); }), path,
          " must have at least one line link.CLASS");
  return hardware;
}

std::string hardware_page(const Hardware& hardware, const std::string& comment) {
  std::string page;
  split(comment, '\n', [&](std::string_view line) { page += sentence("# ", line, "\n"); });
  page += sentence("name = ", ini_value(hardware.name), "\nranks-per-node = ", hardware.ranks_per_node, "\n");
  if (hardware.network_ports) page += sentence("network-ports = ", *hardware.network_ports, "\n");
  for (std::size_t i = 0; i < link_names.size(); ++i)
    if (const auto& link = hardware.links[i]) {
      page += sentence("link.", link_names[i], " = ", scientific(link->latency_seconds), ", ",
                       scientific(link->bytes_per_second), ", ", scientific(link->hidden));
      if (std::isfinite(link->long_bytes))
        page += sentence(", ", static_cast<Index>(link->long_bytes), ", ", scientific(link->long_latency_seconds));
      page += "\n";
    }
  if (hardware.memory_bytes_per_second)
    page += sentence("memory = ", scientific(*hardware.memory_bytes_per_second), "\n");
  if (hardware.memory_bytes) page += sentence("memory-bytes = ", scientific(*hardware.memory_bytes), "\n");
  if (hardware.seconds_per_pass) page += sentence("pass = ", scientific(*hardware.seconds_per_pass), "\n");
  for (const auto& [type, bytes] : hardware.key_bytes_per_second)
    page += sentence("keys.", type, " = ", scientific(bytes), "\n");
  for (const auto& [name, points] : hardware.rates) {
    page += sentence("kernel.", name, " = ");
    for (const RatePoint& point : points)
      page += sentence(&point == points.data() ? "" : ", ", scientific(point.tokens), ":",
                       scientific(point.operations_per_second));
    page += "\n";
  }
  return page;
}

Prices priced(Prices job, DType type, const Hardware& hardware, int ranks_per_node, LinkClass inside) {
  job.ranks_per_node = ranks_per_node;
  job.workers_per_node = hardware.ranks_per_node;
  job.network_ports = hardware.network_ports.value_or(std::max(hardware.ranks_per_node, ranks_per_node));
  job.forward = hardware.rates_of(type, false);
  if (job.backward) job.backward_rates = hardware.rates_of(type, true);
  job.near = hardware.link(inside);
  job.far = hardware.link(LinkClass::network);
  if (hardware.memory_bytes_per_second) job.memory_bytes_per_second = *hardware.memory_bytes_per_second;
  const auto keys = hardware.key_bytes_per_second.find(std::string(name_of(type)));
  job.key_bytes_per_second = keys != hardware.key_bytes_per_second.end() ? keys->second : job.memory_bytes_per_second;
  if (hardware.seconds_per_pass) job.seconds_per_pass = *hardware.seconds_per_pass;
  return job;
}

}  // namespace annulus::app
