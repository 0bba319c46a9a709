#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "input/tokenizer/number_table.hpp"
#include "input/tokenizer/piece_cache.hpp"

namespace annulus {

/// The rules of byte pair encoding: which neighbours become one token, the earlier rule first.
class Merges {
 public:
  struct Rule {
    std::uint32_t left, right, whole;  // ids
  };
  /// units: the ids that texts begin as, before anything is merged. Of a rule given twice the last counts.
  Merges(std::span<const Rule> rules, std::span<const std::uint32_t> units);

  /// No rule, at any time, merges across a place where these units are neighbours: a text may be cut there. Says false
  /// for some places where that holds, too.
  bool part(std::uint32_t left_unit, std::uint32_t right_unit) const {
    const std::size_t bit = bit_of(left_unit, right_unit);
    return (joined_[bit / 64] >> (bit % 64) & 1U) == 0;
  }
  /// Applies the rules, the earliest first and of one rule from left to right, until none fits.
  /// O(n log n) time for n tokens; 24 bytes for each, besides.
  void apply(std::vector<PieceToken>& tokens) const;

 private:
  struct Merged {
    std::uint32_t rank = 0, whole = 0;
  };
  static std::uint64_t key(std::uint32_t left, std::uint32_t right) { return std::uint64_t{left} << 32U | right; }
  std::size_t bit_of(std::uint32_t left, std::uint32_t right) const {
    return static_cast<std::size_t>(key(left, right) * 0x9e3779b97f4a7c15U >> joined_shift_);
  }
  void find_joined(std::span<const Rule> rules, std::span<const std::uint32_t> units);
  void apply_to_few(std::vector<PieceToken>& tokens) const;
  void apply_to_many(std::vector<PieceToken>& tokens) const;

  NumberTable<Merged> rules_;
  unsigned joined_shift_;              // 64 less the binary logarithm of its bits
  std::vector<std::uint64_t> joined_;  // by bit_of: a set that holds more pairs than were put in
};

}  // namespace annulus
