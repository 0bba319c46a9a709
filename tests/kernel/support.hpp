#pragma once
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "annulus/kernel/cpu.hpp"
#include "annulus/kernel/partial.hpp"
#include "annulus/kernel/reference.hpp"
#include "annulus/memory/device.hpp"
#include "annulus/memory/number.hpp"

// What the kernel tests share: rows with gaps that hold NaN, random problems, and every pass by the float64 reference.

namespace annulus::test {

/// Which of many alike cases of slow code run. All of them, but under sanitizers, where code is 20 times as slow and each
/// number has been judged in the release build: there every `nth`, beginning with another one in each round of a test.
class Share {
 public:
  explicit Share([[maybe_unused]] int nth) {
#if defined(ANNULUS_SANITIZED)
    nth_ = nth;
#endif
  }
  bool takes() { return next_++ % nth_ == 0; }
  void next_round() { next_ = ++round_; }

 private:
  int nth_ = 1, next_ = 0, round_ = 0;
};

constexpr double minus_infinity = -std::numeric_limits<double>::infinity();

inline void set_number(const Rows& rows, Index token, Index head, Index c, double value) {
  const auto f = static_cast<float>(value);
  switch (rows.type) {
    case DType::f32:
      rows.at<float>(token, head)[c] = f;
      break;
    case DType::f64:
      rows.at<double>(token, head)[c] = value;
      break;
    case DType::bf16:
      rows.at<std::uint16_t>(token, head)[c] = to_bf16(f);
      break;
    case DType::f16:
      rows.at<std::uint16_t>(token, head)[c] = to_f16(f);
      break;
  }
}

/// Rows whose pitch is `gap` elements longer than dense; gaps hold bytes 0xff (NaN in every type).
class Sheet {
 public:
  Sheet(DType type, Index tokens, Index heads, Index channels, Index gap = 0)
      : bytes_(static_cast<std::size_t>(tokens * (heads * channels + gap) * bytes_of(type)), std::byte{0xff}),
        rows_(dense_rows(bytes_.data(), type, tokens, heads, channels)) {
    rows_.pitch += gap * bytes_of(type);
  }
  Sheet(const Sheet& other) : bytes_(other.bytes_), rows_(other.rows_) { rows_.data = bytes_.data(); }
  Sheet& operator=(const Sheet&) = delete;

  Sheet& fill(double value) {
    return each([=](Index, Index, Index) { return value; });
  }
  Sheet& fill_normal(std::mt19937& random, double deviation = 1) {
    std::normal_distribution<double> normal(0, deviation);
    return each([&](Index, Index, Index) { return normal(random); });
  }
  template <class Value>
  Sheet& each(const Value& value) {
    for (Index i = 0; i < rows_.tokens; ++i)
      for (Index h = 0; h < rows_.heads; ++h)
        for (Index c = 0; c < rows_.channels; ++c) set_number(rows_, i, h, c, value(i, h, c));
    return *this;
  }
  double at(Index token, Index head, Index c = 0) const { return number(rows_, token, head, c); }
  void set(Index token, Index head, Index c, double value) { set_number(rows_, token, head, c, value); }
  const Rows& rows() const { return rows_; }
  operator const Rows&() const { return rows_; }  // NOLINT: a sheet is its rows
  bool same_bits(const Sheet& other) const { return bytes_ == other.bytes_; }

 private:
  std::vector<std::byte> bytes_;
  Rows rows_;
};

/// A partial on sheets, made the identity.
struct PartialSheets {
  PartialSheets(DType type, Index rows, Index heads, Index channels, Index gap = 0)
      : out(type, rows, heads, channels, gap), top(type, rows, heads, 1, gap), sum(type, rows, heads, 1, gap) {
    reset(view());
  }
  Partial view() const { return {out, top, sum}; }
  bool same_bits(const PartialSheets& other) const {
    return out.same_bits(other.out) && top.same_bits(other.top) && sum.same_bits(other.sum);
  }
  Sheet out, top, sum;
};

/// Elements between rows, of q, k, v and dout.
struct Gaps {
  Index q = 3, k = 5, v = 2, dout = 1;
};

/// A problem with random inputs. Rows have gaps.
struct Inputs {
  Inputs(const Problem& p, Index queries, Index keys, unsigned seed, double deviation = 1, const Gaps& gaps = {})
      : problem(p),
        q(p.type, queries, p.query_heads, p.channels, gaps.q),
        k(p.type, keys, p.kv_heads, p.channels, gaps.k),
        v(p.type, keys, p.kv_heads, p.value_channels, gaps.v),
        dout(p.type, queries, p.query_heads, p.value_channels, gaps.dout) {
    std::mt19937 random(seed);
    q.fill_normal(random, deviation);
    k.fill_normal(random, deviation);
    v.fill_normal(random);
    dout.fill_normal(random);
  }
  Index queries() const { return q.rows().tokens; }
  Index keys() const { return k.rows().tokens; }
  Problem problem;
  Sheet q, k, v, dout;
};

/// Every tier that runs on this machine.
inline std::vector<std::string> runnable_tiers() {
  std::vector<std::string> tiers;
  for (const std::string_view tier : cpu_tiers())
    if (cpu_tier_refusal(tier).empty()) tiers.emplace_back(tier);
  return tiers;
}

/// True for the rows that some tile holds.
inline std::vector<bool> touched(std::span<const Tile> tiles, Index rows, bool keys = false) {
  std::vector<bool> hit(static_cast<std::size_t>(rows));
  for (const Tile& tile : tiles) {
    const Range range = keys ? tile.k : tile.q;
    for (Index i = range.begin; i < range.end; ++i) hit[static_cast<std::size_t>(i)] = true;
  }
  return hit;
}

inline double largest(const Rows& rows) {
  double high = 0;
  for (Index i = 0; i < rows.tokens; ++i)
    for (Index h = 0; h < rows.heads; ++h)
      for (Index c = 0; c < rows.channels; ++c) high = std::max(high, std::abs(number(rows, i, h, c)));
  return high;
}

inline Tile tile(Range q, Range k, Band band = {}) {
  return {.q = q, .k = k, .band = band, .q_at = q.begin, .k_at = k.begin};
}

/// Named tiles over some queries and keys.
struct Layout {
  std::string name;
  Index queries, keys;
  std::vector<Tile> tiles;
};

inline std::vector<Layout> layouts() {
  return {
      {"full", 50, 70, {tile({0, 50}, {0, 70})}},
      {"diagonal", 131, 131, {tile({0, 131}, {0, 131}, {-far, 0})}},
      {"a window narrower than a block", 200, 200, {tile({0, 200}, {0, 200}, {-5, 0})}},
      {"a two-sided window", 60, 150, {tile({0, 60}, {0, 150}, {-3, 90})}},
      {"one row", 3, 300, {tile({1, 2}, {0, 300})}},
      {"one key", 60, 4, {tile({5, 55}, {2, 3})}},
      {"a band far off", 50, 400, {tile({10, 40}, {90, 390}, {250, 270})}},
      {"tiles that share rows",
       110,
       210,
       {tile({0, 100}, {0, 50}), tile({0, 100}, {50, 150}, {-far, 0}), tile({20, 60}, {150, 203}, {-20, 30})}},
      {"documents",
       90,
       90,
       {tile({3, 40}, {3, 40}, {-far, 0}), tile({40, 47}, {40, 47}, {-far, 0}), tile({47, 88}, {47, 88})}},
  };
}

}  // namespace annulus::test
