#pragma once
#include <span>
#include <string>
#include <vector>

#include "annulus/geometry/range.hpp"
#include "annulus/input/text.hpp"
#include "annulus/model/induction.hpp"
#include "annulus/model/prediction.hpp"

namespace annulus {

/// Attention says that the tokens that end at `first` are like those that end at `second` (both inclusive, first <
/// second), over `tokens` tokens each.
struct Link {
  Index first = 0, second = 0;
  Index tokens = 1;
  float score = 0;        ///< q.k without the softmax scale: 1 is the same
  float probability = 0;  ///< exp(scale * score - lse)
};

/// Two stretches of the sequence that are alike; half-open token ranges, first the earlier one.
struct Passage {
  Range first, second;
  Index links = 0;        ///< links that were merged
  double mean_score = 0;  ///< of those links
  Index tokens() const { return second.count(); }
};

struct MergeRules {
  Index gap = 0;      ///< positions that may lack a link between two links of one passage
  Index wobble = 0;   ///< tokens by which second - first may change from one link to the next (tempo)
  Index minimum = 1;  ///< shortest passage that is kept, in tokens of its shorter side
  /// Where documents begin (first 0, last tokens; empty: one document): a passage's links stay in one document on each
  /// side.
  std::span<const Index> documents = {};
};

/// Joins links that follow one another on the same diagonal (second - first) into passages. A passage that lies inside
/// another one on both sides is dropped. Sorted by length, longest first; ties by second, then first.
/// The links may come in any order and from any rank, and may repeat; the result does not depend on their order.
std::vector<Passage> merge_links(std::vector<Link> links, const MergeRules& rules);

/// Appends the links of one query of head `head` that are exact matches: q.k within match_tolerance(type) of 1, and the
/// tokens the same, which a near miss in 16 bits is not. These are exactly the pairs "the N tokens that end at the query
/// occurred before, and end at key - 1", as far as the top keys reach.
void append_exact_links(const InductionModel& model, const Corpus& corpus, Index head, Index query, const TopKeys& top,
                        DType type, std::vector<Link>& links);

/// Whether a stretch is one token over and over, as unknown bases (NNNN) and runs of one base are: it is like any other
/// such stretch, and shifted by one like itself.
bool is_monotone(const Corpus& corpus, Range tokens);

/// "file A, bytes 1200-1890 <-> file B, bytes 300-980, 97 words"; bytes are half-open. Bases by their positions in the
/// record, from 1 and with the last, as sequence formats count: "chr1, bases 1,201-1,890 <-> chr2, bases 301-990, 690
/// bases".
std::string describe(const Passage& passage, const Corpus& corpus);

}  // namespace annulus
