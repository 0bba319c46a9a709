#pragma once
#include <vector>

#include "annulus/model/similarity.hpp"

namespace annulus::app {

/// A phrase that occurs twice, and the head that found it.
struct Repeat {
  Passage passage;
  Index head = 0;
};

/// Appends the links of one query of head `head`: the best key and every further one of the top keys that is at least a
/// window away from those taken, so that a phrase that occurs many times is linked to several of its places. Links point
/// to the earlier sound whichever way the mask lets queries look.
void append_repeat_links(const SimilarityModel& model, Index head, Index query, const TopKeys& top,
                         std::vector<Link>& links);

/// Tokens of the shortest phrase that can be found.
Index shortest_phrase(const SimilarityModel& model);

/// Phrases that sound alike, longest first. links: by head. Windows of a second and more find phrases (shorter sounds
/// may be alike by chance), the longest window that hears a phrase first; shorter windows then say where it begins and
/// ends, as they overlap less with what stands beside it. least_tokens: the shortest phrase that is kept, at least
/// shortest_phrase().
std::vector<Repeat> repeated_phrases(const SimilarityModel& model, const std::vector<std::vector<Link>>& links,
                                     Index least_tokens);

}  // namespace annulus::app
