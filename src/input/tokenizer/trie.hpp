#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "input/tokenizer/number_table.hpp"

namespace annulus {

/// Texts by their bytes, each with a number, in several sets of their own.
class Trie {
 public:
  explicit Trie(std::uint32_t sets = 1) : numbers_(sets, none) {}

  /// Returns false, and changes nothing, where the set has the text. Precondition: the text is not empty.
  bool add(std::string_view text, std::uint32_t number, std::uint32_t set = 0) {
    std::uint32_t node = set;
    for (const char byte : text) {
      std::uint32_t& next = next_.at(edge(node, byte));
      if (next == 0) next = static_cast<std::uint32_t>(numbers_.size()), numbers_.push_back(none);
      node = next;
    }
    if (numbers_[node] != none) return false;
    numbers_[node] = number;
    return true;
  }

  /// Calls found(number, end) for the texts that begin at a byte, the shortest first.
  template <class Found>
  void find(std::string_view text, std::size_t at, const Found& found, std::uint32_t set = 0) const {
    std::uint32_t node = set;
    while (at < text.size()) {
      const std::uint32_t* next = next_.find(edge(node, text[at++]));
      if (next == nullptr) return;
      node = *next;
      if (numbers_[node] != none) found(numbers_[node], at);
    }
  }

 private:
  static constexpr std::uint32_t none = ~std::uint32_t{0};
  static std::uint64_t edge(std::uint32_t node, char byte) {
    return std::uint64_t{node} << 8U | static_cast<unsigned char>(byte);
  }
  NumberTable<std::uint32_t> next_;     // of a node and a byte, a node: never a root
  std::vector<std::uint32_t> numbers_;  // of the text that ends at a node
};

}  // namespace annulus
