#pragma once
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "annulus/engine/attention.hpp"
#include "annulus/kernel/reference.hpp"
#include "annulus/memory/device.hpp"

namespace annulus {

/// A whole attention problem in float64 on one machine, written without tiles, plans or kernels: the judge of the
/// engine.
struct Dense {
  AttentionShape shape;
  Mask mask;
  Index queries, keys;
  std::vector<double> q, k, v, dout;                                       // inputs, already rounded to shape.type
  std::vector<double> out, lse, dq, dk, dv;                                // results
  std::vector<double> entropy, max_probability, sink, distance, received;  // statistics
  std::vector<double> probability;                                         // [query, head, key]

  double& at(std::vector<double>& x, Index token, Index head, Index heads, Index c = 0, Index channels = 1) const {
    return x[static_cast<std::size_t>((token * heads + head) * channels + c)];
  }
};

inline void round_to(DType type, std::vector<double>& values) {
  CpuDevice cpu;
  const Index n = static_cast<Index>(values.size());
  Array rounded(cpu, type, n, 1, 1);
  const Rows exact = dense_rows(values.data(), DType::f64, n, 1, 1);
  convert(exact, rounded);
  convert(rounded, exact);
}

inline Dense make_dense(const AttentionShape& shape, const Mask& mask, std::uint64_t seed, double sharpness = 1) {
  Dense d{shape, mask, mask.queries(), mask.keys(), {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  const auto fill = [&](std::vector<double>& x, Index n, double factor) {
    x.resize(static_cast<std::size_t>(n));
    for (double& value : x) value = factor * normal(random);
    round_to(shape.type, x);
  };
  const Index hq = shape.query_heads, hk = shape.kv_heads, c = shape.channels, cv = shape.value_channels;
  fill(d.q, d.queries * hq * c, sharpness);
  fill(d.k, d.keys * hk * c, 1);
  fill(d.v, d.keys * hk * cv, 1);
  fill(d.dout, d.queries * hq * cv, 1);
  const auto zeros = [](std::vector<double>& x, Index n, double value = 0) {
    x.assign(static_cast<std::size_t>(n), value);
  };
  zeros(d.out, d.queries * hq * cv);
  zeros(d.lse, d.queries * hq, -std::numeric_limits<double>::infinity());
  zeros(d.dq, d.queries * hq * c);
  zeros(d.dk, d.keys * hk * c);
  zeros(d.dv, d.keys * hk * cv);
  for (auto* x : {&d.entropy, &d.max_probability, &d.sink, &d.distance}) zeros(*x, d.queries * hq);
  zeros(d.received, d.keys * hq);
  zeros(d.probability, d.queries * hq * d.keys);
  std::vector<double> s(static_cast<std::size_t>(d.keys));
  for (Index i = 0; i < d.queries; ++i)
    for (Index h = 0; h < hq; ++h) {
      const Index g = h / shape.group();
      double top = -std::numeric_limits<double>::infinity(), sum = 0;
      for (Index j = 0; j < d.keys; ++j) {
        if (!mask.visible(i, j)) continue;
        double dot = 0;
        for (Index x = 0; x < c; ++x) dot += d.at(d.q, i, h, hq, x, c) * d.at(d.k, j, g, hk, x, c);
        s[static_cast<std::size_t>(j)] = dot * shape.softmax_scale;
        top = std::max(top, s[static_cast<std::size_t>(j)]);
      }
      for (Index j = 0; j < d.keys; ++j)
        if (mask.visible(i, j)) sum += std::exp(s[static_cast<std::size_t>(j)] - top);
      if (sum == 0) continue;
      const double lse = top + std::log(sum);
      d.at(d.lse, i, h, hq) = lse;
      for (Index j = 0; j < d.keys; ++j) {
        if (!mask.visible(i, j)) continue;
        const double p = std::exp(s[static_cast<std::size_t>(j)] - lse);
        d.probability[static_cast<std::size_t>((i * hq + h) * d.keys + j)] = p;
        for (Index x = 0; x < cv; ++x) d.at(d.out, i, h, hq, x, cv) += p * d.at(d.v, j, g, hk, x, cv);
        d.at(d.entropy, i, h, hq) += p * (lse - s[static_cast<std::size_t>(j)]);
        d.at(d.max_probability, i, h, hq) = std::max(d.at(d.max_probability, i, h, hq), p);
        if (j < 4) d.at(d.sink, i, h, hq) += p;
        d.at(d.distance, i, h, hq) += p * static_cast<double>(std::abs(j - i - mask.query_shift()));
        d.at(d.received, j, h, hq) += p;
      }
      double delta = 0;
      for (Index x = 0; x < cv; ++x) delta += d.at(d.dout, i, h, hq, x, cv) * d.at(d.out, i, h, hq, x, cv);
      for (Index j = 0; j < d.keys; ++j) {
        const double p = d.probability[static_cast<std::size_t>((i * hq + h) * d.keys + j)];
        if (p == 0) continue;
        double dp = 0;
        for (Index x = 0; x < cv; ++x) {
          dp += d.at(d.dout, i, h, hq, x, cv) * d.at(d.v, j, g, hk, x, cv);
          d.at(d.dv, j, g, hk, x, cv) += p * d.at(d.dout, i, h, hq, x, cv);
        }
        const double ds = shape.softmax_scale * p * (dp - delta);
        for (Index x = 0; x < c; ++x) {
          d.at(d.dq, i, h, hq, x, c) += ds * d.at(d.k, j, g, hk, x, c);
          d.at(d.dk, j, g, hk, x, c) += ds * d.at(d.q, i, h, hq, x, c);
        }
      }
    }
  return d;
}

/// A rank's rows of a whole tensor.
inline Array take(Device& device, const std::vector<double>& whole, DType type, const Partition& partition, Rank rank,
                  Index heads, Index channels) {
  Array mine(device, type, partition.rows(rank), heads, channels);
  const Rows all = dense_rows(const_cast<double*>(whole.data()), DType::f64, partition.tokens(), heads, channels);
  for (Index row = 0; row < partition.rows(rank); ++row) {
    const Index at = partition.position(rank, row);
    convert(all.slice(at, at + 1), mine.rows().slice(row, row + 1));
  }
  return mine;
}

/// Largest error of a rank's rows against the whole, over the whole's largest magnitude: max |x - y| / max |y|.
/// Equal infinities agree; anything not finite that should not be is an infinite error.
inline double error_of(const Rows& mine, const std::vector<double>& whole, const Partition& partition, Rank rank) {
  CpuDevice cpu;
  double largest = 0, worst = 0;
  for (double x : whole)
    if (std::isfinite(x)) largest = std::max(largest, std::abs(x));
  Array exact(cpu, DType::f64, mine.tokens, mine.heads, mine.channels);
  convert(mine, exact);
  const Index width = mine.heads * mine.channels;
  for (Index row = 0; row < mine.tokens; ++row)
    for (Index c = 0; c < width; ++c) {
      const double x = exact.elements<double>()[static_cast<std::size_t>(row * width + c)];
      const double y = whole[static_cast<std::size_t>(partition.position(rank, row) * width + c)];
      if (x == y) continue;
      const double error = std::abs(x - y);
      worst = std::isfinite(error) ? std::max(worst, error) : std::numeric_limits<double>::infinity();
    }
  return largest > 0 ? worst / largest : worst;
}

}  // namespace annulus
