#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "annulus/store/input_file.hpp"
#include "app/report/page.hpp"
#include "app/report/shown.hpp"
#include "app/report/words.hpp"

namespace annulus::app {

/// One chapter: what a result of run or attend (or any file of datasets) holds. Reads traces piece by piece. Throws Error (file) when it
/// cannot be read, and (usage) when a head, a layer or a token is not in it.
void add_result(const InputFile& file, const ReportChoice& choice, Page& page);
/// Of it: statistics per head, curves along the sequence, distances, maps.
void add_attention(const InputFile& file, const ShownTraces& traces, Page& page);
/// Of it: what follows by earlier places with the same context, and passages that occur twice.
void add_reuse(const InputFile& file, const std::optional<Words>& words, Page& page);
/// Of it: the keys that receive most.
void add_received(const InputFile& file, const ShownTraces& traces, const std::optional<Words>& words, Page& page);

/// One chapter: what annulus bench --json wrote. Throws Error (file) when it is another thing.
void add_benchmark(const nlohmann::json& document, const std::string& path, Page& page);

/// One chapter: what annulus plan --json wrote.
void add_plan(const nlohmann::json& document, Page& page);

}  // namespace annulus::app
