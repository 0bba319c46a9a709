#include "app/help.hpp"

#include <algorithm>

#include "annulus/base/error.hpp"
#include "app/ini.hpp"

namespace annulus::app {
namespace {

constexpr std::size_t page_columns = 100, help_column = 30;

constexpr std::string_view exit_codes =
    "Exit codes:\n"
    "   0  fine\n"
    "   1  a run-time failure\n"
    "   2  usage or configuration\n"
    "   3  verification out of tolerance\n"
    "   4  does not fit (predicted before anything is allocated)\n"
    "   5  an input or output file\n"
    "   6  communication or timeout\n"
    "  75  stopped on request, resumable\n";

std::string padded(std::string text, std::size_t columns) {
  text.resize(std::max(columns, text.size()), ' ');
  return text;
}

/// The text's lines, each starting at help_column; the first one's start is already there.
std::string wrapped(std::string_view text) {
  std::string page;
  for (bool first = true; first || !text.empty(); first = false) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    page += (first ? "" : std::string(help_column, ' ')) + wrapped_line(line, help_column);
  }
  return page;
}

/// "(default: auto)", without the parentheses a described default has of its own.
std::string default_note(const Option& option) {
  std::string_view value = option.fallback;
  if (value.empty() || (option.value.empty() && value == "false")) return "";
  if (value.starts_with('(')) value = value.substr(1, value.size() - 2);
  return sentence(" (default: ", value, ")");
}

std::string option_lines(const Option& option) {
  const std::string usage = "  " + usage_of(option);
  std::string text = option.help;
  text.insert(std::min(text.find('\n'), text.size()),
              default_note(option) + (option.repeats ? "; may be repeated" : ""));
  if (usage.size() + 2 <= help_column) return padded(usage, help_column) + wrapped(text);
  return usage + "\n" + std::string(help_column, ' ') + wrapped(text);
}

std::string option_groups(const std::vector<Option>& options) {
  std::string page;
  std::vector<std::string> done;
  for (const Option& first : options) {
    if (std::ranges::find(done, first.group) != done.end()) continue;
    done.push_back(first.group);
    page += first.group + ":\n";
    for (const Option& option : options)
      if (option.group == first.group) page += option_lines(option);
    page += "\n";
  }
  return page;
}

}  // namespace

std::string wrapped_line(std::string_view text, std::size_t first_column) {
  std::string lines;
  std::size_t column = first_column;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    if (column > first_column && column + 1 + word.size() > page_columns) {
      lines += '\n';
      lines.append(first_column, ' ');
      column = first_column;
    } else if (column > first_column) {
      lines += ' ';
      ++column;
    }
    lines += word;
    column += word.size();
  }
  return lines + "\n";
}

std::vector<Option> general_options() {
  return {
      {"config", "FILE", "", "General", "options as lines 'name = value'; the command line wins"},
      {"print-config", "", "false", "General", "show every value and where it came from, as a --config file, and stop"},
      {"help", "", "false", "General", "show this page and stop"}};
}

std::string usage_of(const Option& option) {
  return "--" + option.name + (option.value.empty() ? "" : " " + option.value);
}

std::string overview_page(std::span<const Command> commands) {
  std::string page =
      "annulus computes exact attention over sequences too long for one device.\n\n"
      "usage: annulus COMMAND [options]\n"
      "       mpirun -n RANKS annulus COMMAND [options]\n\n"
      "Commands:\n";
  for (const Command& command : commands) page += "  " + padded(command.name, 10) + command.summary + "\n";
  return page + "\nannulus COMMAND --help shows a command's options; annulus --version the version.\n";
}

std::string help_page(const Command& command) {
  const std::string arguments = command.arguments.usage.empty() ? "" : " " + command.arguments.usage;
  std::string page = "usage: annulus " + command.name + arguments + " [options]\n\n" + command.summary + "\n" + command.details + "\n";
  if (!command.examples.empty()) page += "Examples:\n";
  for (const std::string& example : command.examples) page += "  " + example + "\n";
  if (!command.examples.empty()) page += "\n";
  std::vector<Option> options = command.options;
  for (Option& option : general_options()) options.push_back(std::move(option));
  return page + option_groups(options) + std::string(exit_codes);
}

std::string config_page(const Settings& settings) {
  std::string page = "# annulus " + settings.command() + "\n";
  for (const std::string& argument : settings.positional()) page += "# argument: " + argument + "\n";
  std::size_t columns = 0;
  for (const Setting& setting : settings.all())
    columns = std::max(columns, setting.option.name.size() + ini_value(setting.text).size() + 5);
  columns = std::min<std::size_t>(columns, 60);
  for (const Setting& setting : settings.all()) {
    const Option& option = setting.option;
    const std::string value = setting.text.empty() ? option.fallback : ini_value(setting.text);
    const std::string line = (setting.text.empty() ? "# " : "") + option.name + " = " + value;
    page += padded(line, columns) + "  # " + setting.origin + "\n";
  }
  return page;
}

}  // namespace annulus::app
