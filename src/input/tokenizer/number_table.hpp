#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace annulus {

/// From 64-bit keys, of which all bits set is none, to values: open addressing, at most half full.
template <class Value>
class NumberTable {
 public:
  explicit NumberTable(std::size_t entries = 0) : slots_(std::bit_ceil(2 * entries + 2)) {}

  /// Null where the key is not known.
  const Value* find(std::uint64_t key) const {
    for (std::size_t at = start(key);; at = (at + 1) & (slots_.size() - 1)) {
      if (slots_[at].key == key) return &slots_[at].value;
      if (slots_[at].key == none) return nullptr;
    }
  }
  /// The value of a key, made where there is none.
  Value& at(std::uint64_t key) {
    if (2 * (used_ + 1) > slots_.size()) grow();
    std::size_t at = start(key);
    while (slots_[at].key != key && slots_[at].key != none) at = (at + 1) & (slots_.size() - 1);
    if (slots_[at].key == none) slots_[at].key = key, ++used_;
    return slots_[at].value;
  }

 private:
  static constexpr std::uint64_t none = ~std::uint64_t{0};
  struct Slot {
    std::uint64_t key = none;
    Value value = {};
  };
  std::size_t start(std::uint64_t key) const {
    return (key * 0x9e3779b97f4a7c15U >> 20U ^ key * 0xc2b2ae3d27d4eb4fU >> 40U) & (slots_.size() - 1);
  }
  void grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    used_ = 0;
    for (const Slot& slot : old)
      if (slot.key != none) at(slot.key) = slot.value;
  }
  std::vector<Slot> slots_;
  std::size_t used_ = 0;
};

}  // namespace annulus
