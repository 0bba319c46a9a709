#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "app/report/figure.hpp"

namespace annulus::app {

/// Draws figures by gnuplot, a program of its own (gnuplot.info), in a folder that goes away with this object.
class Gnuplot {
 public:
  /// Throws Error (runtime) when gnuplot cannot be started.
  Gnuplot();
  Gnuplot(const Gnuplot&) = delete;
  Gnuplot& operator=(const Gnuplot&) = delete;
  ~Gnuplot();

  /// All of them in one run: an SVG of each, in this order. pictures: also PNGs, of twice as many pixels. Throws Error (runtime) with
  /// what gnuplot said when it fails.
  std::vector<std::string> draw(std::span<const Figure> figures, bool pictures);
  /// "gnuplot 5.4 patchlevel 4"
  const std::string& version() const { return version_; }
  /// Where what was drawn lies: NAME.svg and NAME.png of every figure.
  const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path folder_;
  std::string version_;
};

}  // namespace annulus::app
