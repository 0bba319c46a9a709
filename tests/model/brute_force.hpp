#pragma once
#include <cmath>
#include <vector>

#include "annulus/geometry/mask.hpp"
#include "annulus/geometry/meet.hpp"
#include "annulus/kernel/partial.hpp"
#include "annulus/kernel/reference.hpp"
#include "annulus/memory/device.hpp"
#include "annulus/model/prediction.hpp"

namespace annulus {

/// Attention of a whole short sequence by the reference kernel in one place: the top keys of every query and head.
class BruteForce {
 public:
  BruteForce(const Rows& q, const Rows& k, const Rows& v, const Mask& mask, double softmax_scale, Index top_k)
      : top_k_(top_k),
        heads_(q.heads),
        lse_(device_, DType::f64, q.tokens, q.heads, 1),
        scores64_(device_, DType::f64, q.tokens, q.heads, top_k),
        scores_(device_, DType::f32, q.tokens, q.heads, top_k),
        keys_(static_cast<std::size_t>(q.tokens * q.heads * top_k), -1) {
    const Problem problem{.query_heads = q.heads,
                          .kv_heads = k.heads,
                          .channels = q.channels,
                          .value_channels = v.channels,
                          .type = q.type,
                          .softmax_scale = softmax_scale};
    const auto kernel = make_reference_kernel(problem);
    const annulus::Run queries{0, q.tokens, 1}, keys{0, k.tokens, 1};
    const auto tiles = meet({&queries, 1}, {&keys, 1}, mask);
    const PartialArray partial(device_, DType::f64, q.tokens, q.heads, v.channels);
    kernel->forward(tiles, q, {k, v}, partial.view());
    finish(partial.view(), lse_);
    for (double& score : scores64_.elements<double>()) score = -INFINITY;
    Observation observation;
    observation.top_score = scores64_;
    observation.top_index = keys_;
    kernel->observe(tiles, q, k, lse_, observation);
    convert(scores64_, scores_);
  }

  TopKeys top(Index query, Index head) const {
    const auto at = static_cast<std::size_t>((query * heads_ + head) * top_k_),
               count = static_cast<std::size_t>(top_k_);
    return {std::span(keys_).subspan(at, count), scores_.elements<float>().subspan(at, count),
            *lse_.rows().at<double>(query, head)};
  }

 private:
  CpuDevice device_;
  Index top_k_, heads_;
  Array lse_, scores64_, scores_;
  std::vector<Index> keys_;
};

}  // namespace annulus
