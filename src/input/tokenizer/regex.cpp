#include "input/tokenizer/regex.hpp"

#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <new>

#include "annulus/base/error.hpp"
#include "input/tokenizer/characters.hpp"

namespace annulus {
namespace {

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  ::pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

struct Free {
  void operator()(pcre2_code* code) const { ::pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { ::pcre2_match_data_free(data); }
  void operator()(pcre2_compile_context* context) const { ::pcre2_compile_context_free(context); }
  void operator()(pcre2_match_context* context) const { ::pcre2_match_context_free(context); }
};

PCRE2_SPTR units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

struct Regex::Compiled {
  std::unique_ptr<pcre2_code, Free> code;
  std::string place;  // for sentences: file, key and pattern
};

struct Matcher::Found {
  std::unique_ptr<pcre2_match_data, Free> data;
  std::unique_ptr<pcre2_match_context, Free> context;
};

namespace {

// A run of spaces may cost steps for each of its bytes; what costs more than that would never end.
std::uint32_t most_steps(std::size_t text_bytes) {
  constexpr std::size_t usual = 10'000'000, per_byte = 16, largest = ~std::uint32_t{0};
  return static_cast<std::uint32_t>(std::min(usual + per_byte * std::min(text_bytes, largest), largest));
}

}  // namespace

Regex::Regex(std::string_view pattern, const Node& where) : compiled_(std::make_unique<Compiled>()) {
  constexpr std::size_t most_bytes = 65'536;
  where.require(pattern.size() <= most_bytes, "is a regular expression of more than ", most_bytes, " bytes");
  const std::string translated = in_pcre2_syntax(pattern, where);
  const std::unique_ptr<pcre2_compile_context, Free> context(::pcre2_compile_context_create(nullptr));
  if (context == nullptr) throw std::bad_alloc();
  ::pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int code = 0;
  PCRE2_SIZE at = 0;
  constexpr unsigned options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_UTF_CHECK;
  compiled_->code.reset(::pcre2_compile(units(translated), translated.size(), options, &code, &at, context.get()));
  where.require(compiled_->code != nullptr, "has a regular expression that PCRE2 does not take: ", message_of(code),
                " at byte ", at, " of ", quoted(translated));
  ::pcre2_jit_compile(compiled_->code.get(), PCRE2_JIT_COMPLETE);  // without it the interpreter runs
  try {
    where.refuse(quoted(pattern));
  } catch (const Error& error) {
    compiled_->place = error.what();
  }
}

Regex::~Regex() = default;
Regex::Regex(Regex&& other) noexcept = default;

Matcher::Matcher(const Regex& regex, std::string_view text)
    : regex_(regex), text_(text), found_(std::make_unique<Found>()) {
  found_->data.reset(::pcre2_match_data_create(1, nullptr));
  found_->context.reset(::pcre2_match_context_create(nullptr));
  if (found_->data == nullptr || found_->context == nullptr) throw std::bad_alloc();
  ::pcre2_set_match_limit(found_->context.get(), most_steps(text.size()));
}

Matcher::~Matcher() = default;

std::optional<Bytes> Matcher::next() {
  while (from_ <= text_.size()) {
    const pcre2_code* code = regex_.compiled_->code.get();
    const auto run = [&](unsigned options) {
      return ::pcre2_match(code, units(text_), text_.size(), from_, PCRE2_NO_UTF_CHECK | options, found_->data.get(),
                           found_->context.get());
    };
    int result = run(0);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = run(PCRE2_NO_JIT);
    if (result == PCRE2_ERROR_NOMATCH) break;
    require<Failure::file>(result >= 0, regex_.compiled_->place, " gives up on a text: ", message_of(result));
    const PCRE2_SIZE* ends = ::pcre2_get_ovector_pointer(found_->data.get());
    const Bytes match = {ends[0], ends[1]};
    if (match.begin >= match.end && last_end_ == match.end) {
      from_ = match.end < text_.size() ? match.end + character_at(text_, match.end).bytes : match.end + 1;
      continue;
    }
    require<Failure::file>(match.begin <= match.end, regex_.compiled_->place, " matches backwards");
    from_ = match.end;
    last_end_ = match.end;
    return match;
  }
  from_ = text_.size() + 1;
  return std::nullopt;
}

}  // namespace annulus
