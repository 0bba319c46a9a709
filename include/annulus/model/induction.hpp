#pragma once
#include <span>
#include <vector>

#include "annulus/geometry/range.hpp"
#include "annulus/input/text.hpp"
#include "annulus/memory/rows.hpp"

namespace annulus {

/// The induction head in closed form (Elhage et al. 2021, Olsson et al. 2022): heads that need no training and attend
/// to what followed earlier occurrences of the present context. Head h with N = context[h]:
///
///   tokens      ... a b c d ... a b c          N = 2
///   query i               "b c" ^              codes of tokens i, i-1, ..., i-N+1
///   key j             ^ d: "b c"               codes of tokens j-1, ..., j-N
///   value j           ^ d                      code of token j: what comes next
///
/// A code is a fixed pseudo-random vector of a token's spelling. Position tags are by concatenation: the code of the
/// a-th token back fills its own slice of channels / N channels, so that q.k = (places that match) / N, exactly 1 up to
/// rounding for the same N tokens, plus noise of standard deviation below 1 / sqrt(channels - N) from the others. A
/// context ends where its document begins; missing tokens are zeros, so short contexts never score 1.
struct InductionModel {
  std::vector<Index> context = {1, 2, 4, 8};  ///< tokens of context of each head
  Index channels = 128;                       ///< of q and k; at least 8 per token of context
  Index value_channels = 64;
  /// Why 64: a random key scores x ~ N(0, 1/128), so 10^6 of them weigh 10^6 exp(64^2 / 256 - 64) = 2e-15 of one full
  /// match; 7 of 8 tokens weigh exp(-64/8) = 3e-4 of 8; and f32 rounding of q.k = 1 (1e-6) moves a weight by less than
  /// 1e-4.
  double softmax_scale = 64;
  /// With a mask that keeps documents apart: the first key of a document knows nothing of the document before it.
  /// Otherwise it knows the end of that document, so that a quotation that ends a file is found to its last token.
  bool documents_apart = false;

  Index heads() const { return static_cast<Index>(context.size()); }
  /// Throws Error (usage) that names the rule when heads, contexts or channels are out of range.
  void check() const;
  /// How far a full match's q.k may be from 1 in this type: 128 products of rounded numbers, ten standard deviations.
  static double match_tolerance(DType type);
};

/// Contexts that suit a kind of token: 1, 2, 4, 8; of bases, of which there are few, 2, 4, 8, 16.
std::vector<Index> usual_contexts(TokenKind kind);
inline constexpr Index most_contexts = 8,
                       longest_context = 64;  ///< the channels of 64 tokens are as many as kernels take
/// The model with these contexts, in as many channels as the longest needs where that is more than 128. Throws Error
/// (usage) unless they are 1 to 8 increasing numbers from 1 to 64.
InductionModel induction_model(std::vector<Index> contexts);

/// Fills the rows of the tokens at `runs`, run after run, on the CPU, rounding to the rows' type.
/// q, k [rows, heads, channels], v [rows, heads, value_channels]; an absent view is not wanted.
/// Cost: one code per distinct token of the runs is kept meanwhile (4 bytes x the larger of the channels).
/// Throws Error (usage) when shapes do not fit the model or a run leaves the corpus.
void embed(const InductionModel& model, const Corpus& corpus, std::span<const Run> runs, const Rows& q, const Rows& k,
           const Rows& v);

}  // namespace annulus
