#include "app/hardware.hpp"

#include <algorithm>
#include <array>
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

double positive(std::string_view text, const std::string& where) {
  text = trimmed(text);
  double value = 0;
  const auto [stop, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(problem == std::errc{} && stop == text.data() + text.size() && std::isfinite(value) && value > 0, where,
          ": numbers must be finite and above zero: it is '", text, "'");
  return value;
}

template <class Each>
void split(std::string_view text, char mark, const Each& each) {
  for (;; text.remove_prefix(text.find(mark) + 1)) {
    each(text.substr(0, text.find(mark)));
    if (text.find(mark) == text.npos) return;
  }
}

Link parse_link(const IniLine& line, const std::string& where) {
  const auto comma = line.value.find(',');
  require(comma != line.value.npos, where, ": a link is 'seconds, bytes per second': it is '", line.value, "'");
  const std::string_view value = line.value;
  return {positive(value.substr(0, comma), where), positive(value.substr(comma + 1), where)};
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

Link Hardware::link(LinkClass kind) const {
  for (std::size_t i = static_cast<std::size_t>(kind); i < links.size(); ++i)
    if (links[i]) return *links[i];
  for (std::size_t i = links.size(); i-- > 0;)
    if (links[i]) return *links[i];
  throw Error(Failure::usage, sentence("the hardware profile '", name, "' has no link"));
}

double Hardware::rate(DType type, bool backward, bool causal, double tokens) const {
  const std::string stem = sentence(name_of(type), backward ? ".backward." : ".forward.");
  auto found = rates.find(stem + (causal ? "causal" : "full"));
  if (found == rates.end()) found = rates.find(stem + (causal ? "full" : "causal"));
  require(found != rates.end(), "the hardware profile '", name, "' has no line kernel.", stem, "full");
  const std::vector<RatePoint>& points = found->second;
  const auto above = std::ranges::lower_bound(points, tokens, {}, &RatePoint::tokens);
  if (above == points.begin()) return above->operations_per_second;
  const RatePoint& below = *(above - 1);
  if (above == points.end()) return below.operations_per_second;
  const double share = std::log(tokens / below.tokens) / std::log(above->tokens / below.tokens);
  return below.operations_per_second + share * (above->operations_per_second - below.operations_per_second);
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
      hardware.ranks_per_node = narrow(parse_count(line.value, 1));
    } else if (link != link_names.end()) {
      hardware.links[static_cast<std::size_t>(link - link_names.begin())] = parse_link(line, where);
    } else if (line.key.starts_with("kernel.") && is_rate_name(line.key.substr(7))) {
      hardware.rates[line.key.substr(7)] = parse_rates(line, where);
    } else {
      throw Error(Failure::usage,
                  sentence(where, ": '", line.key,
                           "' is not known: the keys are name, ranks-per-node, link.(process|shared|node|network) and "
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
  for (std::size_t i = 0; i < link_names.size(); ++i)
    if (const auto& link = hardware.links[i])
      page += sentence("link.", link_names[i], " = ", scientific(link->latency_seconds), ", ",
                       scientific(link->bytes_per_second), "\n");
  for (const auto& [name, points] : hardware.rates) {
    page += sentence("kernel.", name, " = ");
    for (const RatePoint& point : points)
      page += sentence(&point == points.data() ? "" : ", ", scientific(point.tokens), ":",
                       scientific(point.operations_per_second));
    page += "\n";
  }
  return page;
}

double predicted_seconds(const Schedule& schedule, Prices prices, DType type, const Hardware& hardware,
                         LinkClass kind) {
  const Link link = hardware.link(kind);
  const double pairs = static_cast<double>(schedule.mask.pairs());
  const bool causal =
      pairs < 0.75 * static_cast<double>(schedule.mask.queries()) * static_cast<double>(schedule.mask.keys());
  const auto tokens = static_cast<double>(std::max<Index>(1, schedule.queries.largest()));
  prices.operations_per_second = hardware.rate(type, prices.backward, causal, tokens);
  // estimate counts 3.5 forwards for a backward job; a backward pass alone is 2.5
  if (prices.backward) prices.operations_per_second *= 3.5 / 2.5;
  prices.bytes_per_second = link.bytes_per_second;
  prices.seconds_per_step = link.latency_seconds;
  return estimate(schedule, prices).nominal_seconds;
}

}  // namespace annulus::app
