#pragma once
#include <string>
#include <vector>

#include "app/report/head_means.hpp"
#include "app/report/page.hpp"

namespace annulus::app {

/// What of a result is shown where it cannot be all.
struct ReportChoice {
  std::vector<Index> heads = {};   ///< empty: the first eight; of many layers those that show most are among them
  std::vector<Index> layers = {};  ///< empty: four, first those with the heads that show most
  Index at = -1;                   ///< the first token of the excerpt; -1: near the longest passage
};

/// Attention traces that are shown in detail.
struct ShownTraces {
  std::string group;                  ///< "trace", "layers/007/attention"
  std::vector<Index> heads = {};      ///< empty: the first eight
  Index layer = -1;                   ///< of a model with several; -1: there is but one attention
  std::vector<std::string> why = {};  ///< it is this layer: what its heads do more than all others
  Index telling = -1;                 ///< the head to begin with; -1: the sharpest
  bool begins = false;                ///< with this layer the page begins

  /// Those heads of `count` that are shown. Throws Error (usage) when one of them is not there.
  std::vector<Index> shown_heads(Index count) const;
  /// Begins a section: of the page, or of the layer.
  void section(const std::string& heading, Page& page) const;
  /// A figure's name, of one among several layers.
  std::string named(const std::string& figure) const;
};

/// The layers of a model that are shown in detail: those that were chosen, else those with the heads that do most of anything.
/// Throws Error (usage) when one was chosen that has no traces.
std::vector<ShownTraces> shown_layers(const HeadMeans& means, const ReportChoice& choice);

}  // namespace annulus::app
