#include "app/repeats.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>
#include <utility>

namespace annulus::app {
namespace {

constexpr double trusted_seconds = 1;     // shorter windows sharpen what longer ones find
constexpr double sharpest_seconds = 0.4;  // still shorter ones are alike too often
constexpr Index drift_tokens = 3;         // by which two windows may place the same phrase differently

double window_seconds(const SimilarityModel& model, Index head) {
  return static_cast<double>(model.windows[static_cast<std::size_t>(head)]) * model.frame_seconds;
}

Index diagonal(const Passage& p) { return p.second.begin - p.first.begin; }

bool same_phrase(const Passage& a, const Passage& b) {
  return std::abs(diagonal(a) - diagonal(b)) <= drift_tokens && !overlap(a.second, b.second).empty();
}

// Moves the ends to those of the finer passages, unless they disagree by more than `most` tokens: then noise has cut
// the finer ones short.
void sharpen(Passage& phrase, const std::vector<const Passage*>& finer, Index most) {
  if (finer.empty()) return;
  const auto begin = [](const Passage* p) { return p->second.begin; };
  const auto end = [](const Passage* p) { return p->second.end; };
  const Passage& first = **std::ranges::min_element(finer, {}, begin);
  const Passage& last = **std::ranges::max_element(finer, {}, end);
  if (std::abs(first.second.begin - phrase.second.begin) <= most)
    phrase.first.begin = first.first.begin, phrase.second.begin = first.second.begin;
  if (std::abs(last.second.end - phrase.second.end) <= most)
    phrase.first.end = last.first.end, phrase.second.end = last.second.end;
}

}  // namespace

void append_repeat_links(const SimilarityModel& model, Index head, Index query, const TopKeys& top,
                         std::vector<Link>& links) {
  const std::size_t before = links.size();
  std::vector<Index> taken;
  for (std::size_t n = 0; n < top.keys.size() && top.keys[n] >= 0; ++n) {
    const auto is_near = [&](Index key) { return std::abs(key - top.keys[n]) < model.window_tokens(head); };
    if (std::ranges::any_of(taken, is_near)) continue;
    taken.push_back(top.keys[n]);
    append_similar_link(model, head, query, {top.keys.subspan(n), top.scores.subspan(n), top.lse}, links);
  }
  for (std::size_t n = before; n < links.size(); ++n)
    if (links[n].first > links[n].second) std::swap(links[n].first, links[n].second);
}

Index shortest_phrase(const SimilarityModel& model) {
  Index shortest = far;
  for (Index h = 0; h < model.heads(); ++h)
    if (window_seconds(model, h) >= trusted_seconds) shortest = std::min(shortest, similarity_rules(model, h).minimum);
  return shortest;
}

std::vector<Repeat> repeated_phrases(const SimilarityModel& model, const std::vector<std::vector<Link>>& links,
                                     Index least_tokens) {
  std::vector<Index> heads(static_cast<std::size_t>(model.heads()));
  std::iota(heads.begin(), heads.end(), Index{0});
  std::ranges::stable_sort(heads, std::greater{}, [&](Index h) { return window_seconds(model, h); });

  std::vector<Repeat> repeats;
  Index coarser = model.longest_window_tokens();
  for (const Index head : heads) {
    if (window_seconds(model, head) < sharpest_seconds) break;
    const std::vector<Passage> passages =
        merge_links(links[static_cast<std::size_t>(head)], similarity_rules(model, head));
    std::vector<bool> known(passages.size());
    for (Repeat& repeat : repeats) {
      std::vector<const Passage*> finer;
      for (std::size_t n = 0; n < passages.size(); ++n)
        if (same_phrase(repeat.passage, passages[n])) finer.push_back(&passages[n]), known[n] = true;
      sharpen(repeat.passage, finer, coarser / 2);
    }
    if (window_seconds(model, head) >= trusted_seconds)
      for (std::size_t n = 0; n < passages.size(); ++n)
        if (!known[n] &&
            std::ranges::none_of(repeats, [&](const Repeat& r) { return same_phrase(r.passage, passages[n]); }))
          repeats.push_back({passages[n], head});
    coarser = model.window_tokens(head);
  }
  // In an hour of random tones, 19 of 22 phrases were shorter than this once sharpened: alike by chance.
  const Index least = std::max(least_tokens, shortest_phrase(model));
  std::erase_if(repeats, [&](const Repeat& r) { return r.passage.tokens() < least; });
  std::ranges::sort(repeats, {}, [](const Repeat& r) {
    return std::tuple(-r.passage.tokens(), r.passage.second.begin, r.passage.first.begin);
  });
  return repeats;
}

}  // namespace annulus::app
