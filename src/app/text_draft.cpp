#include "app/text_draft.hpp"

#include <cerrno>
#include <cstring>
#include <filesystem>

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
  file_.open(temporary_);
  if (!file_.good()) refuse(std::strerror(errno));
}

TextDraft::~TextDraft() {
  if (temporary_ == path_ || temporary_.empty()) return;
  std::error_code ignored;
  std::filesystem::remove(temporary_, ignored);
}

void TextDraft::commit(std::string_view text) {
  if (path_.empty()) return;
  file_ << text << std::flush;
  if (!file_.good()) refuse(std::strerror(errno));
  file_.close();
  if (!file_.good()) refuse(std::strerror(errno));
  std::error_code problem;
  if (temporary_ != path_) std::filesystem::rename(temporary_, path_, problem);
  if (problem) refuse(problem.message());
  temporary_.clear();
}

void TextDraft::refuse(const std::string& reason) const {
  throw Error(Failure::file, sentence(option_, " cannot be written: ", path_, ": ", reason));
}

}  // namespace annulus::app
