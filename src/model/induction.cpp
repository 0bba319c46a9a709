#include "annulus/model/induction.hpp"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "annulus/base/error.hpp"
#include "annulus/memory/device.hpp"
#include "rows_of.hpp"

namespace annulus {
namespace {

constexpr Index channels_per_token = 8;

// Steele, Lea & Flood's splitmix64, used as a counter-based hash.
std::uint64_t mixed(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15U;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

// FNV-1a of the spelling, so that a word has the same code in every corpus and on every rank.
std::uint64_t spelling_hash(std::string_view spelling) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const char letter : spelling) hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3U;
  return mixed(hash);
}

// Nearly Gaussian: the sum of four uniform 16-bit numbers about zero. Integers only, so the same on every machine.
float bell(std::uint64_t bits) {
  const auto lane = [bits](int n) { return static_cast<int>((bits >> (16 * n)) & 0xffffU); };
  return static_cast<float>(lane(0) + lane(1) + lane(2) + lane(3) - 2 * 0xffff) * 0x1p-16F;
}

// Codes of the tokens met so far. A token has one vector; each slice uses its own part of it, so that the noise of
// different places is independent even where one pair of words disagrees in all of them.
class Codes {
 public:
  Codes(const Corpus& corpus, Index longest) : corpus_(corpus), longest_(static_cast<std::size_t>(longest)) {}

  // Writes the token's vector from channel `from` on, made as long as `length`.
  void write(std::uint32_t id, std::size_t from, double length, std::span<float> into) {
    const float* code = find(id) + from;
    double squares = 0;
    for (std::size_t c = 0; c < into.size(); ++c) squares += static_cast<double>(code[c]) * code[c];
    const auto factor = static_cast<float>(squares > 0 ? length / std::sqrt(squares) : 0);
    for (std::size_t c = 0; c < into.size(); ++c) into[c] = code[c] * factor;
  }

 private:
  const float* find(std::uint32_t id) {
    const auto [place, is_new] = known_.try_emplace(id, codes_.size());
    if (is_new) {
      const std::uint64_t seed = spelling_hash(corpus_.spelling(id));
      for (std::size_t c = 0; c < longest_; ++c) codes_.push_back(bell(mixed(seed + c)));
    }
    return codes_.data() + place->second;
  }

  const Corpus& corpus_;
  std::size_t longest_;
  std::unordered_map<std::uint32_t, std::size_t> known_;
  std::vector<float> codes_;
};

// Codes of the `count` tokens that end at `last` (inclusive), as far as they lie in `document`, newest first, each in
// its slice.
void write_context(Codes& codes, const Corpus& corpus, Index last, Range document, Index count, std::span<float> into) {
  std::ranges::fill(into, 0.0F);
  const auto slice = into.size() / static_cast<std::size_t>(count);
  const double length = 1 / std::sqrt(static_cast<double>(count));
  for (Index back = 0; back < count && document.contains(last - back); ++back) {
    const std::size_t from = static_cast<std::size_t>(back) * slice;
    codes.write(corpus.id(last - back), from, length, into.subspan(from, slice));
  }
}

}  // namespace

void InductionModel::check() const {
  require(!context.empty(), "an induction model needs at least one head");
  require(value_channels > 0, "value channels must be positive, not ", value_channels);
  require(softmax_scale > 0, "the softmax scale must be positive, not ", softmax_scale);
  for (const Index tokens : context)
    require(tokens > 0 && channels / tokens >= channels_per_token,
            "an induction head needs 1 or more tokens of context and at least ", channels_per_token,
            " channels for each: context = ", tokens, ", channels = ", channels);
}

std::vector<Index> usual_contexts(TokenKind kind) {
  return kind == TokenKind::bases ? std::vector<Index>{2, 4, 8, 16} : std::vector<Index>{1, 2, 4, 8};
}

InductionModel induction_model(std::vector<Index> contexts) {
  const auto count = static_cast<Index>(contexts.size());
  require(1 <= count && count <= most_contexts, "there may be 1 to ", most_contexts,
          " contexts, a head for each, but there are ", count);
  for (std::size_t h = 0; h < contexts.size(); ++h)
    require((h == 0 ? 0 : contexts[h - 1]) < contexts[h] && contexts[h] <= longest_context,
            "contexts must be different, increasing numbers of 1 to ", longest_context, " tokens, but number ", h + 1, " is ",
            contexts[h]);
  InductionModel model{.context = std::move(contexts)};
  model.channels = std::max(model.channels, channels_per_token * model.context.back());
  return model;
}

double InductionModel::match_tolerance(DType type) {
  // A rounded q.q errs by 2 u sqrt(sum q^4) / sqrt(3) or less, u the unit roundoff; sum q^4 = 3 / channels makes that
  // 0.13 u at 128 channels: 1.25 u is ten standard deviations. f64 and f32 rows hold codes computed in f32.
  switch (type) {
    case DType::f64:
      return 1e-6;
    case DType::f32:
      return 1e-5;
    case DType::f16:
      return 1.25 * 0x1p-11;
    case DType::bf16:
      return 1.25 * 0x1p-8;
  }
  return 0;
}

void embed(const InductionModel& model, const Corpus& corpus, std::span<const Run> runs, const Rows& q, const Rows& k,
           const Rows& v) {
  model.check();
  const Index heads = model.heads();
  const Index rows = rows_of(runs, corpus.tokens());
  require_rows(q, "q", rows, heads, model.channels);
  require_rows(k, "k", rows, heads, model.channels);
  require_rows(v, "v", rows, heads, model.value_channels);

  Codes codes(corpus, std::max(model.channels, model.value_channels));
  std::vector<float> keyed(static_cast<std::size_t>(heads * model.channels)),
      valued(static_cast<std::size_t>(heads * model.value_channels));
  const Rows key_row = dense_rows(keyed.data(), DType::f32, 1, heads, model.channels);
  const Rows value_row = dense_rows(valued.data(), DType::f32, 1, heads, model.value_channels);
  const auto contexts = [&](Index last, Range document, const Rows& into, Index row) {
    if (into.absent()) return;
    for (Index h = 0; h < heads; ++h)
      write_context(codes, corpus, last, document, model.context[static_cast<std::size_t>(h)],
                    {key_row.at<float>(0, h), static_cast<std::size_t>(model.channels)});
    convert(key_row, into.slice(row, row + 1));
  };

  Index row = 0;
  for (const Run& run : runs) {
    for (Index n = 0; n < run.count; ++n, ++row) {
      const Index token = run.at(n);
      const Range own = corpus.document_of(token);
      const bool looks_back = token > 0 && !model.documents_apart;
      contexts(token, own, q, row);
      contexts(token - 1, looks_back ? corpus.document_of(token - 1) : own, k, row);
      if (v.absent()) continue;
      for (Index h = 0; h < heads; ++h)
        codes.write(corpus.id(token), 0, 1,
                    {value_row.at<float>(0, h), static_cast<std::size_t>(model.value_channels)});
      convert(value_row, v.slice(row, row + 1));
    }
  }
}

}  // namespace annulus
