#include "app/report/gnuplot.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string_view>
#include <thread>

#include "annulus/base/error.hpp"
#include "app/stop.hpp"

extern char** environ;  // NOLINT: POSIX names it so

namespace annulus::app {
namespace {

namespace fs = std::filesystem;

std::string content_of(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

// The environment without what would make gnuplot another one than it is for everybody.
std::vector<char*> plain_environment() {
  std::vector<char*> out;
  for (char** one = environ; *one != nullptr; ++one)
    if (!std::string_view(*one).starts_with("GNUTERM=") && !std::string_view(*one).starts_with("GNUPLOT_LIB="))
      out.push_back(*one);
  out.push_back(nullptr);
  return out;
}

// The exit code of a child; one that runs while a stop is asked for is ended, too.
int code_of(pid_t process) {
  constexpr std::chrono::milliseconds nap(5);
  int status = 0;
  for (pid_t ended = 0; ended == 0;) {
    ended = waitpid(process, &status, WNOHANG);
    if (ended < 0 && errno != EINTR) return -1;
    if (ended == 0 && stop_requested()) {
      kill(process, SIGKILL);
      waitpid(process, &status, 0);
      require_not_stopped();
    }
    if (ended == 0) std::this_thread::sleep_for(nap);
    if (ended < 0) ended = 0;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// What gnuplot does in a folder with one argument, without the settings of its user; what it says goes to the file
// `said` there. Its exit code, -1 where it could not be started.
int gnuplot(const fs::path& folder, const char* argument) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, "said", O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  std::string name = "gnuplot", plain = "-d", word = argument;
  std::array<char*, 4> words{name.data(), plain.data(), word.data(), nullptr};
  std::vector<char*> environment = plain_environment();
  pid_t process = 0;
  const int refused = posix_spawnp(&process, "gnuplot", &actions, nullptr, words.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  return refused != 0 ? -1 : code_of(process);
}

// What it said last, in one line.
std::string last_line(const std::string& said) {
  const auto end = said.find_last_not_of(" \t\r\n");
  if (end == said.npos) return "it said nothing";
  const auto begin = said.find_last_of('\n', end);
  return said.substr(begin == said.npos ? 0 : begin + 1, end - (begin == said.npos ? 0 : begin + 1) + 1);
}

// The SVG that was drawn: cells of maps stay cells, however large they are shown.
std::string picture_of(const fs::path& path) {
  std::string svg = content_of(path);
  constexpr std::string_view image = "<image ", sharp = "style='image-rendering:pixelated' ";
  for (std::size_t at = 0; (at = svg.find(image, at)) != svg.npos; at += image.size())
    svg.insert(at + image.size(), sharp);
  return svg;
}

std::string pixels(double width, double height, int scale) {
  return sentence("size ", static_cast<int>(width) * scale, ",", static_cast<int>(height) * scale);
}

}  // namespace

Gnuplot::Gnuplot() {
  std::error_code problem;
  std::string name = (fs::temp_directory_path(problem) / "annulus-report-XXXXXX").string();
  require<Failure::runtime>(!problem, "TMPDIR must name a folder, in which figures are drawn: ", problem.message());
  if (mkdtemp(name.data()) == nullptr)
    throw Error(Failure::runtime, sentence("no folder for figures can be made: ", name, ": ", std::strerror(errno)));
  folder_ = name;
  int code = -1;
  try {
    code = gnuplot(folder_, "--version");
  } catch (...) {  // stopped
    fs::remove_all(folder_);
    throw;
  }
  if (code != 0) {
    fs::remove_all(folder_);
    throw Error(Failure::runtime,
                "gnuplot draws the figures of reports and cannot be started: install it (Debian, Ubuntu: gnuplot-nox)");
  }
  version_ = content_of(folder_ / "said");
  while (!version_.empty() && version_.back() == '\n') version_.pop_back();
}

Gnuplot::~Gnuplot() {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

std::vector<std::string> Gnuplot::draw(std::span<const Figure> figures, bool pictures) {
  const fs::path path = folder_ / "script";
  {
    std::ofstream script(path);
    for (const Figure& figure : figures) {
      script << "set terminal svg " << pixels(figure.width, figure.height, 1)
             << " dynamic noenhanced font 'Helvetica,Arial,sans-serif,13' background rgb 'white'\nset output '"
             << figure.name << ".svg'\n"
             << script_of(figure);
      if (pictures)
        script << "set terminal pngcairo " << pixels(figure.width, figure.height, 2)
               << " noenhanced font 'sans-serif,13' fontscale 1.5 linewidth 2 pointscale 2\nset output '" << figure.name
               << ".png'\n"
               << script_of(figure);
    }
    script << "unset output\n";
    if (!script.flush().good())
      throw Error(Failure::runtime, sentence("figures cannot be drawn: ", path.string(), " cannot be written"));
  }
  const int code = figures.empty() ? 0 : gnuplot(folder_, "script");
  if (code != 0)
    throw Error(Failure::runtime,
                sentence("gnuplot failed with code ", code, ": ", last_line(content_of(folder_ / "said"))));
  std::vector<std::string> drawn;
  for (const Figure& figure : figures) drawn.push_back(picture_of(folder_ / (figure.name + ".svg")));
  return drawn;
}

}  // namespace annulus::app
