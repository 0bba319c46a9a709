#include "annulus/geometry/numbers.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <utility>

#include "annulus/base/error.hpp"

namespace annulus {

Index parse_count(std::string_view text, Index least) {
  static constexpr std::array<std::pair<std::string_view, Index>, 9> suffixes{{{"", 1},
                                                                               {"k", 1'000},
                                                                               {"K", 1'000},
                                                                               {"Ki", Index{1} << 10},
                                                                               {"M", 1'000'000},
                                                                               {"Mi", Index{1} << 20},
                                                                               {"G", 1'000'000'000},
                                                                               {"Gi", Index{1} << 30},
                                                                               {"Ti", Index{1} << 40}}};
  Index value = 0;
  const auto [stop, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view suffix(stop, static_cast<std::size_t>(text.data() + text.size() - stop));
  const auto unit = std::ranges::find(suffixes, suffix, &std::pair<std::string_view, Index>::first);
  require(problem == std::errc{} && unit != suffixes.end(), "'", text,
          "' is not a whole number (suffixes: k M G for thousands, Ki Mi Gi for powers of 1024)");
  const Index most = far / unit->second;
  require(-most <= value && value <= most, "'", text, "' is beyond 2^60");
  value *= unit->second;
  require(value >= least, "'", text, "' is below the least value allowed, ", least);
  return value;
}

Index parse_bytes(std::string_view text, Index least) {
  const bool named = text.size() > 1 && text.ends_with('B');
  Index bytes = 0;
  try {
    bytes = parse_count(named ? text.substr(0, text.size() - 1) : text, -far);
  } catch (const Error& e) {
    throw Error(Failure::usage, sentence("'", text, "' is not a number of bytes such as 80GiB, 141GB or 512Mi"),
                e.where());
  }
  require(bytes >= least, "'", text, "' is below the least value allowed, ", least);
  return bytes;
}

std::vector<Range> parse_list(std::string_view text) {
  std::vector<Range> ranges;
  for (std::string_view rest = text;;) {
    const auto comma = rest.find(',');
    const std::string_view item = rest.substr(0, comma);
    const auto dash = item.find('-', 1);
    const Index first = parse_count(item.substr(0, dash));
    const Index last = dash == item.npos ? first : parse_count(item.substr(dash + 1));
    require(first <= last, "'", item, "' must be written smaller-larger");
    ranges.push_back({first, last + 1});
    if (comma == rest.npos) return united(std::move(ranges));
    rest = rest.substr(comma + 1);
  }
}

std::string grouped(Index value) {
  std::string digits = std::to_string(value);
  const Index sign = value < 0 ? 1 : 0;
  for (Index i = static_cast<Index>(digits.size()) - 3; i > sign; i -= 3)
    digits.insert(static_cast<std::size_t>(i), 1, ',');
  return digits;
}

std::string bytes_text(double bytes) {
  static constexpr std::array units{"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  std::size_t unit = 0;
  while (std::abs(bytes) >= 1024 && unit + 1 < units.size()) bytes /= 1024, ++unit;
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), unit == 0 || std::abs(bytes) >= 100 ? "%.0f %s" : "%.1f %s", bytes,
                units[unit]);
  return text.data();
}

std::string duration_text(double seconds) {
  struct Unit {
    double seconds, end;  // used below
    const char* name;
  };
  static constexpr std::array units{Unit{1e-6, 999.5e-6, "us"}, Unit{1e-3, 0.9995, "ms"}, Unit{1, 120, "s"},
                                    Unit{60, 120 * 60, "min"}, Unit{3600, 48 * 3600, "h"}};
  Unit unit{24 * 3600, 0, "days"};
  for (auto it = units.rbegin(); it != units.rend(); ++it)
    if (seconds < it->end) unit = *it;
  const double value = seconds / unit.seconds;
  const int decimals = value == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), value < 1e6 ? "%.*f %s" : "%.*e %s", value < 1e6 ? decimals : 2, value,
                unit.name);
  return text.data();
}

}  // namespace annulus
