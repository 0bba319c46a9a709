#pragma once
#include <functional>
#include <string_view>

#include "annulus/input/text.hpp"
#include "input/text_file.hpp"

namespace annulus {

/// Takes the tokens of a text one after another: what makes it the token it is, and its half-open bytes.
using FoundToken = std::function<void(std::string_view spelling, Index begin, Index end)>;

/// Reads a file of UTF-8 text as words or bytes. Throws Error (file) with the byte where it is not UTF-8.
void read_text(TextFile& file, TokenKind kind, const FoundToken& found);

}  // namespace annulus
