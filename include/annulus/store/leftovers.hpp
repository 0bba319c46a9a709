#pragma once
#include <string>
#include <vector>

namespace annulus::store {

/// A name for a file until it is whole: PATH.partial-SYSTEM-PROCESS-RANDOM, where SYSTEM is this start of this machine. Two
/// results of one name can be drafted at the same time, also on different hosts.
std::string temporary_name(const std::string& path);

/// Removes the temporary files of `path` whose process ran on this system and is gone: it was killed before it could.
/// Returns their names.
std::vector<std::string> remove_leftovers(const std::string& path);

}  // namespace annulus::store
