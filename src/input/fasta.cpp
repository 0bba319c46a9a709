#include "input/fasta.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <utility>

#include "annulus/base/error.hpp"
#include "input/utf8.hpp"

namespace annulus {
namespace {

constexpr std::size_t longest_name_bytes = 1024;

bool is_residue(char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '*' || c == '-'; }
bool is_line_end(char c) { return c == '\n' || c == '\r'; }
bool is_white(char c) { return c == ' ' || c == '\t' || c == '\v' || c == '\f' || is_line_end(c); }

std::string hexadecimal(char byte) {
  std::array<char, 8> text{};
  std::snprintf(text.data(), text.size(), "\\x%02x", static_cast<unsigned>(static_cast<unsigned char>(byte)));
  return text.data();
}

// "'5'", or \x00 of what cannot be shown.
std::string shown(char byte) { return byte > ' ' && byte < 127 ? sentence("'", byte, "'") : hexadecimal(byte); }

bool is_utf8(std::string_view text) {
  Utf8 utf8;
  const auto fits = [&](char byte) { return utf8.feed(static_cast<unsigned char>(byte)) != Utf8::Step::bad; };
  return std::ranges::all_of(text, fits) && utf8.between_characters();
}

std::string legible_name(std::string_view name) {
  const bool utf8 = is_utf8(name);
  std::string legible;
  for (const char byte : name) {
    const auto code = static_cast<unsigned char>(byte);
    legible += code < ' ' || code == 127 || (code > 127 && !utf8) ? hexadecimal(byte) : std::string(1, byte);
  }
  return legible;
}

class FastaReader {
 public:
  FastaReader(const TextFile& file, const FastaEvents& events) : file_(file), events_(events) {}

  void feed(std::string_view chunk) {
    constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
    if (at_ == 0 && chunk.starts_with(byte_order_mark)) {
      at_ = byte_order_mark.size();
      chunk.remove_prefix(byte_order_mark.size());
    }
    for (std::size_t n = 0; n < chunk.size();)
      if (begun_ && place_ == Place::sequence && is_residue(chunk[n])) n += take_residues(chunk.substr(n));
      else take(chunk[n++]);
  }
  void finish() {
    if (place_ == Place::before_name || place_ == Place::name) begin_record();
  }

 private:
  enum class Place : std::uint8_t { line_begin, before_name, name, behind_name, sequence };

  std::size_t take_residues(std::string_view rest) {
    const auto count = static_cast<std::size_t>(std::ranges::find_if_not(rest, is_residue) - rest.begin());
    events_.residues(rest.substr(0, count), at_);
    at_ += static_cast<Index>(count);
    headed_ = false;
    return count;
  }

  void take(char c) {
    switch (place_) {
      case Place::line_begin:
        if (c == '>' || c == ';') {
          place_ = c == ';' && headed_ ? Place::behind_name : Place::before_name;
          break;
        }
        [[fallthrough]];
      case Place::sequence:
        return take_of_sequence(c);
      case Place::before_name:
      case Place::name:
        take_of_name(c);
        break;
      case Place::behind_name:
        if (is_line_end(c)) place_ = Place::line_begin;
        break;
    }
    ++at_;
  }

  void take_of_sequence(char c) {
    place_ = is_line_end(c) ? Place::line_begin : Place::sequence;
    require<Failure::file>(is_white(c) || begun_, "FASTA begins with a line that begins with >, but ", file_.contents(),
                           " has ", shown(c), " before one, at byte ", at_);
    require<Failure::file>(is_white(c) || is_residue(c), "sequences of FASTA are letters, * and -, but ",
                           file_.contents(), " has ", shown(c), " at byte ", at_);
    if (is_residue(c)) take_residues({&c, 1});
    else ++at_;
  }

  void take_of_name(char c) {
    if (!is_white(c)) {
      place_ = Place::name;
      if (name_.size() < longest_name_bytes) name_ += c;
    } else if (place_ == Place::name || is_line_end(c)) {
      begin_record();
      place_ = is_line_end(c) ? Place::line_begin : Place::behind_name;
    }
  }

  void begin_record() {
    events_.record(legible_name(std::exchange(name_, {})));
    begun_ = headed_ = true;
  }

  const TextFile& file_;
  const FastaEvents& events_;
  Place place_ = Place::line_begin;
  std::string name_;
  Index at_ = 0;
  bool begun_ = false;   // there is a record
  bool headed_ = false;  // and nothing of its sequence yet
};

}  // namespace

void read_fasta(TextFile& file, const FastaEvents& events) {
  FastaReader reader(file, events);
  for (std::string_view chunk = file.next(); !chunk.empty(); chunk = file.next()) reader.feed(chunk);
  reader.finish();
}

}  // namespace annulus
