#include "annulus/store/leftovers.hpp"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <random>
#include <system_error>

#include "annulus/base/error.hpp"

namespace annulus::store {
namespace {

// Where process numbers mean the same: this start of this kernel, and the name space of processes. Host names are no
// proof: containers and badly named nodes share them. "0" where that is not known.
std::string system_mark() {
  std::string start;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> start;
  std::erase(start, '-');
  std::error_code code;
  std::string space = std::filesystem::read_symlink("/proc/self/ns/pid", code).string();  // pid:[4026531836]
  std::erase_if(space, [](char c) { return c < '0' || c > '9'; });
  if (start.size() < 8 || code || space.empty()) return "0";
  return start.substr(0, 8) + "." + space;
}

// Ended, though its parent may not have asked for its exit code yet.
bool is_gone(pid_t process) {
  if (::kill(process, 0) != 0) return errno == ESRCH;
  std::ifstream file(sentence("/proc/", process, "/stat"));
  std::string line;
  std::getline(file, line);
  const std::size_t name_end = line.rfind(") ");  // 123 (name) S ...
  return name_end != std::string::npos && name_end + 2 < line.size() && line[name_end + 2] == 'Z';
}

}  // namespace

std::string temporary_name(const std::string& path) {
  std::random_device random;
  return sentence(path, ".partial-", system_mark(), "-", ::getpid(), "-", std::hex, random());
}

std::vector<std::string> remove_leftovers(const std::string& path) {
  std::vector<std::string> removed;
  const std::string mark = system_mark();
  if (mark == "0") return removed;
  const std::string begin = std::filesystem::path(path).filename().string() + ".partial-" + mark + "-";
  std::error_code code;
  std::filesystem::directory_iterator entry(std::filesystem::absolute(path).parent_path(), code);
  for (; !code && entry != std::filesystem::directory_iterator(); entry.increment(code)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(begin)) continue;
    pid_t process = 0;
    const char* end = name.data() + name.size();
    const auto [stop, problem] = std::from_chars(name.data() + begin.size(), end, process);
    const bool gone = problem == std::errc{} && stop != end && *stop == '-' && process > 0 && is_gone(process);
    if (gone && ::unlink(entry->path().c_str()) == 0) removed.push_back(entry->path().string());
  }
  std::ranges::sort(removed);
  return removed;
}

}  // namespace annulus::store
