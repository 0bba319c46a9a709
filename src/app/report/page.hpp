#pragma once
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "app/report/figure.hpp"

namespace annulus::app {

/// Rows of texts below a row of headings. Columns whose every cell begins like a number stand to the right.
struct Table {
  std::vector<std::string> headings = {};
  std::vector<std::vector<std::string>> rows = {};
};

/// A text as HTML shows it. What is no UTF-8 becomes a question mark.
std::string escaped(std::string_view text);
/// A number as people write it: four digits, thousands apart where it is whole.
std::string readable(double value);
/// With so many digits behind the point; "-" of what is no number.
std::string fixed(double value, int decimals);
/// "12.3 %"
std::string percent(double value);
/// "2026-01-31 23:59 UTC", of 2026-01-31T23:59:01Z.
std::string readable_time(const std::string& time);

/// One page of HTML that needs no other file: texts, tables, and figures, which are drawn when all is said.
class Page {
 public:
  explicit Page(std::string title) : title_(std::move(title)) {}

  void chapter(const std::string& heading, const std::string& subheading);
  void section(const std::string& heading);
  void subsection(const std::string& heading);
  void paragraph(const std::string& text);
  /// Short names and values in boxes, side by side.
  void facts(const std::vector<std::pair<std::string, std::string>>& facts);
  void table(const Table& table);
  /// A table that is folded away below its summary.
  void folded(const std::string& summary, const Table& table);
  void folded(const std::string& summary, const std::string& preformatted);
  /// What is added until it is unfolded lies below its summary, and is folded away.
  void fold(const std::string& summary);
  void unfold();
  /// A second one of the same name gets a number.
  void figure(Figure figure);
  /// HTML as it is.
  void html(std::string text) { parts_.push_back({std::move(text), -1}); }

  const std::vector<Figure>& figures() const { return figures_; }
  /// The page. drawn: the SVG of every figure.
  std::string text(std::span<const std::string> drawn) const;

 private:
  struct Part {
    std::string html;
    int figure = -1;  ///< which stands behind this HTML; -1: none
  };
  std::string title_;
  std::vector<Part> parts_;
  std::vector<Figure> figures_;
};

}  // namespace annulus::app
