#include "annulus/kernel/reference.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "annulus/memory/number.hpp"

// Attention written as it is defined, one pair at a time, in float64:
//   s_ij = scale q_i . k_j        p_ij = exp(s_ij - lse_i)        o_i = sum_j p_ij v_j
//   dp_ij = do_i . v_j            ds_ij = scale p_ij (dp_ij - delta_i)
//   dq_i += ds_ij k_j             dk_j += ds_ij q_i               dv_j += p_ij do_i

namespace annulus {
namespace {

constexpr double nothing = -std::numeric_limits<double>::infinity();

void store(const Rows& rows, Index token, Index head, Index c, double value) {
  if (rows.type == DType::f64) {
    rows.at<double>(token, head)[c] = value;
  } else {
    rows.at<float>(token, head)[c] = static_cast<float>(value);
  }
}

void increase(const Rows& rows, Index token, Index head, Index c, double value) {
  store(rows, token, head, c, number(rows, token, head, c) + value);
}

class Reference final : public Kernel {
 public:
  Reference(const Problem& problem, DType accumulator) : problem_(problem), accumulator_(accumulator) {}
  std::string_view name() const override { return "reference"; }
  const Problem& problem() const override { return problem_; }
  DType accumulator() const override { return accumulator_; }

  void forward(std::span<const Tile> tiles, const Rows& q, const KeyValue& kv, const Partial& into) override {
    std::vector<double> s, o(static_cast<std::size_t>(problem_.value_channels));
    for_each_row(tiles, [&](const Tile& tile, Index i, Index row, Index h) {
      const Range keys = tile.keys_of(i);
      const Index g = problem_.kv_head(h);
      s.clear();
      double m = nothing;
      for (Index j = keys.begin; j < keys.end; ++j) {
        s.push_back(score(q, row, h, kv.k, tile.k.begin + j));
        if (s.back() > m || std::isnan(s.back())) m = s.back();  // not a number stays so
      }
      if (m == nothing) return;  // every score is -inf: no key counts
      double l = 0;
      o.assign(o.size(), 0.0);
      for (Index j = keys.begin; j < keys.end; ++j) {
        const double p = std::exp(s[static_cast<std::size_t>(j - keys.begin)] - m);
        l += p;
        for (Index c = 0; c < problem_.value_channels; ++c)
          o[static_cast<std::size_t>(c)] += p * number(kv.v, tile.k.begin + j, g, c);
      }
      // join (o, l, m) with what the row has met before
      const double before = number(into.top, row, h), top = std::max(before, m);
      const double keep = before == nothing ? 0.0 : std::exp(before - top), join = std::exp(m - top);
      for (Index c = 0; c < problem_.value_channels; ++c)
        store(into.out, row, h, c, keep * number(into.out, row, h, c) + join * o[static_cast<std::size_t>(c)]);
      store(into.sum, row, h, 0, keep * number(into.sum, row, h) + join * l);
      store(into.top, row, h, 0, top);
    });
  }

  void backward(std::span<const Tile> tiles, const Saved& saved, const KeyValue& kv, const Gradients& into) override {
    for_each_row(tiles, [&](const Tile& tile, Index i, Index row, Index h) {
      const Range keys = tile.keys_of(i);
      const Index g = problem_.kv_head(h);
      const double lse = number(saved.lse, row, h), delta = number(saved.delta, row, h);
      if (lse == nothing) return;
      for (Index j = tile.k.begin + keys.begin; j < tile.k.begin + keys.end; ++j) {
        const double p = std::exp(score(saved.q, row, h, kv.k, j) - lse);
        double dp = 0;
        for (Index c = 0; c < problem_.value_channels; ++c) dp += number(saved.dout, row, h, c) * number(kv.v, j, g, c);
        const double ds = problem_.softmax_scale * p * (dp - delta);
        for (Index c = 0; c < problem_.value_channels; ++c)
          increase(into.dv, j, g, c, p * number(saved.dout, row, h, c));
        for (Index c = 0; c < problem_.channels; ++c) {
          increase(into.dq, row, h, c, ds * number(kv.k, j, g, c));
          increase(into.dk, j, g, c, ds * number(saved.q, row, h, c));
        }
      }
    });
  }

  void observe(std::span<const Tile> tiles, const Rows& q, const Rows& k, const Rows& lse,
               const Observation& into) override {
    for_each_row(tiles, [&](const Tile& tile, Index i, Index row, Index h) {
      const Range keys = tile.keys_of(i);
      const double l = number(lse, row, h);
      const Index query = tile.q_at + i * tile.stride;
      for (Index j = keys.begin; j < keys.end; ++j) {
        const Index key = tile.k_at + j * tile.stride;
        const double s = score(q, row, h, k, tile.k.begin + j);
        const double p = s == nothing ? 0.0 : std::exp(s - l);
        if (!into.entropy.absent() && p > 0) increase(into.entropy, row, h, 0, p * (l - s));
        if (!into.max_probability.absent() && p > number(into.max_probability, row, h))
          store(into.max_probability, row, h, 0, p);
        if (!into.sink_mass.absent() && key < into.sink_tokens) increase(into.sink_mass, row, h, 0, p);
        if (!into.mean_distance.absent())
          increase(into.mean_distance, row, h, 0,
                   p * static_cast<double>(std::abs(key - query - problem_.query_shift)));
        if (!into.received.absent()) increase(into.received, tile.k.begin + j, h, 0, p);
        if (!into.block_mass.empty())
          into.block_mass[static_cast<std::size_t>(
              (h * into.query_blocks + query / into.block_tokens) * into.key_blocks + key / into.block_tokens)] += p;
        if (!into.top_score.absent()) rank_key(into, row, h, s, key);
      }
    });
  }

 private:
  double score(const Rows& q, Index row, Index h, const Rows& k, Index key) const {
    const Index g = problem_.kv_head(h);
    double dot = 0;
    for (Index c = 0; c < problem_.channels; ++c) dot += number(q, row, h, c) * number(k, key, g, c);
    return problem_.softmax_scale * dot;
  }

  // Puts the key into the row's sorted list if it belongs there. What the list's type rounds to the same is a tie.
  static void rank_key(const Observation& into, Index row, Index h, double exact, Index key) {
    const double s = into.top_score.type == DType::f64 ? exact : static_cast<double>(static_cast<float>(exact));
    const Index k = into.top_score.channels;
    Index* indices = &into.top_index[static_cast<std::size_t>((row * into.top_score.heads + h) * k)];
    const auto before = [&](Index place) {  // does the list's entry come before (s, key)?
      const double other = number(into.top_score, row, h, place);
      return indices[place] >= 0 && (other > s || (other == s && indices[place] < key));
    };
    if (k == 0 || s == nothing || before(k - 1)) return;
    Index place = k - 1;
    for (; place > 0 && !before(place - 1); --place) {
      store(into.top_score, row, h, place, number(into.top_score, row, h, place - 1));
      indices[place] = indices[place - 1];
    }
    store(into.top_score, row, h, place, s);
    indices[place] = key;
  }

  template <class Work>
  void for_each_row(std::span<const Tile> tiles, const Work& work) const {
    for (const Tile& tile : tiles)
      for (Index i = 0; i < tile.q.count(); ++i)
        for (Index h = 0; h < problem_.query_heads; ++h) work(tile, i, tile.q.begin + i, h);
  }

  Problem problem_;
  DType accumulator_;
};

}  // namespace

std::unique_ptr<Kernel> make_reference_kernel(const Problem& problem, DType accumulator) {
  return std::make_unique<Reference>(problem, accumulator);
}

}  // namespace annulus
