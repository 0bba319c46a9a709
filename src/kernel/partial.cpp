#include "annulus/kernel/partial.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "memory/elements.hpp"

namespace annulus {
namespace {

template <class T>
constexpr T minus_infinity = -std::numeric_limits<T>::infinity();

template <class T>
void reset_scores_as(const Partial& p) {
  clear(p.sum);
  for (Index i = 0; i < p.top.tokens; ++i)
    for (Index h = 0; h < p.top.heads; ++h) *p.top.at<T>(i, h) = minus_infinity<T>;
}

template <class T>
void merge_as(const Partial& from, const Partial& into) {
  for (Index i = 0; i < into.out.tokens; ++i)
    for (Index h = 0; h < into.out.heads; ++h) {
      const T a = *from.top.at<const T>(i, h), more = *from.sum.at<const T>(i, h);
      T &b = *into.top.at<T>(i, h), &sum = *into.sum.at<T>(i, h);
      if (a == minus_infinity<T> && more == 0) continue;  // a sum that is not a number must show, whatever top it has
      const T* x = from.out.at<const T>(i, h);
      T* y = into.out.at<T>(i, h);
      if (b == minus_infinity<T> && sum == 0) {
        b = a;
        sum = more;
        std::copy_n(x, into.out.channels, y);
        continue;
      }
      const T m = std::max(a, b), wa = std::exp(a - m), wb = std::exp(b - m);
      sum = wa * more + wb * sum;
      for (Index c = 0; c < into.out.channels; ++c) y[c] = wa * x[c] + wb * y[c];
      b = m;
    }
}

template <class T>
void finish_as(const Partial& p, const Rows& lse) {
  for (Index i = 0; i < p.out.tokens; ++i)
    for (Index h = 0; h < p.out.heads; ++h) {
      const T sum = *p.sum.at<const T>(i, h), top = *p.top.at<const T>(i, h);
      const bool seen = sum != 0;  // a sum that is not a number must show
      T* out = p.out.at<T>(i, h);
      for (Index c = 0; c < p.out.channels; ++c) out[c] = seen ? out[c] / sum : T{0};
      *lse.at<T>(i, h) = seen ? top + std::log(sum) : minus_infinity<T>;
    }
}

// In eight sums, so that the additions need not wait for one another.
template <class X, class Y>
void row_dot_as(const Rows& dout, const Rows& out, const Rows& delta) {
  constexpr Index lanes = 8;
  const Index whole = out.channels / lanes * lanes;
  for (Index i = 0; i < out.tokens; ++i)
    for (Index h = 0; h < out.heads; ++h) {
      const auto* x = dout.at<const typename X::Stored>(i, h);
      const auto* y = out.at<const typename Y::Stored>(i, h);
      const auto product = [&](Index c) { return double{X::value(x[c])} * double{Y::value(y[c])}; };
      std::array<double, lanes> sums{};
      for (Index c = 0; c < whole; c += lanes)
        for (Index lane = 0; lane < lanes; ++lane) sums[static_cast<std::size_t>(lane)] += product(c + lane);
      double dot = 0;
      for (const double sum : sums) dot += sum;
      for (Index c = whole; c < out.channels; ++c) dot += product(c);
      if (delta.type == DType::f32) *delta.at<float>(i, h) = static_cast<float>(dot);
      if (delta.type == DType::f64) *delta.at<double>(i, h) = dot;
    }
}

void check(const Partial& p) {
  require(
      (p.out.type == DType::f32 || p.out.type == DType::f64) && p.top.type == p.out.type && p.sum.type == p.out.type,
      "a partial must be f32 or f64 throughout");
}

}  // namespace

PartialArray::PartialArray(Device& device, DType type, Index rows, Index heads, Index value_channels)
    : out_(device, type, rows, heads, value_channels),
      top_(device, type, rows, heads, 1),
      sum_(device, type, rows, heads, 1) {
  reset(view());
}

void Kernel::forward_and_finish(std::span<const Tile> tiles, const Rows& q, const KeyValue& kv, const Partial& into) {
  forward(tiles, q, kv, into);
  finish(into, into.top);
}
void Kernel::reset(const Partial& partial) { annulus::reset(partial); }
void Kernel::merge(const Partial& from, const Partial& into) {
  require(into.out.place == Place::cpu, "the kernel ", name(),
          " cannot merge partial results outside host memory: take a strategy in which keys and values travel");
  annulus::merge(from, into);
}
void Kernel::finish(const Partial& partial, const Rows& lse) { annulus::finish(partial, lse); }
void Kernel::row_dot(const Rows& dout, const Rows& out, const Rows& delta) { annulus::row_dot(dout, out, delta); }

void reset_scores(const Partial& partial) {
  check(partial);
  return partial.out.type == DType::f32 ? reset_scores_as<float>(partial) : reset_scores_as<double>(partial);
}

void reset(const Partial& partial) {
  clear(partial.out);
  reset_scores(partial);
}

void merge(const Partial& from, const Partial& into) {
  check(into);
  require(same_shape(from.out, into.out) && from.out.type == into.out.type,
          "partials must have the same shape to merge");
  return into.out.type == DType::f32 ? merge_as<float>(from, into) : merge_as<double>(from, into);
}

void finish(const Partial& partial, const Rows& lse) {
  check(partial);
  require(lse.type == partial.out.type, "lse must have the type of its partial");
  return partial.out.type == DType::f32 ? finish_as<float>(partial, lse) : finish_as<double>(partial, lse);
}

void row_dot(const Rows& dout, const Rows& out, const Rows& delta) {
  require(same_shape(dout, out) && delta.tokens == out.tokens && delta.heads == out.heads,
          "dout must be shaped as out");
  for_type(dout.type, [&](auto x) {
    for_type(out.type, [&](auto y) { row_dot_as<decltype(x), decltype(y)>(dout, out, delta); });
  });
}

}  // namespace annulus
