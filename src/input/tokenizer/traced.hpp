#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace annulus {

/// Half-open bytes.
struct Bytes {
  std::size_t begin = 0, end = 0;
  std::size_t count() const { return end - begin; }
};

/// A text that was changed on its way, and where in the original its bytes came from. Each of its characters stands for
/// one character of the original, which several may share, or for none:
///
///   original  "\u00c4 b"   bytes 0-2, 2, 3         changed  "a\u0308\u2581b"   from 0-2 0-2, 2-3, 3-4
///
/// Memory: the text, unless it is the original itself, and 24 bytes for each stretch that stands together in both.
class Traced {
 public:
  /// The original, which outlives this.
  explicit Traced(std::string_view original) : given_(original) {}

  std::string_view text() const { return changed_ ? std::string_view(own_) : given_; }
  /// The bytes of the original that bytes of the text stand for, whole characters. `hint` makes calls with rising bytes
  /// fast: a number that the caller keeps, at first 0. Precondition: the bytes are not empty.
  Bytes source(Bytes bytes, std::size_t& hint) const;

 private:
  friend class Rewriter;
  // The text from `at` on: beside the original from `begin` on, character by character, if `bytes` is 0 and it is not
  // `nowhere`; else all of it stands for the same `bytes` bytes.
  struct Link {
    std::size_t at, begin;
    std::uint32_t bytes;
    bool beside;
  };
  const Link& link_of(std::size_t byte, std::size_t& hint) const;
  Bytes source_of(std::size_t byte, std::size_t& hint) const;

  std::string_view given_;
  std::string own_;
  std::vector<Link> links_;
  bool changed_ = false;
};

/// Writes the next form of a traced text, or of a part of it, from its beginning to its end.
class Rewriter {
 public:
  explicit Rewriter(const Traced& from) : from_(from) {}
  /// Text of `from` as it is.
  void keep(Bytes bytes);
  /// One or more whole characters that stand for what the byte `source` of `from` stands for.
  void put(std::string_view characters, std::size_t source);
  /// Characters that stand for nothing, at a place of the original.
  void put_nowhere(std::string_view characters, std::size_t place);
  Traced finish() &&;

 private:
  void link(std::size_t text_bytes, Bytes source, bool beside);
  const Traced& from_;
  Traced to_{std::string_view()};
  std::size_t hint_ = 0;
};

}  // namespace annulus
