#include "annulus/model/passages.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"

namespace annulus {
namespace {

Index document_at(std::span<const Index> documents, Index token) {
  return std::ranges::upper_bound(documents, token) - documents.begin();
}

// A passage that may still grow, and the link it would grow from.
struct Open {
  Passage passage;
  double score_sum = 0;
  Link last;

  explicit Open(const Link& link)
      : passage{{link.first + 1 - link.tokens, link.first + 1}, {link.second + 1 - link.tokens, link.second + 1}, 1, 0},
        score_sum(link.score),
        last(link) {}
  Index diagonal() const { return last.second - last.first; }

  bool can_take(const Link& link, const MergeRules& rules) const {
    return link.second - last.second <= 1 + rules.gap && link.first >= last.first &&
           document_at(rules.documents, link.first) == document_at(rules.documents, last.first) &&
           document_at(rules.documents, link.second) == document_at(rules.documents, last.second);
  }
  void take(const Link& link) {
    passage.first = {std::min(passage.first.begin, link.first + 1 - link.tokens),
                     std::max(passage.first.end, link.first + 1)};
    passage.second = {std::min(passage.second.begin, link.second + 1 - link.tokens),
                      std::max(passage.second.end, link.second + 1)};
    ++passage.links;
    score_sum += link.score;
    last = link;
  }
  Passage closed() const {
    Passage result = passage;
    result.mean_score = score_sum / static_cast<double>(passage.links);
    return result;
  }
};

// Passages that grow, one per diagonal. Links arrive sorted by second.
class Growing {
 public:
  explicit Growing(const MergeRules& rules) : rules_(rules) {}

  void take(const Link& link) {
    const Index diagonal = link.second - link.first;
    const auto best = nearest(link, diagonal);
    if (best == open_.end()) return put(diagonal, Open(link));
    Open grown = best->second;
    open_.erase(best);
    grown.take(link);
    put(diagonal, grown);
  }
  std::vector<Passage> finish() {
    for (const auto& [diagonal, open] : open_) close(open);
    open_.clear();
    return std::move(done_);
  }

 private:
  using Map = std::map<Index, Open>;

  // The passage the link continues: the closest diagonal, then the longest.
  Map::iterator nearest(const Link& link, Index diagonal) {
    auto best = open_.end();
    const auto rank = [&](const Open& open) {
      return std::tuple(std::abs(open.diagonal() - diagonal), -open.passage.tokens());
    };
    for (auto it = open_.lower_bound(diagonal - rules_.wobble);
         it != open_.end() && it->first <= diagonal + rules_.wobble; ++it)
      if (it->second.can_take(link, rules_) && (best == open_.end() || rank(it->second) < rank(best->second)))
        best = it;
    return best;
  }
  // A diagonal holds one open passage: the newer one grows on, what stood there is done.
  void put(Index diagonal, const Open& open) {
    const auto [place, is_new] = open_.try_emplace(diagonal, open);
    if (is_new) return;
    close(place->second);
    place->second = open;
  }
  void close(const Open& open) {
    const Passage passage = open.closed();
    if (std::min(passage.first.count(), passage.second.count()) >= rules_.minimum) done_.push_back(passage);
  }

  const MergeRules& rules_;
  Map open_;
  std::vector<Passage> done_;
};

// Whether the `count` tokens that end at `a` are those that end at `b`, each within its document.
bool same_tokens(const Corpus& corpus, Index a, Index b, Index count) {
  if (a + 1 - count < corpus.document_of(a).begin || b + 1 - count < corpus.document_of(b).begin) return false;
  for (Index back = 0; back < count; ++back)
    if (corpus.id(a - back) != corpus.id(b - back)) return false;
  return true;
}

bool inside(Range inner, Range outer) { return outer.begin <= inner.begin && inner.end <= outer.end; }

// Only passages whose second side covers the present one's begin can contain it, and few do at any place.
std::vector<Passage> without_contained(std::vector<Passage> passages) {
  std::ranges::sort(passages, {}, [](const Passage& p) {
    return std::tuple(p.second.begin, -p.second.end, p.first.begin, -p.first.end);
  });
  std::vector<Passage> kept, covering;
  for (const Passage& passage : passages) {
    std::erase_if(covering, [&](const Passage& p) { return p.second.end <= passage.second.begin; });
    if (std::ranges::any_of(covering, [&](const Passage& p) {
          return inside(passage.second, p.second) && inside(passage.first, p.first);
        }))
      continue;
    kept.push_back(passage);
    covering.push_back(passage);
  }
  return kept;
}

}  // namespace

std::vector<Passage> merge_links(std::vector<Link> links, const MergeRules& rules) {
  require(rules.gap >= 0 && rules.wobble >= 0, "gap and wobble must not be negative: gap = ", rules.gap,
          ", wobble = ", rules.wobble);
  const auto place = [](const Link& link) { return std::tuple(link.second, link.first, -link.tokens, -link.score); };
  std::ranges::sort(links, {}, place);
  Growing growing(rules);
  for (const Link& link : links) growing.take(link);
  std::vector<Passage> passages = without_contained(growing.finish());
  std::ranges::sort(passages, {},
                    [](const Passage& p) { return std::tuple(-p.tokens(), p.second.begin, p.first.begin); });
  return passages;
}

void append_exact_links(const InductionModel& model, const Corpus& corpus, Index head, Index query, const TopKeys& top,
                        DType type, std::vector<Link>& links) {
  const double tolerance = InductionModel::match_tolerance(type);
  const Index tokens = model.context.at(static_cast<std::size_t>(head));
  for (std::size_t n = 0; n < top.keys.size() && top.keys[n] >= 0; ++n) {
    const double scaled = top.scores[n], score = scaled / model.softmax_scale;
    const Index first = top.keys[n] - 1;
    if (std::abs(score - 1) > tolerance || first < 0 || !same_tokens(corpus, first, query, tokens)) continue;
    links.push_back({first, query, tokens, static_cast<float>(score), static_cast<float>(std::exp(scaled - top.lse))});
  }
}

bool is_monotone(const Corpus& corpus, Range tokens) {
  for (Index token = tokens.begin; token < tokens.end; ++token)
    if (corpus.id(token) != corpus.id(tokens.begin)) return false;
  return true;
}

std::string describe(const Passage& passage, const Corpus& corpus) {
  const auto side = [&](Range tokens) {
    const ByteRange bytes = corpus.bytes(tokens);
    const std::string title = corpus.title(bytes.document);
    if (corpus.kind() != TokenKind::bases) return sentence(title, ", bytes ", bytes.begin, "-", bytes.end);
    const Index first = corpus.offsets()[static_cast<std::size_t>(bytes.document)];
    return sentence(title, ", bases ", grouped(tokens.begin - first + 1), "-", grouped(tokens.end - first));
  };
  const bool grouping = corpus.kind() == TokenKind::bases;
  return sentence(side(passage.first), " <-> ", side(passage.second), ", ",
                  grouping ? grouped(passage.tokens()) : sentence(passage.tokens()), " ", name_of(corpus.kind()));
}

}  // namespace annulus
