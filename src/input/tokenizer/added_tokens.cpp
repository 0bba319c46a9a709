#include "input/tokenizer/added_tokens.hpp"

#include <algorithm>
#include <set>
#include <unordered_set>
#include <utility>

#include "input/tokenizer/characters.hpp"

namespace annulus {
namespace {

bool ends_with_word(std::string_view text) {
  return !text.empty() && is_word(character_at(text, character_before(text, text.size())).code);
}
bool begins_with_word(std::string_view text) { return !text.empty() && is_word(character_at(text, 0).code); }

std::size_t without_white_end(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0) {
    const std::size_t last = character_before(text, end);
    if (!is_white_space(character_at(text, last).code)) break;
    end = last;
  }
  return end;
}
std::size_t behind_white(std::string_view text, std::size_t at) {
  while (at < text.size() && is_white_space(character_at(text, at).code)) at += character_at(text, at).bytes;
  return at;
}

AddedToken read_token(const Node& node) {
  AddedToken token;
  token.content = node.at("content").text();
  token.id = node.at("id").id();
  token.special = node.at("special").flag_or(false);
  token.single_word = node.at("single_word").flag_or(false);
  token.lstrip = node.at("lstrip").flag_or(false);
  token.rstrip = node.at("rstrip").flag_or(false);
  token.normalized = node.at("normalized").flag_or(!token.special);
  return token;
}

}  // namespace

std::vector<AddedToken> read_added_tokens(const Node& node, const Vocabulary& vocabulary) {
  std::vector<AddedToken> tokens;
  if (node.is_null()) return tokens;
  std::set<std::string> seen;
  std::unordered_set<std::uint32_t> taken;
  for (const auto& [token, id] : vocabulary.ids) taken.insert(id);
  for (std::size_t n = 0; n < node.entries(); ++n) {
    AddedToken token = read_token(node.entry(n));
    if (token.content.empty()) continue;
    if (const auto known = id_in(vocabulary.ids, token.content))
      node.entry(n).require(*known == token.id, "gives ", quoted(token.content), " the id ", token.id,
                            ", and the vocabulary gives it ", *known);
    else
      node.entry(n).require(!taken.contains(token.id), "gives ", quoted(token.content), " the id ", token.id,
                            ", which the vocabulary gives another token");
    node.entry(n).require(seen.insert(token.content).second, "gives ", quoted(token.content), " once more");
    tokens.push_back(std::move(token));
  }
  std::stable_partition(tokens.begin(), tokens.end(), [](const AddedToken& token) { return token.special; });
  return tokens;
}

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens, const Normalizer* normalizer)
    : tokens_(std::move(tokens)) {
  for (std::uint32_t n = 0; n < tokens_.size(); ++n) {
    const std::string content = normalizer != nullptr ? normalizer->apply(tokens_[n].content) : tokens_[n].content;
    if (content.empty()) continue;  // it would be everywhere
    begins_[static_cast<unsigned char>(content[0])] = true;
    contents_.add(content, n);
  }
}

std::optional<AddedTokenFinder::Match> AddedTokenFinder::longest_at(std::string_view text, std::size_t at) const {
  std::optional<Match> longest;
  contents_.find(text, at, [&](std::uint32_t token, std::size_t end) { longest = {token, end}; });
  return longest;
}

void AddedTokenFinder::split(std::string_view text, const std::function<void(Bytes)>& between,
                             const std::function<void(const Found&)>& token) const {
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    if (!begins_[static_cast<unsigned char>(text[at])]) {
      ++at;
      continue;
    }
    const std::optional<Match> match = longest_at(text, at);
    if (!match) {
      ++at;
      continue;
    }
    const AddedToken& found = tokens_[match->token];
    Bytes bytes = {at, match->end};
    at = match->end;
    if (found.single_word && (ends_with_word(text.substr(0, bytes.begin)) || begins_with_word(text.substr(bytes.end))))
      continue;
    if (found.lstrip) bytes.begin = std::max(without_white_end(text.substr(0, bytes.begin)), done);
    if (found.rstrip) bytes.end = behind_white(text, bytes.end);
    if (done < bytes.begin) between({done, bytes.begin});
    token({found.id, bytes});
    done = bytes.end;
  }
  if (done < text.size()) between({done, text.size()});
}

}  // namespace annulus
