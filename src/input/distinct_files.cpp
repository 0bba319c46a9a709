#include "input/distinct_files.hpp"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>
#include <utility>

#include "annulus/base/error.hpp"

namespace annulus {
namespace {

using FileIdentity = std::pair<dev_t, ino_t>;

FileIdentity identify(const std::string& path) {
  struct stat status = {};
  const bool found = ::stat(path.c_str(), &status) == 0;
  require<Failure::file>(found, "cannot read ", path, ": ", std::strerror(errno));
  require<Failure::file>(!S_ISDIR(status.st_mode), "a text file is needed, but this is a directory: ", path);
  require<Failure::file>(S_ISREG(status.st_mode), "a text file is needed, but this is not a regular file: ", path);
  return {status.st_dev, status.st_ino};
}

}  // namespace

std::vector<std::string> distinct_files(std::span<const std::string> files) {
  require(!files.empty(), "at least one text file is needed");
  std::vector<std::string> distinct;
  std::set<FileIdentity> seen;
  for (const std::string& file : files) {
    if (!seen.insert(identify(file)).second) continue;
    std::error_code failure;
    distinct.push_back(std::filesystem::canonical(file, failure).string());
    require<Failure::file>(!failure, "cannot read ", file, ": ", failure.message());
  }
  return distinct;
}

}  // namespace annulus
