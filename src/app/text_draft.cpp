#include "app/text_draft.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "annulus/base/error.hpp"
#include "annulus/store/leftovers.hpp"

namespace annulus::app {

TextDraft::TextDraft(std::string option, std::string path)
    : option_(std::move(option)), path_(std::move(path)), temporary_(path_) {
  if (path_.empty()) return;
  std::error_code ignored;
  if (std::filesystem::is_directory(path_, ignored)) refuse("it is a directory");
  const bool special = std::filesystem::exists(path_, ignored) && !std::filesystem::is_regular_file(path_, ignored);
  if (!special) {
    store::remove_leftovers(path_);
    temporary_ = store::temporary_name(path_);
  }
  if (special) {  // who reads a pipe is served once
    if (access(path_.c_str(), W_OK) != 0) refuse(std::strerror(errno));
    return;
  }
  if (!std::ofstream(temporary_).good()) refuse(std::strerror(errno));
  std::filesystem::remove(temporary_, ignored);
}

TextDraft::~TextDraft() {
  if (temporary_ == path_ || temporary_.empty()) return;
  std::error_code ignored;
  std::filesystem::remove(temporary_, ignored);
}

void TextDraft::commit(std::string_view text) {
  if (path_.empty()) return;
  std::ofstream file(temporary_);
  file << text << std::flush;
  if (!file.good()) refuse(std::strerror(errno));
  file.close();
  if (!file.good()) refuse(std::strerror(errno));
  std::error_code problem;
  if (temporary_ != path_) std::filesystem::rename(temporary_, path_, problem);
  if (problem) refuse(problem.message());
  temporary_.clear();
}

void TextDraft::refuse(const std::string& reason) const {
  throw Error(Failure::file, sentence(option_, " cannot be written: ", path_, ": ", reason));
}

}  // namespace annulus::app
