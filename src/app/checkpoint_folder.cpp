#include "app/checkpoint_folder.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "annulus/base/error.hpp"

namespace annulus::app {
namespace {

namespace fs = std::filesystem;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

fs::path hub_cache() {
  if (const std::string cache = variable("HF_HUB_CACHE"); !cache.empty()) return cache;
  if (const std::string home = variable("HF_HOME"); !home.empty()) return fs::path(home) / "hub";
  return fs::path(variable("HOME")) / ".cache" / "huggingface" / "hub";
}

// models--Qwen--Qwen3-0.6B/snapshots/COMMIT, where the file refs/main holds the commit; empty: it is not there.
fs::path snapshot(std::string_view model) {
  const auto slash = model.find('/');
  if (slash == model.npos || slash == 0 || model.find('/', slash + 1) != model.npos || model.front() == '.') return {};
  const fs::path home =
      hub_cache() / sentence("models--", model.substr(0, slash), "--", model.substr(slash + 1));
  std::string commit;
  std::ifstream(home / "refs" / "main") >> commit;
  const fs::path folder = home / "snapshots" / commit;
  std::error_code unknown;
  return !commit.empty() && fs::is_directory(folder, unknown) ? folder : fs::path();
}

}  // namespace

bool names_checkpoint(std::string_view model) {
  return model != "auto" && model != "induction" && model != "similarity";
}

std::string checkpoint_folder(std::string_view model) {
  std::error_code unknown;
  if (fs::is_directory(fs::path(model), unknown)) return std::string(model);
  const fs::path cached = snapshot(model);
  require(!cached.empty(),
          "must be auto, induction, similarity, the folder of a trained model, or the name of one that hf download has "
          "brought: '", model, "' is no folder, and ", hub_cache().string(), " has nothing of that name");
  return cached.string();
}

}  // namespace annulus::app
