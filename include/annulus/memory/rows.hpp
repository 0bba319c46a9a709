#pragma once
#include <cstddef>
#include <span>
#include <string_view>

#include "annulus/base/error.hpp"
#include "annulus/base/types.hpp"

namespace annulus {

/// A view of token rows: [tokens, heads, channels], channels densest, one token every `pitch` bytes. The one shape for
/// everything that is per token; a per-head number such as lse has channels = 1. Copied freely; owns nothing.
struct Rows {
  std::byte* data = nullptr;
  DType type = DType::f32;
  Place place = Place::cpu;
  Index tokens = 0, heads = 0, channels = 0;
  Index pitch = 0;  ///< bytes from one token to the next

  /// Bytes of one token's elements; pitch is at least this.
  constexpr Index row_bytes() const { return heads * channels * bytes_of(type); }
  constexpr Index bytes() const { return tokens * row_bytes(); }
  constexpr bool dense() const { return pitch == row_bytes(); }
  constexpr bool absent() const { return data == nullptr; }

  /// The first element of (token, head). T must match `type`; checked in one place so that kernels need not.
  template <class T>
  T* at(Index token, Index head = 0) const {
    return reinterpret_cast<T*>(data + token * pitch) + head * channels;
  }
  Rows slice(Index begin, Index end) const {
    Rows part = *this;
    part.data = data + begin * pitch;
    part.tokens = end - begin;
    return part;
  }
  Rows take_heads(Index begin, Index end) const {
    Rows part = *this;
    part.data = data + begin * channels * bytes_of(type);
    part.heads = end - begin;
    return part;
  }
  /// The bytes of tokens [begin, end), gaps between rows included. Empty for no tokens.
  std::span<std::byte> span(Index begin, Index end) const {
    return {data + begin * pitch, static_cast<std::size_t>((end - begin) * pitch)};
  }
};

/// Dense rows over memory somebody else owns.
inline Rows dense_rows(void* data, DType type, Index tokens, Index heads, Index channels, Place place = Place::cpu) {
  return {static_cast<std::byte*>(data), type, place, tokens, heads, channels, heads * channels * bytes_of(type)};
}

/// Throws Error (usage) unless there is memory for the rows, in which they do not overlap and every element lies where its
/// type may.
void check_layout(std::string_view what, const Rows& rows);

inline bool same_shape(const Rows& a, const Rows& b) {
  return a.tokens == b.tokens && a.heads == b.heads && a.channels == b.channels;
}

}  // namespace annulus
