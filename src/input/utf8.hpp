#pragma once
#include <cstdint>

namespace annulus {

/// Bytes in, code points out. Rejects what RFC 3629 rejects: stray and missing
/// continuation bytes, overlong forms, surrogates and values beyond U+10FFFF.
class Utf8 {
 public:
  enum class Step : std::uint8_t { more, whole, bad };
  Step feed(unsigned char byte) {
    if (left_ == 0) {
      if (byte < 0x80) return point_ = byte, Step::whole;
      if (byte >= 0xc2 && byte <= 0xdf) return start(byte & 0x1fU, 1, 0x80, 0xbf);
      if (byte >= 0xe0 && byte <= 0xef)
        return start(byte & 0x0fU, 2, byte == 0xe0 ? 0xa0 : 0x80, byte == 0xed ? 0x9f : 0xbf);
      if (byte >= 0xf0 && byte <= 0xf4)
        return start(byte & 0x07U, 3, byte == 0xf0 ? 0x90 : 0x80, byte == 0xf4 ? 0x8f : 0xbf);
      return Step::bad;
    }
    if (byte < least_ || byte > most_) return Step::bad;
    least_ = 0x80, most_ = 0xbf;
    point_ = (point_ << 6) | (byte & 0x3fU);
    return --left_ == 0 ? Step::whole : Step::more;
  }
  char32_t point() const { return point_; }
  bool between_characters() const { return left_ == 0; }

 private:
  Step start(unsigned bits, int left, unsigned char least, unsigned char most) {
    point_ = bits, left_ = left, least_ = least, most_ = most;
    return Step::more;
  }
  char32_t point_ = 0;
  int left_ = 0;
  unsigned char least_ = 0x80, most_ = 0xbf;
};

}  // namespace annulus
