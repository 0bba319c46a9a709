#pragma once
#include <string>
#include <string_view>

namespace annulus::app {

/// A text file that does not exist yet: it appears under its final name, or replaces what was there, only when it is whole.
/// What is not a regular file (/dev/stdout) is written directly. Those of killed processes are removed, as Draft does.
class TextDraft {
 public:
  /// option: for messages, "--json". path: empty where it was not given, and nothing is written. Throws Error (file) when the file
  /// cannot be made: that is tried at once, and nothing is left of it, so that a command that is killed leaves nothing.
  TextDraft(std::string option, std::string path);
  TextDraft(const TextDraft&) = delete;
  TextDraft& operator=(const TextDraft&) = delete;
  /// Removes the temporary file if it was not committed.
  ~TextDraft();
  void commit(std::string_view text);

 private:
  [[noreturn]] void refuse(const std::string& reason) const;
  std::string option_, path_, temporary_;
};

}  // namespace annulus::app
