#pragma once
#include <optional>

#include "app/report/shown.hpp"
#include "app/report/words.hpp"

namespace annulus::app {

/// What a trained model expects to follow: how often it is right, what tokens cost, along the text and by how much came before. Nothing
/// where the result has no predictions. Throws Error (file) when they are not of the tokens.
void add_next_tokens(const InputFile& file, const std::optional<Words>& words, const ReportChoice& choice, Page& page);
/// What the heads of all layers do: the strongest of every kind, and maps of layers x heads.
void add_heads(const InputFile& file, const HeadMeans& means, Page& page);
/// Curves from layer to layer: means over heads, and how long the residual stream's rows are where it was kept.
void add_depth(const InputFile& file, const std::vector<Layer>& layers, const HeadMeans& means, Page& page);

}  // namespace annulus::app
