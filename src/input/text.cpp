#include "annulus/input/text.hpp"

#include <algorithm>
#include <cctype>
#include <utility>

#include "annulus/base/error.hpp"
#include "input/distinct_files.hpp"
#include "input/fasta.hpp"
#include "input/text_file.hpp"
#include "input/words.hpp"

namespace annulus {
namespace {

constexpr std::string_view kinds[] = {"words", "bytes", "bases"};  // as TokenKind

bool is_fasta_name(const std::string& file) {
  static constexpr std::string_view endings[] = {".fa", ".fasta", ".fna", ".ffn", ".frn", ".faa"};
  std::string name = file;
  for (char& letter : name) letter = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  for (const std::string_view packed : {".gz", ".bgz"})
    if (name.ends_with(packed)) name.resize(name.size() - packed.size());
  return std::ranges::any_of(endings, [&](std::string_view ending) { return name.ends_with(ending); });
}

char upper(char letter) { return letter >= 'a' && letter <= 'z' ? static_cast<char>(letter - 'a' + 'A') : letter; }

}  // namespace

std::string_view name_of(TokenKind kind) { return kinds[static_cast<std::size_t>(kind)]; }

TokenKind parse_token_kind(std::string_view name) {
  const auto* const found = std::ranges::find(kinds, name);
  require(found != std::end(kinds), "tokens are words, bytes or bases, not ", name);
  return static_cast<TokenKind>(found - kinds);
}

TokenKind usual_token_kind(std::span<const std::string> files) {
  const auto fasta = std::ranges::find_if(files, is_fasta_name), other = std::ranges::find_if_not(files, is_fasta_name);
  if (fasta == files.end()) return TokenKind::words;
  require(other == files.end(), "FASTA and other texts do not go into one sequence by themselves, and by their names ",
          *fasta, " is FASTA and ", *other, " is not: --tokens words, bytes or bases reads all of them alike");
  return TokenKind::bases;
}

Corpus::Corpus(std::span<const std::string> files, TokenKind kind) : kind_(kind) {
  known_letters_.fill(-1);
  for (const std::string& path : distinct_files(files)) {
    files_.push_back(path);
    first_document_.push_back(documents());
    read(path);
  }
  find_shared_names();
  const auto most = std::ranges::max_element(counts_);
  most_frequent_ = static_cast<std::uint32_t>(most - counts_.begin());
}

void Corpus::read(const std::string& path) {
  TextFile file(path);
  if (kind_ == TokenKind::bases)
    return read_fasta(file,
                      {.record =
                           [this](std::string name) {
                             begin_document();
                             names_.push_back(std::move(name));
                           },
                       .residues = [this](std::string_view residues, Index at) { append_residues(residues, at); }});
  begin_document();
  read_text(file, kind_, [this](std::string_view spelling, Index begin, Index end) {
    if (kind_ == TokenKind::words) append(spelling, begin, end);
    else append_letter(spelling.front());
  });
}

// The last offset is the end of the last document, and moves with each token.
void Corpus::begin_document() { offsets_.push_back(tokens()); }

void Corpus::append(std::string_view word, Index begin, Index end) {
  const auto [place, is_new] =
      known_words_.try_emplace(std::string(word), static_cast<std::uint32_t>(spelling_.size()));
  if (is_new) {
    spelling_.emplace_back(word);
    counts_.push_back(0);
  }
  ++counts_[place->second];
  word_ids_.push_back(place->second);
  begins_.push_back(begin);
  ends_.push_back(end);
  ++offsets_.back();
}

void Corpus::append_letter(char letter) {
  std::int16_t& id = known_letters_[static_cast<unsigned char>(letter)];
  if (id < 0) {
    id = static_cast<std::int16_t>(spelling_.size());
    spelling_.emplace_back(1, letter);
    counts_.push_back(0);
  }
  ++counts_[static_cast<std::size_t>(id)];
  letter_ids_.push_back(static_cast<std::uint8_t>(id));
  ++offsets_.back();
}

void Corpus::append_residues(std::string_view residues, Index at) {
  const bool first = offsets_.end()[-2] == tokens();
  if (first || at - tokens() != stretches_.back().byte - stretches_.back().token) stretches_.push_back({tokens(), at});
  for (const char residue : residues) append_letter(upper(residue));
}

void Corpus::find_shared_names() {
  shares_name_.resize(names_.size());
  for (std::size_t f = 0; kind_ == TokenKind::bases && f < files_.size(); ++f) {
    const Index end = f + 1 < files_.size() ? first_document_[f + 1] : documents();
    std::unordered_map<std::string_view, std::size_t> known;
    for (auto d = static_cast<std::size_t>(first_document_[f]); d < static_cast<std::size_t>(end); ++d) {
      const auto [other, is_new] = known.try_emplace(names_[d], d);
      if (!is_new) shares_name_[d] = shares_name_[other->second] = true;
    }
  }
}

std::vector<std::uint32_t> Corpus::ids() const {
  if (kind_ == TokenKind::words) return word_ids_;
  return {letter_ids_.begin(), letter_ids_.end()};
}

std::size_t Corpus::file_of(Index document) const {
  return static_cast<std::size_t>(std::ranges::upper_bound(first_document_, document) - first_document_.begin() - 1);
}

std::string Corpus::title(Index document) const {
  if (kind_ != TokenKind::bases) return path(document);
  const std::string file = files_.size() > 1 ? path(document) + ", " : "";
  const std::string record = sentence("record ", document - first_document_[file_of(document)] + 1);
  if (name(document).empty()) return file + record;
  return file + name(document) + (shares_name_[static_cast<std::size_t>(document)] ? ", " + record : "");
}

Index Corpus::document(Index token) const { return std::ranges::upper_bound(offsets_, token) - offsets_.begin() - 1; }

Range Corpus::document_of(Index token) const {
  const auto d = static_cast<std::size_t>(document(token));
  return {offsets_[d], offsets_[d + 1]};
}

Index Corpus::byte_begin(Index token) const {
  switch (kind_) {
    case TokenKind::words:
      return begins_[static_cast<std::size_t>(token)];
    case TokenKind::bytes:
      return token - document_of(token).begin;
    case TokenKind::bases:
      break;
  }
  const Stretch& stretch = *std::prev(std::ranges::upper_bound(stretches_, token, {}, &Stretch::token));
  return stretch.byte + token - stretch.token;
}

Index Corpus::byte_end(Index token) const {
  return kind_ == TokenKind::words ? ends_[static_cast<std::size_t>(token)] : byte_begin(token) + 1;
}

ByteRange Corpus::bytes(Range tokens) const {
  require(0 <= tokens.begin && tokens.begin < tokens.end && tokens.end <= document_of(tokens.begin).end,
          "a range of bytes needs tokens of one document, not ", tokens.begin, " to ", tokens.end);
  return {document(tokens.begin), byte_begin(tokens.begin), byte_end(tokens.end - 1)};
}

}  // namespace annulus
