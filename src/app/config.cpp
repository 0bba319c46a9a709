#include "app/config.hpp"

#include <algorithm>
#include <boost/program_options.hpp>
#include <charconv>
#include <cmath>
#include <numeric>
#include <utility>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "app/help.hpp"
#include "app/ini.hpp"

namespace annulus::app {
namespace {

double parse_number(std::string_view text) {
  double value = 0;
  const auto [stop, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(problem == std::errc{} && stop == text.data() + text.size() && std::isfinite(value), "'", text,
          "' is not a finite number");
  return value;
}

bool parse_flag(std::string_view text) {
  require(text == "true" || text == "false", "a flag takes no value, or true or false: it is '", text, "'");
  return text == "true";
}

std::vector<std::string> words_of(std::string_view joined) {
  std::vector<std::string> words;
  for (;; joined.remove_prefix(joined.find('|') + 1)) {
    words.emplace_back(joined.substr(0, joined.find('|')));
    if (joined.find('|') == joined.npos) return words;
  }
}

std::string suggestion(std::string_view word, std::span<const std::string> known, std::string_view before = "") {
  const std::string meant = nearest(word, known);
  return meant.empty() ? "" : sentence("; did you mean ", before, meant, "?");
}

void require_word(std::string_view value, std::span<const std::string> allowed) {
  std::string names;
  for (const std::string& word : allowed) names += (names.empty() ? "" : ", ") + word;
  require(std::ranges::find(allowed, value) != allowed.end(), "the value must be one of ", names, ": it is '", value,
          "'", suggestion(value, allowed));
}

/// Everything that can be said about a value without knowing the other options.
void check_value(const Option& option, const std::string& value) {
  require(!value.empty(), "a value is needed: ", usage_of(option));
  require(value.find('\n') == std::string::npos, "a value must not have line breaks");
  if (option.value.empty()) parse_flag(value);
  if (option.value.find('|') != std::string::npos) require_word(value, words_of(option.value));
  if (option.check) option.check(value);
}

std::vector<Option> all_options(const Command& command) {
  std::vector<Option> options = command.options;
  for (Option& option : general_options()) options.push_back(std::move(option));
  return options;
}

std::vector<std::string> names_of(std::span<const Option> options) {
  std::vector<std::string> names;
  for (const Option& option : options) names.push_back(option.name);
  return names;
}

/// "--tokens", or "tokens in FILE, line 3".
std::string spoken(const Setting& setting) {
  const bool in_file = setting.given() && setting.origin != "command line";
  return in_file ? setting.option.name + " in " + setting.origin : "--" + setting.option.name;
}

/// Puts the option and its place in front of whatever sentence `look` throws.
template <class Look>
auto naming(const Setting& setting, Look&& look) {
  try {
    return look();
  } catch (const Error& error) {
    throw Error(error.failure(), spoken(setting) + ": " + error.what(), error.where());
  }
}

/// A value said once more: the first one of its place replaces what a weaker place said, the next ones are joined.
void say(Setting& setting, const std::string& value, const std::string& origin, bool again) {
  if (again) {
    require(setting.option.repeats, spoken(setting), " is given twice: '", setting.text, "' and '", value, "' (",
            origin, ")");
    setting.text += "," + value;
  } else {
    setting.text = value;
    setting.origin = origin;
  }
  naming(setting, [&] { check_value(setting.option, value); });
}

struct Tokens {
  std::vector<std::pair<std::string, std::string>> options;  ///< name, value
  std::vector<std::string> positional;
};

/// Splits the command line with Boost: long options only, never guessed, values after '=' or a space.
Tokens split(const std::string& command, std::span<const std::string> arguments, std::span<const Option> known) {
  namespace po = boost::program_options;
  po::options_description table;
  for (const Option& option : known) {
    auto* value = po::value<std::string>();
    if (option.value.empty()) value->implicit_value("true");
    table.add_options()(option.name.c_str(), value, "");
  }
  using namespace po::command_line_style;
  constexpr int style = allow_long | long_allow_adjacent | long_allow_next;
  const auto end = std::ranges::find(arguments, "--");
  const std::vector<std::string> head(arguments.begin(), end);
  Tokens tokens;
  for (const auto& option :
       po::command_line_parser(head).options(table).style(style).allow_unregistered().run().options) {
    const std::string& name = option.string_key;
    require(!option.unregistered, "--", name, " is not an option of annulus ", command,
            suggestion(name, names_of(known), "--"));
    if (!name.empty()) {
      const std::string value = option.value.empty() ? "true" : option.value.front();
      const bool swallowed = option.original_tokens.size() == 2 && value.starts_with("--");
      require(!swallowed, "--", name, ": a value is needed: ", usage_of(*std::ranges::find(known, name, &Option::name)),
              " (write --", name, "=", value, " if that is the value)");
      tokens.options.emplace_back(name, value);
      continue;
    }
    const std::string& argument = option.value.front();
    require(!argument.starts_with('-') || argument == "-", "'", argument,
            "' is not an option: options start with two dashes (write -- before an argument that starts with a dash)");
    tokens.positional.push_back(argument);
  }
  if (end != arguments.end()) tokens.positional.insert(tokens.positional.end(), end + 1, arguments.end());
  return tokens;
}

/// split, with Boost's own complaints turned into ours.
Tokens split_or_explain(const std::string& command, std::span<const std::string> arguments,
                        std::span<const Option> known) {
  try {
    return split(command, arguments, known);
  } catch (const boost::program_options::error_with_option_name& problem) {
    std::string name = problem.get_option_name();
    name = name.substr(std::min(name.find_first_not_of('-'), name.size()));
    const auto option = std::ranges::find(known, name, &Option::name);
    require(option == known.end(), "--", name, ": a value is needed: ", option == known.end() ? "" : usage_of(*option));
    throw Error(Failure::usage, problem.what());
  } catch (const boost::program_options::error& problem) {
    throw Error(Failure::usage, problem.what());
  }
}

Setting* find(std::vector<Setting>& settings, std::string_view name) {
  const auto setting =
      std::ranges::find(settings, name, [](const Setting& s) { return std::string_view(s.option.name); });
  return setting == settings.end() ? nullptr : &*setting;
}

void lay_file(const std::string& path, const Command& command, std::vector<Setting>& settings) {
  std::vector<std::string> seen;
  for (IniLine& line : read_ini(path)) {
    if (command.adopt != nullptr && !command.adopt(line)) continue;
    const std::string origin = sentence(path, ", line ", line.line);
    Setting* setting = find(settings, line.key);
    require(setting != nullptr, origin, ": '", line.key, "' is not an option of annulus ", command.name,
            suggestion(line.key, names_of(command.options)));
    say(*setting, line.value, origin, std::ranges::find(seen, line.key) != seen.end());
    seen.push_back(line.key);
  }
}

void check_positional(const Command& command, std::span<const std::string> positional) {
  const Arguments& rule = command.arguments;
  const std::string usage = rule.usage.empty() ? "options only" : rule.usage;
  for (const std::string& argument : positional) require(!argument.empty(), "an argument is empty; expected: ", usage);
  require(positional.size() >= rule.least, "annulus ", command.name, " needs ", rule.usage, " after its name");
  require(positional.size() <= rule.most, "'", positional.empty() ? "" : positional.back(),
          "' is one argument too many: annulus ", command.name, " takes ", usage);
}

struct Reading {
  Settings settings;
  bool print_config = false;
};

Reading read(const Command& command, std::span<const std::string> arguments) {
  std::vector<Setting> settings, general;
  for (const Option& option : command.options)
    settings.push_back({option, option.fallback.starts_with('(') ? "" : option.fallback});
  for (const Option& option : general_options()) general.push_back({option, option.fallback});

  const Tokens tokens = split_or_explain(command.name, arguments, all_options(command));
  std::vector<std::string> seen;
  const auto lay = [&](std::vector<Setting>& into, const std::string& name, const std::string& value) {
    Setting* setting = find(into, name);
    if (setting == nullptr) return;
    say(*setting, value, "command line", std::ranges::find(seen, name) != seen.end());
    seen.push_back(name);
  };
  for (const auto& [name, value] : tokens.options) lay(general, name, value);
  const std::string& file = find(general, "config")->text;
  if (!file.empty()) lay_file(file, command, settings);
  for (const auto& [name, value] : tokens.options) lay(settings, name, value);

  const bool print_config = find(general, "print-config")->text == "true";
  if (!print_config) check_positional(command, tokens.positional);
  return {Settings(command, std::move(settings), tokens.positional, file), print_config};
}

std::size_t edits(std::string_view from, std::string_view to) {
  std::vector<std::size_t> row(to.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < from.size(); ++i) {
    std::size_t corner = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < to.size(); ++j) {
      const std::size_t changed = corner + static_cast<std::size_t>(from[i] != to[j]);
      corner = std::exchange(row[j + 1], std::min({changed, row[j] + 1, row[j + 1] + 1}));
    }
  }
  return row.back();
}

}  // namespace

Check whole_number(Index least, Index most) {
  return [least, most](std::string_view value) {
    require(parse_count(value, least) <= most, "'", value, "' is above the largest value allowed, ", most);
  };
}

Check byte_count(Index least) {
  return [least](std::string_view value) { parse_bytes(value, least); };
}

Check finite_number() {
  return [](std::string_view value) { parse_number(value); };
}

Check positive_number() {
  return
      [](std::string_view value) { require(parse_number(value) > 0, "the number must be above zero: it is ", value); };
}

Check number_list() {
  return [](std::string_view value) { parse_list(value); };
}

Settings::Settings(const Command& command, std::vector<Setting> settings, std::vector<std::string> positional,
                   std::string config)
    : command_(command.name),
      settings_(std::move(settings)),
      positional_(std::move(positional)),
      config_file_(std::move(config)) {}

const Setting& Settings::at(std::string_view name) const {
  const auto setting =
      std::ranges::find(settings_, name, [](const Setting& s) { return std::string_view(s.option.name); });
  require<Failure::runtime>(setting != settings_.end(), "annulus ", command_, " has no option --", name,
                            " in its table");
  return *setting;
}

std::string Settings::name_of(std::string_view name) const { return spoken(at(name)); }

const std::string& Settings::text(std::string_view name) const { return at(name).text; }

bool Settings::flag(std::string_view name) const {
  const Setting& setting = at(name);
  return !setting.text.empty() && naming(setting, [&] { return parse_flag(setting.text); });
}

Index Settings::count(std::string_view name, Index least) const {
  const Setting& setting = at(name);
  require(!setting.text.empty(), usage_of(setting.option), " must be given");
  return naming(setting, [&] { return parse_count(setting.text, least); });
}

Index Settings::bytes(std::string_view name) const {
  const Setting& setting = at(name);
  require(!setting.text.empty(), usage_of(setting.option), " must be given");
  return naming(setting, [&] { return parse_bytes(setting.text); });
}

double Settings::number(std::string_view name) const {
  const Setting& setting = at(name);
  require(!setting.text.empty(), usage_of(setting.option), " must be given");
  return naming(setting, [&] { return parse_number(setting.text); });
}

std::vector<Range> Settings::list(std::string_view name) const {
  const Setting& setting = at(name);
  if (setting.text.empty()) return {};
  return naming(setting, [&] { return parse_list(setting.text); });
}

Settings Settings::with(std::string_view name, const std::string& text) const {
  Settings changed = *this;
  const auto place = static_cast<std::size_t>(&at(name) - settings_.data());
  Setting& setting = changed.settings_[place];
  setting.text = text;
  if (!text.empty()) naming(setting, [&] { check_value(setting.option, text); });
  return changed;
}

const std::string& Settings::choice(std::string_view name, std::span<const std::string_view> allowed) const {
  const Setting& setting = at(name);
  naming(setting, [&] { require_word(setting.text, std::vector<std::string>(allowed.begin(), allowed.end())); });
  return setting.text;
}

Settings read_settings(const Command& command, std::span<const std::string> arguments) {
  return read(command, arguments).settings;
}

Request read_command_line(std::span<const std::string> arguments, std::span<const Command> commands,
                          std::string_view version) {
  if (arguments.empty() || arguments.front() == "--help") return {.page = overview_page(commands)};
  if (arguments.front() == "--version") return {.page = sentence("annulus ", version, "\n")};
  const auto command = std::ranges::find(commands, arguments.front(), &Command::name);
  if (command == commands.end()) {
    std::vector<std::string> names;
    for (const Command& known : commands) names.push_back(known.name);
    throw Error(Failure::usage, sentence("'", arguments.front(), "' is not a command of annulus",
                                         suggestion(arguments.front(), names), " (annulus --help lists them)"));
  }
  const auto rest = arguments.subspan(1);
  const auto options_end = std::ranges::find(rest, "--");
  if (std::find(rest.begin(), options_end, "--help") != options_end) return {.page = help_page(*command)};
  Reading reading = read(*command, rest);
  if (reading.print_config) return {.page = config_page(reading.settings)};
  return {.command = &*command, .settings = std::move(reading.settings)};
}

std::string nearest(std::string_view word, std::span<const std::string> known) {
  std::string best;
  std::size_t fewest = std::max<std::size_t>(2, word.size() / 3) + 1;
  for (const std::string& name : known) {
    const bool unfinished = word.size() >= 3 && name.starts_with(word);
    const std::size_t needed = unfinished ? 1 : edits(word, name);
    if (needed < fewest && needed < name.size()) fewest = needed, best = name;
  }
  return best;
}

}  // namespace annulus::app
