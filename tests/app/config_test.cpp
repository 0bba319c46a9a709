#include "app/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "annulus/base/error.hpp"

namespace annulus::app {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using Words = std::vector<std::string>;

Command attend() {
  Command command{.name = "attend", .summary = "q, k, v -> out, lse", .arguments = {"INPUT", 1, 1}};
  command.options = {
      {"output", "FILE", "", "Output", "where the result goes"},
      {"overwrite", "", "false", "Output", "replace an existing result"},
      {"deterministic", "", "true", "Distribution", "the same bits in every run"},
      {"tokens", "N", "64Ki", "Shape", "queries, in tokens", whole_number(1)},
      {"layers", "LIST", "", "Shape", "layers to keep", number_list(), true},
      {"device", "auto|cpu|cuda", "auto", "Distribution", "where the work is done"},
      {"kernel", "NAME", "auto", "Distribution", "which kernel"},
      {"threads", "N", "", "Distribution", "threads per rank", whole_number(1, 4096)},
      {"softmax-scale", "X", "(1/sqrt(channels))", "Shape", "factor of the scores", finite_number()},
      {"timeout", "SECONDS", "30", "Distribution", "how long to wait for a peer", positive_number()},
  };
  command.examples = {"annulus attend a.h5 --output b.h5"};
  return command;
}

Settings settle(const Words& arguments) { return read_settings(attend(), arguments); }

/// The sentence of the usage error that the arguments end in.
std::string refusal(const Words& arguments) {
  try {
    settle(arguments);
  } catch (const Error& error) {
    EXPECT_EQ(error.failure(), Failure::usage);
    return error.what();
  }
  return "nothing was refused";
}

/// A configuration file that lives as long as the test.
class File {
 public:
  explicit File(const std::string& text)
      : path_(std::filesystem::temp_directory_path() /
              ("annulus config " + std::to_string(std::random_device{}()) + ".ini")) {
    std::ofstream(path_) << text;
  }
  ~File() { std::filesystem::remove(path_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

TEST(Config, DefaultsStandUntilSomebodySpeaks) {
  const Settings settings = settle({"in.h5"});
  EXPECT_EQ(settings.positional(), Words{"in.h5"});
  EXPECT_EQ(settings.count("tokens"), 65536);
  EXPECT_EQ(settings.text("device"), "auto");
  EXPECT_EQ(settings.number("timeout"), 30);
  EXPECT_TRUE(settings.flag("deterministic"));
  EXPECT_FALSE(settings.flag("overwrite"));
  EXPECT_FALSE(settings.given("tokens"));
  EXPECT_FALSE(settings.has("output"));
  EXPECT_FALSE(settings.has("softmax-scale")) << "a described default is no value";
}

TEST(Config, ValuesFollowASpaceOrAnEqualsSign) {
  const Settings settings =
      settle({"--output=a=b.h5", "in.h5", "--softmax-scale", "-0.5", "--overwrite", "--tokens=1M"});
  EXPECT_EQ(settings.text("output"), "a=b.h5");
  EXPECT_EQ(settings.number("softmax-scale"), -0.5);
  EXPECT_EQ(settings.count("tokens"), 1'000'000);
  EXPECT_TRUE(settings.flag("overwrite"));
  EXPECT_EQ(settings.positional(), Words{"in.h5"}) << "a flag must not eat the argument after it";
}

TEST(Config, FlagsCanBeSwitchedOff) {
  EXPECT_FALSE(settle({"in", "--deterministic=false"}).flag("deterministic"));
  EXPECT_THAT(refusal({"in", "--overwrite=2"}),
              AllOf(HasSubstr("--overwrite"), HasSubstr("true or false"), HasSubstr("'2'")));
}

TEST(Config, ListsMayBeRepeatedAndNothingElse) {
  EXPECT_EQ(settle({"in", "--layers", "0,2", "--layers=5-9"}).list("layers"),
            (std::vector<Range>{{0, 1}, {2, 3}, {5, 10}}));
  EXPECT_THAT(refusal({"in", "--tokens", "1", "--tokens", "2"}),
              AllOf(HasSubstr("--tokens is given twice"), HasSubstr("'1'")));
  EXPECT_THAT(refusal({"in", "--overwrite", "--overwrite"}), HasSubstr("--overwrite is given twice"));
}

TEST(Config, UnknownNamesAreRefusedWithASuggestion) {
  EXPECT_THAT(refusal({"in", "--outptu", "x"}),
              AllOf(HasSubstr("--outptu is not an option"), HasSubstr("did you mean --output?")));
  EXPECT_THAT(refusal({"in", "--zebra=1"}), AllOf(HasSubstr("--zebra"), Not(HasSubstr("mean"))));
  EXPECT_THAT(refusal({"in", "-h"}), HasSubstr("two dashes"));
}

TEST(Config, AbbreviationsAreNotAccepted) {
  EXPECT_THAT(refusal({"in", "--out", "x"}), AllOf(HasSubstr("--out is not an option"), HasSubstr("--output")));
  EXPECT_THAT(refusal({"in", "--over"}), HasSubstr("--over is not an option"));
}

TEST(Config, EmptyAndMissingValuesAreRefused) {
  for (const Words& arguments :
       {Words{"in", "--output="}, {"in", "--output", ""}, {"in", "--output"}, {"--output", "--overwrite"}})
    EXPECT_THAT(refusal(arguments), AllOf(HasSubstr("--output"), HasSubstr("a value is needed: --output FILE")));
  EXPECT_THAT(refusal({""}), HasSubstr("an argument is empty"));
}

TEST(Config, BadNumbersAreRefusedByOptionValueAndRule) {
  for (const char* bad : {"-1", "0", "1.5", "12x", "1e3", " 1", "99999999999999999999", "0x10"})
    EXPECT_THAT(refusal({"in", "--tokens", bad}), AllOf(HasSubstr("--tokens: "), HasSubstr(bad)));
  for (const char* bad : {"nan", "inf", "-inf", "1e999", "1,5", "two"})
    EXPECT_THAT(refusal({"in", "--softmax-scale", bad}),
                AllOf(HasSubstr("--softmax-scale: "), HasSubstr(bad), HasSubstr("finite")));
  EXPECT_THAT(refusal({"in", "--timeout", "0"}), HasSubstr("above zero"));
  EXPECT_THAT(refusal({"in", "--threads", "4Ki"}), "nothing was refused");
  for (const char* bad : {"4097", "99999999999"})
    EXPECT_THAT(refusal({"in", "--threads", bad}),
                AllOf(HasSubstr("--threads: "), HasSubstr(bad), HasSubstr("largest value allowed, 4096")));
  EXPECT_THAT(refusal({"in", "--layers", "9-5"}), HasSubstr("--layers: "));
}

TEST(Config, WordsOutsideTheirListAreRefused) {
  EXPECT_THAT(refusal({"in", "--device", "gpu"}),
              AllOf(HasSubstr("--device"), HasSubstr("auto, cpu, cuda"), HasSubstr("'gpu'")));
  EXPECT_THAT(refusal({"in", "--device", "coda"}), HasSubstr("did you mean cuda?"));
  constexpr std::string_view kernels[] = {"auto", "reference", "tiled"};
  EXPECT_EQ(settle({"in", "--kernel", "tiled"}).choice("kernel", kernels), "tiled");
  EXPECT_THROW(settle({"in", "--kernel", "tilde"}).choice("kernel", kernels), Error);
}

TEST(Config, AfterTwoDashesNothingIsAnOption) {
  EXPECT_EQ(settle({"--overwrite", "--", "--output"}).positional(), Words{"--output"});
  EXPECT_EQ(settle({"--", "-x"}).positional(), Words{"-x"});
  EXPECT_THAT(refusal({"--output", "--", "in"}), HasSubstr("a value is needed"));
}

TEST(Config, ArgumentsAreCounted) {
  EXPECT_THAT(refusal({}), HasSubstr("annulus attend needs INPUT"));
  EXPECT_THAT(refusal({"a", "b"}), AllOf(HasSubstr("'b'"), HasSubstr("too many")));
}

TEST(Config, TheCommandLineWinsOverTheFileAndTheFileOverDefaults) {
  const File file("tokens = 4Ki\n\n# note\ndevice=cpu # why not\r\noverwrite = true\n");
  const Settings settings = settle({"in", "--config", file.path(), "--device", "cuda", "--overwrite=false"});
  EXPECT_EQ(settings.count("tokens"), 4096);
  EXPECT_EQ(settings.text("device"), "cuda");
  EXPECT_FALSE(settings.flag("overwrite"));
  EXPECT_TRUE(settings.given("tokens"));
  EXPECT_THAT(settings.name_of("tokens"), AllOf(HasSubstr("tokens in "), HasSubstr(", line 1")));
  EXPECT_EQ(settings.name_of("device"), "--device");
}

TEST(Config, ANumberSignCutsAValueOnlyAfterWhiteSpace) {
  const File file("output = a#1.h5 # comment\nkernel = \"b # c \" # comment\n");
  const Settings settings = settle({"in", "--config=" + file.path()});
  EXPECT_EQ(settings.text("output"), "a#1.h5");
  EXPECT_EQ(settings.text("kernel"), "b # c ");
}

TEST(Config, FilesAreRefusedByNameLineAndRule) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"\ntoken = 5", "'token' is not an option of annulus attend; did you mean tokens?"},
      {"\n[attend]", "no sections"},
      {"\ntokens", "must read 'option = value'"},
      {"\n= 5", "name of the option is missing"},
      {"\ntokens = -1", "below the least value"},
      {"\noutput =", "a value is needed"},
      {"\noutput = # x", "a value is needed"},
      {"\noutput = \"x", "must end with one"},
      {"\nconfig = other.ini", "'config' is not an option"},
      {"tokens = 4\ntokens = 5", "given twice"}};
  for (const auto& [text, rule] : cases) {
    const File file(text);
    EXPECT_THAT(refusal({"in", "--config", file.path()}),
                AllOf(HasSubstr(file.path()), HasSubstr("line 2"), HasSubstr(rule)));
  }
  EXPECT_THAT(refusal({"in", "--config", "/nowhere/x.ini"}), HasSubstr("'/nowhere/x.ini' cannot be opened"));
  EXPECT_THAT(refusal({"in", "--config", "/"}), HasSubstr("'/' cannot be read"));
}

TEST(Config, PrintConfigShowsEveryOriginAndCanBeReadBack) {
  const File file("tokens = 4Ki\n");
  const std::vector<Command> commands{attend()};
  const Words said{"attend", "--config", file.path(), "--output", "a # b.h5", "--layers", "1,2", "--print-config"};
  const std::string page = read_command_line(said, commands, "1.2.3").page;
  EXPECT_THAT(page, AllOf(HasSubstr("output = \"a # b.h5\""), HasSubstr("# command line"), HasSubstr("# default"),
                          HasSubstr(file.path() + ", line 1"), HasSubstr("# softmax-scale = (1/sqrt(channels))")));
  const File again(page);
  const Settings settings = settle({"in", "--config", again.path()});
  EXPECT_EQ(settings.text("output"), "a # b.h5");
  EXPECT_EQ(settings.count("tokens"), 4096);
  EXPECT_EQ(settings.list("layers"), (std::vector<Range>{{1, 3}}));
}

TEST(Config, PagesAreShownBeforeAnythingIsRefused) {
  const std::vector<Command> commands{attend()};
  const auto page = [&](const Words& words) { return read_command_line(words, commands, "1.2.3").page; };
  EXPECT_THAT(page({}), AllOf(HasSubstr("usage: annulus COMMAND"), HasSubstr("attend")));
  EXPECT_EQ(page({}), page({"--help"}));
  EXPECT_EQ(page({"--version"}), "annulus 1.2.3\n");
  EXPECT_THAT(
      page({"attend", "--nonsense", "--help"}),
      AllOf(HasSubstr("usage: annulus attend INPUT [options]"), HasSubstr("Examples:"),
            HasSubstr("Shape:\n  --tokens N"), HasSubstr("(default: 64Ki)"), HasSubstr("(default: 1/sqrt(channels))"),
            HasSubstr("--print-config"), HasSubstr("75  stopped on request"), Not(HasSubstr("default: )"))));
}

TEST(Config, CommandsAreFoundByTheirWholeName) {
  const std::vector<Command> commands{attend()};
  const Request request = read_command_line(Words{"attend", "in"}, commands, "1");
  EXPECT_EQ(request.command, commands.data());
  EXPECT_TRUE(request.page.empty());
  ASSERT_TRUE(request.settings.has_value());
  try {
    read_command_line(Words{"atend", "in"}, commands, "1");
    FAIL() << "an unknown command was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.failure(), Failure::usage);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("'atend' is not a command"), HasSubstr("did you mean attend?")));
  }
}

TEST(Config, AnotherValueIsCheckedAndLeavesTheOldSettingsAlone) {
  const Settings before = settle({"in", "--tokens", "8"});
  const Settings after = before.with("tokens", "2Ki").with("device", "cpu").with("softmax-scale", "");
  EXPECT_EQ(after.count("tokens"), 2048);
  EXPECT_EQ(before.count("tokens"), 8);
  EXPECT_FALSE(after.has("softmax-scale"));
  EXPECT_EQ(after.positional(), Words{"in"});
  EXPECT_THROW(before.with("tokens", "0"), Error);
  EXPECT_THROW(before.with("device", "abacus"), Error);
}

TEST(Config, ANameOutsideTheTableIsTheProgramsOwnMistake) {
  try {
    settle({"in"}).text("colour");
    FAIL() << "an option outside the table had a value";
  } catch (const Error& error) {
    EXPECT_EQ(error.failure(), Failure::runtime);
  }
}

}  // namespace
}  // namespace annulus::app
