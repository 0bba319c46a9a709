#pragma once
#include <source_location>
#include <sstream>
#include <stdexcept>
#include <string>

namespace annulus {

/// What went wrong, numbered as the program's exit codes.
enum class Failure {
  runtime = 1,        ///< anything that is not one of the others
  usage = 2,          ///< an option, a configuration or an argument of the library
  tolerance = 3,      ///< a verification found a result out of tolerance
  fit = 4,            ///< it would not fit into memory or onto the disk
  file = 5,           ///< an input or output file
  communication = 6,  ///< a peer, a message or a deadline
  stopped = 75,       ///< asked to stop; the job can be started again
};

/// The only exception annulus throws: one sentence that names the rule and the values.
class Error : public std::runtime_error {
 public:
  Error(Failure failure, const std::string& sentence, std::source_location where = std::source_location::current())
      : std::runtime_error(sentence), failure_(failure), where_(where) {}
  Failure failure() const { return failure_; }
  int exit_code() const { return static_cast<int>(failure_); }
  std::source_location where() const { return where_; }

 private:
  Failure failure_;
  std::source_location where_;
};

/// Writes its arguments one after another: sentence("rank ", 3, " waits") == "rank 3 waits".
template <class... Parts>
std::string sentence(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

/// A truth value that remembers where it was claimed.
struct Claim {
  template <class Truth>
  Claim(const Truth& truth, std::source_location at = std::source_location::current())  // NOLINT: implicit on purpose
      : holds(static_cast<bool>(truth)), where(at) {}
  bool holds;
  std::source_location where;
};

/// Throws Error(failure, sentence(parts...)) unless the claim holds. The sentence is built only when it is needed.
template <Failure failure = Failure::usage, class... Parts>
void require(Claim claim, const Parts&... parts) {
  if (!claim.holds) [[unlikely]]
    throw Error(failure, sentence(parts...), claim.where);
}

}  // namespace annulus
