#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "annulus/geometry/range.hpp"

namespace annulus {

/// A whole number with an optional size suffix: 4096, 64k = 64,000, 64Ki = 65,536, 1M, 1Mi, 2G, 2Gi.
/// Throws Error (usage) for anything else and for values below `least` or beyond 2^60.
Index parse_count(std::string_view text, Index least = 0);

/// parse_count() of bytes, which may end with B: 141GB = 141,000,000,000, 80GiB or 80Gi = 80 * 2^30.
Index parse_bytes(std::string_view text, Index least = 0);

/// Numbers and inclusive ranges joined by commas, "0,2,5-9", as sorted disjoint half-open ranges.
std::vector<Range> parse_list(std::string_view text);

/// 1234567 -> "1,234,567".
std::string grouped(Index value);
/// 1536 -> "1.5 KiB".
std::string bytes_text(double bytes);
/// Three digits in us, ms, s, min, h or days: 0.0012345 -> "1.23 ms", 22 -> "22.0 s", 150 -> "2.50 min".
std::string duration_text(double seconds);

}  // namespace annulus
