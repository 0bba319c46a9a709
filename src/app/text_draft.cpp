#include "app/text_draft.hpp"

#include <unistd.h>

#include <filesystem>

#include "annulus/base/error.hpp"

namespace annulus::app {

TextDraft::TextDraft(std::string option, std::string path)
    : option_(std::move(option)), path_(std::move(path)), temporary_(path_) {
  std::error_code ignored;
  require<Failure::file>(!std::filesystem::is_directory(path_, ignored), option_, " cannot be written: ", path_,
                         " is a directory");
  const bool special = std::filesystem::exists(path_, ignored) && !std::filesystem::is_regular_file(path_, ignored);
  if (!special) temporary_ = sentence(path_, ".partial-", getpid());
  file_.open(temporary_);
  require<Failure::file>(file_.good(), option_, " cannot be written: ", path_);
}

TextDraft::~TextDraft() {
  if (temporary_ == path_ || temporary_.empty()) return;
  std::error_code ignored;
  std::filesystem::remove(temporary_, ignored);
}

void TextDraft::commit(std::string_view text) {
  file_ << text << std::flush;
  file_.close();
  require<Failure::file>(file_.good(), option_, " cannot be written: ", path_);
  std::error_code problem;
  if (temporary_ != path_) std::filesystem::rename(temporary_, path_, problem);
  require<Failure::file>(!problem, option_, " cannot be written: ", path_, ": ", problem.message());
  temporary_.clear();
}

}  // namespace annulus::app
