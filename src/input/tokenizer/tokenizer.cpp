#include "annulus/input/tokenizer.hpp"

#include <algorithm>
#include <filesystem>
#include <unordered_map>
#include <utility>

#include "annulus/base/error.hpp"
#include "input/tokenizer/added_tokens.hpp"
#include "input/tokenizer/characters.hpp"
#include "input/tokenizer/model.hpp"
#include "input/tokenizer/normalizer.hpp"
#include "input/tokenizer/post_processor.hpp"
#include "input/tokenizer/pre_tokenizer.hpp"
#include "input/tokenizer/spelling.hpp"

namespace annulus {

struct Tokenizer::Parts {
  explicit Parts(const std::string& path) : Parts(path, read_json(path)) {}
  Parts(const std::string& path, const nlohmann::json& document);

  std::string file;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Vocabulary vocabulary;
  std::unique_ptr<Model> model;
  std::vector<AddedToken> added;
  AddedTokenFinder as_written, as_normalized;
  Surroundings surroundings;
  std::unordered_map<std::uint32_t, std::string> spellings;
};

namespace {

std::vector<AddedToken> those(const std::vector<AddedToken>& tokens, bool normalized) {
  std::vector<AddedToken> some;
  std::ranges::copy_if(tokens, std::back_inserter(some),
                       [&](const AddedToken& token) { return token.normalized == normalized; });
  return some;
}

}  // namespace

Tokenizer::Parts::Parts(const std::string& path, const nlohmann::json& document)
    : file(path),
      normalizer(read_normalizer(Node(document, file).at("normalizer"))),
      pre_tokenizer(read_pre_tokenizer(Node(document, file).at("pre_tokenizer"))),
      model(read_model(Node(document, file).at("model"), pre_tokenizer.bytes, vocabulary)),
      added(read_added_tokens(Node(document, file).at("added_tokens"), vocabulary)),
      as_written(those(added, false), nullptr),
      as_normalized(those(added, true), &normalizer),
      surroundings(read_post_processor(Node(document, file).at("post_processor"))) {
  const Speller speller(Node(document, file), pre_tokenizer, normalizer);
  for (const auto& [token, id] : vocabulary.ids) spellings[id] = speller.spell(token);
  for (const AddedToken& token : added) {
    spellings[token.id] = token.content;
    vocabulary.end = std::max(vocabulary.end, token.id + 1);
  }
  vocabulary.ids.clear();  // the model has what it needs
}

namespace {

// One text on its way through the parts.
class Encoding {
 public:
  Encoding(const std::string& file, const PreTokenizer& pre_tokenizer, const Model& model)
      : file_(file), pre_tokenizer_(pre_tokenizer), model_(model) {}

  void add(std::uint32_t id, const Traced& text, Bytes bytes) {
    std::size_t hint = 0;
    append(id, text.source(bytes, hint));
  }

  void encode(const Piece& piece, std::size_t step = 0) {
    if (piece.bytes.count() == 0) return;
    if (step == pre_tokenizer_.steps.size()) return finish(piece);
    pre_tokenizer_.steps[step]->split(piece, [this, next = step + 1](const Piece& part) { encode(part, next); });
  }

  std::vector<TextToken> tokens() && { return std::move(tokens_); }

 private:
  void append(std::uint32_t id, Bytes bytes) {
    tokens_.push_back({id, static_cast<Index>(bytes.begin), static_cast<Index>(bytes.end)});
  }

  void finish(const Piece& piece) {
    constexpr std::size_t most_bytes = ~std::uint32_t{0};
    require<Failure::file>(piece.bytes.count() < most_bytes, file_, ": splits a text nowhere in ", piece.bytes.count(),
                           " bytes, which is more than the 4 GiB that are supported");
    piece_tokens_.clear();
    model_.encode(piece.view(), cache_, piece_tokens_);
    for (const PieceToken& token : piece_tokens_)
      append(token.id, piece.text->source({piece.bytes.begin + token.begin, piece.bytes.begin + token.end}, hint_));
  }

  const std::string& file_;
  const PreTokenizer& pre_tokenizer_;
  const Model& model_;
  PieceCache cache_;
  std::vector<PieceToken> piece_tokens_;
  std::vector<TextToken> tokens_;
  std::size_t hint_ = 0;
};

}  // namespace

Tokenizer::Tokenizer(const std::string& folder)
    : parts_(std::make_unique<const Parts>((std::filesystem::path(folder) / "tokenizer.json").string())) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&& other) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&& other) noexcept = default;

std::vector<TextToken> Tokenizer::encode(std::string_view text) const {
  require(is_utf8(text), "a text of tokens must be UTF-8");
  const Parts& parts = *parts_;
  Encoding encoding(parts.file, parts.pre_tokenizer, *parts.model);
  const auto encode_part = [&](const Traced& traced, Bytes part) {
    const std::string_view view = traced.text().substr(part.begin, part.count());
    const auto moved = [&](Bytes bytes) { return Bytes{part.begin + bytes.begin, part.begin + bytes.end}; };
    parts.as_normalized.split(
        view,
        [&](Bytes between) {
          encoding.encode({&traced, moved(between)});
        },
        [&](const AddedTokenFinder::Found& found) { encoding.add(found.id, traced, moved(found.bytes)); });
  };
  const Traced original(text);
  parts.as_written.split(
      text,
      [&](Bytes between) {
        if (const auto changed = parts.normalizer.apply(original, between))
          encode_part(*changed, {0, changed->text().size()});
        else encode_part(original, between);
      },
      [&](const AddedTokenFinder::Found& found) { encoding.add(found.id, original, found.bytes); });
  return std::move(encoding).tokens();
}

Index Tokenizer::vocabulary() const { return parts_->vocabulary.end; }

std::string Tokenizer::spelling(std::uint32_t id) const {
  const auto found = parts_->spellings.find(id);
  return found == parts_->spellings.end() ? "" : found->second;
}

std::span<const std::uint32_t> Tokenizer::before() const { return parts_->surroundings.before; }
std::span<const std::uint32_t> Tokenizer::after() const { return parts_->surroundings.after; }

}  // namespace annulus
