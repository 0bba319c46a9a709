#include "app/ini.hpp"

#include <fstream>

#include "annulus/base/error.hpp"

namespace annulus::app {
namespace {

constexpr std::string_view blank = " \t\r";

std::string_view trimmed(std::string_view text) {
  const auto begin = text.find_first_not_of(blank);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(blank) - begin + 1);
}

/// The text up to a '#' that stands at its start or after white space.
std::string_view without_comment(std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i)
    if (text[i] == '#' && (i == 0 || blank.find(text[i - 1]) != blank.npos)) return text.substr(0, i);
  return text;
}

std::string value_of(std::string_view text, const std::string& where) {
  text = trimmed(text);
  if (!text.starts_with('"')) return std::string(trimmed(without_comment(text)));
  std::string value;
  std::size_t at = 1;
  for (; at < text.size() && (text[at] != '"' || text.substr(at, 2) == "\"\""); ++at) {
    if (text[at] == '"') ++at;
    value += text[at];
  }
  require(at < text.size(), where, ": a value that starts with a double quote must end with one");
  require(trimmed(without_comment(trimmed(text.substr(at + 1)))).empty(), where,
          ": nothing but a comment may follow the closing quote");
  return value;
}

}  // namespace

std::vector<IniLine> read_ini(const std::string& path, const std::string& option) {
  std::ifstream file(path);
  require(file.is_open(), option, ": the file '", path, "' cannot be opened");
  std::vector<IniLine> lines;
  std::string raw;
  for (int number = 1; std::getline(file, raw); ++number) {
    const std::string where = sentence(path, ", line ", number);
    std::string_view text = raw;
    if (number == 1 && text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // a byte order mark
    text = trimmed(text);
    if (trimmed(without_comment(text)).empty()) continue;
    require(!text.starts_with('['), where, ": a configuration file has no sections, only lines 'option = value'");
    const auto equals = text.find('=');
    require(equals != text.npos, where, ": a line must read 'option = value'");
    const std::string key(trimmed(text.substr(0, equals)));
    require(!key.empty(), where, ": the name of the option is missing before '='");
    lines.push_back({key, value_of(text.substr(equals + 1), where), number});
  }
  require(!file.bad(), option, ": the file '", path, "' cannot be read");
  return lines;
}

std::string ini_value(std::string_view value) {
  const bool plain = trimmed(value) == value && without_comment(value) == value && !value.starts_with('"');
  if (plain) return std::string(value);
  std::string quoted = "\"";
  for (const char letter : value) quoted.append(letter == '"' ? 2 : 1, letter);
  return quoted + "\"";
}

}  // namespace annulus::app
