#include "app/tensor_places.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <span>

#include "annulus/base/error.hpp"

namespace annulus::app {
namespace {

constexpr std::array<std::string_view, 5> tensors{"q", "k", "v", "dout", "documents"};
constexpr std::string_view heads_first = "heads-first";

/// "a/b" of "/a/b/".
std::string trimmed(std::string_view path) {
  while (path.starts_with('/')) path.remove_prefix(1);
  while (path.ends_with('/')) path.remove_suffix(1);
  return std::string(path);
}

/// "q=query,k=key". Throws Error (usage).
std::map<std::string, std::string> parse_names(std::string_view text) {
  std::map<std::string, std::string> names;
  for (bool more = !text.empty(); more;) {
    const std::string_view pair = text.substr(0, text.find(','));
    more = pair.size() < text.size();
    text.remove_prefix(pair.size() + (more ? 1 : 0));
    const auto equals = pair.find('=');
    const std::string tensor(pair.substr(0, equals));
    const std::string name = equals == std::string_view::npos ? "" : trimmed(pair.substr(equals + 1));
    require(std::ranges::find(tensors, tensor) != tensors.end() && !name.empty(),
            "must be pairs TENSOR=DATASET joined by commas, of the tensors q, k, v, dout and documents: it has '", pair,
            "'");
    require(names.emplace(tensor, name).second, "must name each tensor once: it names ", tensor, " twice");
  }
  return names;
}

std::string to_text(const std::map<std::string, std::string>& names) {
  std::string text;
  for (const auto& [tensor, name] : names) text += sentence(text.empty() ? "" : ",", tensor, "=", name);
  return text;
}

/// As a shell takes it for one word.
std::string shell_word(const std::string& text) {
  constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./=,:@%+-";
  if (!text.empty() && text.find_first_not_of(plain) == text.npos) return text;
  std::string word = "'";
  for (const char c : text) word += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return word + "'";
}

/// What people call it, too.
std::span<const std::string_view> other_names(const std::string& tensor) {
  static constexpr std::string_view q[] = {"query", "queries", "Q", "xq", "query_states"},
                                    k[] = {"key", "keys", "K", "xk", "key_states"},
                                    v[] = {"value", "values", "V", "xv", "value_states"},
                                    dout[] = {"grad_out", "grad_output", "dO", "do"};
  if (tensor == "q") return q;
  if (tensor == "k") return k;
  if (tensor == "v") return v;
  return dout;
}

/// The name by which a group with these datasets has the tensor; empty: it has none.
std::string name_in(const std::set<std::string>& datasets, const std::string& tensor, const TensorPlaces& places) {
  if (const auto asked = places.names.find(tensor); asked != places.names.end() && datasets.contains(asked->second))
    return asked->second;
  if (datasets.contains(tensor)) return tensor;
  for (const std::string_view name : other_names(tensor))
    if (datasets.contains(std::string(name))) return std::string(name);
  return "";
}

/// "q [8, 4, 16] f32, results": the first things in a group.
std::string contents(const InputFile& file, const std::string& group) {
  constexpr std::size_t most = 8;
  std::string text;
  const auto names = file.names(group.empty() ? "/" : group);
  for (const std::string& name : std::span(names).first(std::min(most, names.size()))) {
    text += sentence(text.empty() ? "" : ", ", name);
    try {
      text += sentence(" ", text_of(file.shape(group.empty() ? name : sentence(group, "/", name))));
    } catch (const Error&) {  // a group
    }
  }
  return text.empty() ? "nothing" : text + (names.size() > most ? ", ..." : "");
}

}  // namespace

std::string TensorPlaces::path(const std::string& tensor) const {
  const auto other = names.find(tensor);
  const std::string& name = other == names.end() ? tensor : other->second;
  return group.empty() ? name : sentence(group, "/", name);
}

std::vector<Option> tensor_options() {
  const std::string group = "Input";
  return {
      {.name = "group",
       .value = "PATH",
       .fallback = "(/)",
       .group = group,
       .help = "group of the file that holds the datasets"},
      {.name = "names",
       .value = "Q=D,...",
       .group = group,
       .help = "datasets of other names: q=query,k=key,v=value; of q, k, v, dout and documents",
       .check = [](std::string_view text) { parse_names(text); }},
      {.name = "layout",
       .value = "tokens-first|heads-first",
       .fallback = "(tokens-first)",
       .group = group,
       .help = "datasets are [tokens, heads, channels] or [heads, tokens, channels]; results are the first, always"},
      {.name = "batch",
       .value = "N",
       .group = group,
       .help = "datasets have one axis more, in front: take its sequence N, from 0 on",
       .check = whole_number(0)}};
}

TensorPlaces tensor_places(const Settings& settings) {
  TensorPlaces places;
  places.group = trimmed(settings.text("group"));
  places.names = parse_names(settings.text("names"));
  places.axes.heads_first = settings.text("layout") == heads_first;
  if (settings.has("batch")) places.axes.batch = settings.count("batch");
  return places;
}

void record(Draft& result, const TensorPlaces& places) {
  if (!places.group.empty()) result.attribute("/", "input_group", places.group);
  if (!places.names.empty()) result.attribute("/", "input_names", to_text(places.names));
  if (places.axes.heads_first) result.attribute("/", "input_layout", std::string(heads_first));
  if (places.axes.batch >= 0) result.attribute("/", "input_batch", places.axes.batch);
}

TensorPlaces recorded_places(const InputFile& result) {
  TensorPlaces places;
  if (result.attribute("/", "input_group")) places.group = trimmed(result.text("/", "input_group"));
  try {
    if (result.attribute("/", "input_names")) places.names = parse_names(result.text("/", "input_names"));
  } catch (const Error& e) {
    if (e.failure() == Failure::file) throw;
    throw Error(Failure::file, sentence("attribute input_names of ", result.path(), " ", e.what()));
  }
  if (result.attribute("/", "input_layout")) {
    const std::string layout = result.text("/", "input_layout");
    require<Failure::file>(layout == heads_first, "attribute input_layout of ", result.path(), " must be ", heads_first,
                           ", or not be there: it is '", layout, "'");
    places.axes.heads_first = true;
  }
  if (result.attribute("/", "input_batch")) {
    const double batch = result.number("/", "input_batch");
    require<Failure::file>(batch >= 0 && batch < 0x1p53 && batch == std::floor(batch), "attribute input_batch of ",
                           result.path(), " must be a whole number, 0 or more: it is ", batch);
    places.axes.batch = static_cast<Index>(batch);
  }
  return places;
}

std::string instead_of(const std::string& tensor, const InputFile& file, const TensorPlaces& places) {
  std::map<std::string, std::set<std::string>> groups;
  for (const auto& entry : file.tree(Index{1} << 14)) {
    if (!entry.dataset || entry.scale) continue;
    const auto slash = entry.path.rfind('/');
    groups[slash == std::string::npos ? "" : entry.path.substr(0, slash)].insert(
        slash == std::string::npos ? entry.path : entry.path.substr(slash + 1));
  }
  const std::string where = places.group.empty() ? "/" : places.group;
  for (const auto& [group, datasets] : groups) {
    std::map<std::string, std::string> names;
    bool whole = true;
    for (const std::string one : {"q", "k", "v", "dout"}) {
      if (one == "dout" && tensor != one) continue;
      const std::string name = name_in(datasets, one, places);
      whole = whole && !name.empty();
      if (name != one) names.emplace(one, name);
    }
    if (!whole) continue;
    const std::string base = names.contains(tensor) ? names.at(tensor) : tensor;
    std::string options = group == places.group ? "" : sentence(" --group ", group.empty() ? "/" : shell_word(group));
    if (!names.empty()) options += sentence(" --names ", shell_word(to_text(names)));
    return sentence(" has no dataset ", places.path(tensor), "; it has ", group, group.empty() ? "" : "/", base, ":",
                    options.empty() ? sentence(" leave out --names ", shell_word(to_text(places.names))) : options);
  }
  const bool here = places.group.empty() || file.has(places.group);
  return sentence(" must have a dataset ", places.path(tensor), " ", text_of(places.axes), ": ",
                  here ? sentence(places.group.empty() ? "it" : "this group", " holds ", contents(file, places.group))
                       : sentence("it has no group ", where, ", and holds ", contents(file, "")));
}

}  // namespace annulus::app
