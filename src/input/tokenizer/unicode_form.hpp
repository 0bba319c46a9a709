#pragma once
#include "input/tokenizer/normalizer.hpp"

namespace annulus {

/// NFC, NFD, NFKC and NFKD of Unicode (UAX 15).
class UnicodeForm : public Rewrite {
 public:
  UnicodeForm(bool composed, bool compatible) : composed_(composed), compatible_(compatible) {}
  std::optional<Traced> apply(const Traced& text, Bytes part) const override;

 private:
  bool is_settled(char32_t c) const;
  bool composed_, compatible_;
};

}  // namespace annulus
