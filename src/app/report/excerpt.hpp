#pragma once
#include <span>

#include "app/report/shown.hpp"
#include "app/report/words.hpp"

namespace annulus::app {

/// The stretch of a text that is shown token by token: from where the user says, else from some tokens into the later side of the longest
/// passage that occurs twice, else from the middle, where there is something to look back at. Throws Error (usage) when it is not there.
Range excerpt_of(const InputFile& file, Index tokens, const ReportChoice& choice);

/// That stretch, whose tokens tell, when one points at them, which keys they look at. Nothing where the file does not keep them
/// (--trace full does).
void add_excerpt(const InputFile& file, std::span<const ShownTraces> shown, const Words& words,
                 const ReportChoice& choice, Page& page);

}  // namespace annulus::app
