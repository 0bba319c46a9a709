#pragma once
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "annulus/base/types.hpp"
#include "annulus/geometry/range.hpp"

namespace annulus::app {

class Context;  ///< what main lends a command; defined beside main

/// Looks at a value while the command line is read: throws Error (usage) with the rule and the value as its sentence;
/// the name of the option and where it stands are put in front.
using Check = std::function<void(std::string_view value)>;

/// 4096, 64Ki, 1M ..., at least `least` and at most `most`.
Check whole_number(Index least = 0, Index most = far);
/// 80GiB, 141GB, 512Mi ..., at least `least`.
Check byte_count(Index least = 0);
/// A number that is neither infinite nor NaN.
Check finite_number();
/// A finite number above zero.
Check positive_number();
/// "0,2,5-9".
Check number_list();

/// One line of a command's table of options.
///   {.name = "window", .value = "N", .fallback = "4Ki", .group = "Shape", .help = "keys a query sees, in tokens",
///    .check = whole_number(1)}
struct Option {
  std::string name = {};  ///< without the dashes
  std::string value =
      {};  ///< placeholder, FILE; words joined by '|' are the only values allowed; empty: a flag, true or false
  std::string fallback =
      {};  ///< the default as text; in parentheses, "(1/sqrt(channels))": no value, but described; empty: none
  std::string group = {};  ///< heading in --help, in order of first appearance
  std::string help = {};   ///< what it means, with its unit
  Check check = {};
  bool repeats = false;  ///< may be given several times; the values are joined by commas
};

/// What may stand beside the options.
struct Arguments {
  std::string usage = {};  ///< "FILE..."
  std::size_t least = 0, most = 0;
};

class Settings;
struct IniLine;  ///< ini.hpp

/// One command of the program: everything --help says and the function that does it. run returns the exit code.
struct Command {
  std::string name = {}, summary = {};
  std::string details = {};  ///< more lines for the command's own page
  Arguments arguments = {};
  std::vector<Option> options = {};  ///< --config, --print-config and --help are added to every command
  std::vector<std::string> examples = {};
  int (*run)(const Settings&, Context&) = nullptr;
  /// Looks at each line of --config before it is taken, and may change it; false: it is meant for other commands.
  bool (*adopt)(IniLine&) = nullptr;
};

/// The value an option ended up with, and who said so.
struct Setting {
  Option option = {};
  std::string text = {};           ///< empty: no value
  std::string origin = "default";  ///< or "command line", or "FILE, line N"
  bool given() const { return origin != "default"; }
};

/// All options of one command after command line, file and defaults were laid over one another. Values have passed
/// their checks. Getters throw Error (usage) with the option's name when its value is missing or of another kind, and
/// Error (runtime) for a name that is not in the command's table.
class Settings {
 public:
  /// config: of --config, empty: none.
  Settings(const Command& command, std::vector<Setting> settings, std::vector<std::string> positional,
           std::string config = {});

  const std::string& command() const { return command_; }
  /// The value, or an empty text when there is none.
  const std::string& text(std::string_view name) const;
  bool flag(std::string_view name) const;
  /// A whole number, 64Ki included, at least `least`.
  Index count(std::string_view name, Index least = 0) const;
  /// Bytes, 80GiB included.
  Index bytes(std::string_view name) const;
  /// Finite.
  double number(std::string_view name) const;
  /// Sorted disjoint ranges from "0,2,5-9"; empty when there is no value.
  std::vector<Range> list(std::string_view name) const;
  /// The value, which must be one of those allowed: for names that are known only when the program runs.
  const std::string& choice(std::string_view name, std::span<const std::string_view> allowed) const;
  /// Set by the user, on the command line or in the file.
  bool given(std::string_view name) const { return at(name).given(); }
  /// Set by the user or by a default.
  bool has(std::string_view name) const { return !at(name).text.empty(); }
  const std::vector<std::string>& positional() const { return positional_; }
  /// The file that --config names; empty: none.
  const std::string& config_file() const { return config_file_; }
  /// The same with another value, checked like any other; an empty text: none. For commands that try several.
  Settings with(std::string_view name, const std::string& text) const;
  /// Every option in the order of the table.
  const std::vector<Setting>& all() const { return settings_; }
  /// "--tokens" or "tokens in FILE, line 3": how to name an option in a sentence about its value.
  std::string name_of(std::string_view name) const;

 private:
  const Setting& at(std::string_view name) const;
  std::string command_;
  std::vector<Setting> settings_;
  std::vector<std::string> positional_;
  std::string config_file_;
};

/// What the user asked for: a page to print (then stop, exit code 0) or a command to run.
struct Request {
  std::string page = {};
  const Command* command = nullptr;  ///< one of the table's; null when there is a page
  std::optional<Settings> settings = {};
};

/// Reads everything after the program's name. `annulus`, --help, --version, COMMAND --help and COMMAND --print-config
/// become pages. Throws Error (usage) with one sentence for anything that is not as the tables say. Options are never
/// abbreviated; what follows `--` is never an option; the command line wins over --config FILE (see ini.hpp).
Request read_command_line(std::span<const std::string> arguments, std::span<const Command> commands,
                          std::string_view version);

/// The same for one command, after its name, without pages.
Settings read_settings(const Command& command, std::span<const std::string> arguments);

/// The known word that was most likely meant, or empty when none is close.
std::string nearest(std::string_view word, std::span<const std::string> known);

}  // namespace annulus::app
