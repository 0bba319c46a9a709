#include "app/report/page.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "app/report/style.hpp"

namespace annulus::app {
namespace {

// As JSON writes it, in which whatever is no UTF-8 has become U+FFFD.
std::string valid_utf8(std::string_view text) {
  using nlohmann::json;
  return json::parse(json(std::string(text)).dump(-1, ' ', false, json::error_handler_t::replace)).get<std::string>();
}

// A number, perhaps with its unit: "1,024", "-3.5e-05", "12.4 ms", "-".
bool is_number(const std::string& cell) {
  const std::size_t digits = cell.starts_with('-') ? 1 : 0;
  const bool begins = cell.size() > digits && std::isdigit(static_cast<unsigned char>(cell[digits])) != 0;
  return cell.empty() || cell == "-" || (begins && std::ranges::count(cell, ' ') < 2 && cell.find(':') == cell.npos);
}

std::string html_of(const Table& table) {
  constexpr std::size_t longest_unbroken = 30;  // letters of a cell that stays in one line
  std::vector<bool> numbers(table.headings.size(), !table.rows.empty());
  for (const auto& row : table.rows)
    for (std::size_t i = 0; i < row.size(); ++i) numbers[i] = numbers[i] && is_number(row[i]);
  const auto line = [&](const std::vector<std::string>& cells, std::string_view tag) {
    std::string text = "<tr>";
    for (std::size_t i = 0; i < cells.size(); ++i)
      text += sentence("<", tag,
                       numbers[i]                           ? " class=\"n\">"
                       : cells[i].size() < longest_unbroken ? " class=\"s\">"
                                                            : ">",
                       escaped(cells[i]), "</", tag, ">");
    return text + "</tr>\n";
  };
  std::string text = "<div class=\"wide\"><table>\n<thead>" + line(table.headings, "th") + "</thead>\n<tbody>\n";
  for (const auto& row : table.rows) text += line(row, "td");
  return text + "</tbody></table></div>\n";
}

// Letters that an address inside a page may hold as they are; the others are written in hexadecimal.
std::string address_of(std::string_view svg) {
  constexpr std::string_view plain = " !$&()*+,-./:;=?@[]^_{|}~";
  std::string text = "data:image/svg+xml,";
  for (const char c : svg) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0 || plain.find(c) != std::string_view::npos) {
      text += c == '&' ? "&amp;" : std::string(1, c);
    } else if (c != '\n' && c != '\t') {
      std::array<char, 4> code{};
      std::snprintf(code.data(), code.size(), "%%%02X", static_cast<unsigned>(static_cast<unsigned char>(c)));
      text += code.data();
    } else {
      text += ' ';
    }
  }
  return text;
}

}  // namespace

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : valid_utf8(text)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string readable(double value) {
  if (!std::isfinite(value)) return std::isnan(value) ? "-" : value > 0 ? "inf" : "-inf";
  if (value == std::floor(value) && std::abs(value) < 1e15) return grouped(static_cast<Index>(value));
  if (std::abs(value) >= 1e4 && std::abs(value) < 1e15) return grouped(static_cast<Index>(std::llround(value)));
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), "%.4g", value);
  return text.data();
}

std::string fixed(double value, int decimals) {
  std::array<char, 340> text{};
  std::snprintf(text.data(), text.size(), "%.*f", decimals, value);
  return std::isfinite(value) ? text.data() : "-";
}

std::string percent(double value) { return std::isfinite(value) ? fixed(value, 1) + " %" : "-"; }

std::string readable_time(const std::string& time) {
  return time.size() == 20 && time[10] == 'T' && time[19] == 'Z'
             ? sentence(time.substr(0, 10), " ", time.substr(11, 5), " UTC")
             : time;
}

void Page::chapter(const std::string& heading, const std::string& subheading) {
  html(sentence("<h1>", escaped(heading), "</h1>\n<p class=\"sub\">", escaped(subheading), "</p>\n"));
}

void Page::section(const std::string& heading) { html(sentence("<h2>", escaped(heading), "</h2>\n")); }

void Page::subsection(const std::string& heading) { html(sentence("<h3>", escaped(heading), "</h3>\n")); }

void Page::paragraph(const std::string& text) { html(sentence("<p>", escaped(text), "</p>\n")); }

void Page::facts(const std::vector<std::pair<std::string, std::string>>& facts) {
  std::string text = "<dl class=\"facts\">\n";
  for (const auto& [name, value] : facts) {
    std::string shown = escaped(value);  // masks may be broken behind a plus
    for (std::size_t at = 0; (at = shown.find('+', at)) != shown.npos; at += 6) shown.insert(at + 1, "<wbr>");
    text += sentence("<div><dt>", escaped(name), "</dt><dd>", shown, "</dd></div>\n");
  }
  html(text + "</dl>\n");
}

void Page::table(const Table& table) { html(html_of(table)); }

void Page::fold(const std::string& summary) { html(sentence("<details><summary>", escaped(summary), "</summary>\n")); }

void Page::unfold() { html("</details>\n"); }

void Page::folded(const std::string& summary, const Table& table) {
  fold(summary);
  html(html_of(table));
  unfold();
}

void Page::folded(const std::string& summary, const std::string& preformatted) {
  fold(summary);
  html(sentence("<pre>", escaped(preformatted), "</pre>"));
  unfold();
}

void Page::figure(Figure figure) {
  parts_.push_back({"", static_cast<int>(figures_.size())});
  const std::string name = figure.name;
  for (int copy = 2; std::ranges::find(figures_, figure.name, &Figure::name) != figures_.end(); ++copy)
    figure.name = sentence(name, "-", copy);
  figures_.push_back(std::move(figure));
}

std::string Page::text(std::span<const std::string> drawn) const {
  std::string text =
      sentence("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<title>", escaped(title_),
               "</title>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>",
               page_style, "</style></head><body>\n");
  for (const Part& part : parts_) {
    text += part.html;
    if (part.figure < 0) continue;
    const auto i = static_cast<std::size_t>(part.figure);
    const std::string caption = escaped(figures_[i].caption);
    text += sentence("<figure><img alt=\"", caption, "\" style=\"max-width:", figures_[i].width, "px\" src=\"",
                     address_of(drawn[i]), "\"><figcaption>", caption, "</figcaption></figure>\n");
  }
  return text + "</body></html>\n";
}

}  // namespace annulus::app
