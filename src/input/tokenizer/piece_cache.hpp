#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace annulus {

/// A token of a piece: half-open bytes, counted from the piece's beginning.
struct PieceToken {
  std::uint32_t id, begin, end;
};

/// Remembers the tokens of short pieces: words come again. Starts small; forgets everything when it has grown to about
/// 64 MiB.
class PieceCache {
 public:
  static constexpr std::size_t longest_bytes = 128;

  /// Nothing where the piece is not known. Valid until the next insert.
  std::optional<std::span<const PieceToken>> find(std::string_view piece) const {
    const Entry& entry = entries_[slot_of(piece, hash_of(piece))];
    if (entry.count == unused) return std::nullopt;
    return std::span(tokens_).subspan(entry.first_token, entry.count);
  }
  /// Precondition: the piece is not known, and at most longest_bytes long.
  void insert(std::string_view piece, std::span<const PieceToken> tokens) {
    if (used_ * 2 >= entries_.size()) grow();
    const std::uint64_t hash = hash_of(piece);
    entries_[slot_of(piece, hash)] = {
        hash, static_cast<std::uint32_t>(text_.size()), static_cast<std::uint32_t>(tokens_.size()),
        static_cast<std::uint16_t>(piece.size()), static_cast<std::uint16_t>(tokens.size())};
    text_ += piece;
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    ++used_;
  }

 private:
  static constexpr std::uint16_t unused = 0xffff;
  static constexpr std::size_t most_entries = std::size_t{1} << 19;
  struct Entry {
    std::uint64_t hash = 0;
    std::uint32_t first_byte = 0, first_token = 0;
    std::uint16_t bytes = 0, count = unused;
  };
  static std::uint64_t hash_of(std::string_view piece) { return std::hash<std::string_view>()(piece); }
  std::size_t slot_of(std::string_view piece, std::uint64_t hash) const {
    std::size_t slot = hash & (entries_.size() - 1);
    while (entries_[slot].count != unused &&
           (entries_[slot].hash != hash ||
            std::string_view(text_).substr(entries_[slot].first_byte, entries_[slot].bytes) != piece))
      slot = (slot + 1) & (entries_.size() - 1);
    return slot;
  }
  void grow() {
    std::vector<Entry> old(entries_.size() * 2);
    old.swap(entries_);
    if (entries_.size() > most_entries || text_.size() > longest_bytes * most_entries / 4) {
      entries_.assign(64, {});
      text_.clear(), tokens_.clear(), used_ = 0;
      return;
    }
    for (const Entry& entry : old) {
      if (entry.count == unused) continue;
      std::size_t slot = entry.hash & (entries_.size() - 1);
      while (entries_[slot].count != unused) slot = (slot + 1) & (entries_.size() - 1);
      entries_[slot] = entry;
    }
  }

  std::vector<Entry> entries_ = std::vector<Entry>(64);  // a power of two, at most half of them used
  std::string text_;
  std::vector<PieceToken> tokens_;
  std::size_t used_ = 0;
};

}  // namespace annulus
