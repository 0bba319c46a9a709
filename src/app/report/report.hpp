#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "annulus/store/input_file.hpp"
#include "app/report/page.hpp"

namespace annulus::app {

/// What of a result is shown where it cannot be all.
struct ReportChoice {
  std::vector<Index> heads = {};  ///< empty: the first eight
  Index at = -1;                  ///< the first token of the excerpt; -1: near the longest passage
};

/// One chapter: what a result of run or attend (or any file of datasets) holds. Reads traces piece by piece. Throws Error (file) when it
/// cannot be read, and (usage) when a head or a token is not in it.
void add_result(const InputFile& file, const ReportChoice& choice, Page& page);
/// Of it: statistics per head, curves along the sequence, distances, maps.
void add_attention(const InputFile& file, const std::string& group, const ReportChoice& choice, Page& page);
/// Of it: what follows, passages that occur twice, and an excerpt whose tokens show where they look.
void add_findings(const InputFile& file, const std::string& group, const ReportChoice& choice, Page& page);

/// One chapter: what annulus bench --json wrote. Throws Error (file) when it is another thing.
void add_benchmark(const nlohmann::json& document, const std::string& path, Page& page);

/// One chapter: what annulus plan --json wrote.
void add_plan(const nlohmann::json& document, Page& page);

/// Those heads of `count` that are shown. Throws Error (usage) when one of them is not there.
std::vector<Index> shown_heads(const ReportChoice& choice, Index count);

}  // namespace annulus::app
