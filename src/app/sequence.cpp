#include "app/sequence.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "annulus/base/error.hpp"
#include "app/backends.hpp"

namespace annulus::app {
namespace {

// Whether some token sees a later one.
bool looks_ahead(const Mask& mask) {
  return std::ranges::any_of(mask.regions(), [](const Region& r) {
    return std::min(r.band.hi, r.k.end - 1 - r.q.begin) >= std::max<Index>({1, r.band.lo, r.k.begin - (r.q.end - 1)});
  });
}

}  // namespace

bool is_sound_file(const std::string& path) {
  static constexpr std::string_view endings[] = {".wav",  ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif",
                                                 ".aiff", ".aifc", ".au",  ".snd", ".caf",  ".w64", ".rf64"};
  std::string ending = std::filesystem::path(path).extension().string();
  for (char& letter : ending) letter = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  if (std::ranges::find(endings, ending) != std::end(endings)) return true;
  static constexpr std::string_view beginnings[] = {"RIFF", "RF64", "fLaC", "OggS"};
  std::array<char, 4> bytes{};
  std::error_code unknown;
  if (!std::filesystem::is_regular_file(path, unknown)) return false;  // a pipe would lose what is read here
  std::ifstream(path, std::ios::binary).read(bytes.data(), bytes.size());
  return std::ranges::find(beginnings, std::string_view(bytes.data(), bytes.size())) != std::end(beginnings);
}

std::unique_ptr<Sequence> make_sequence(const SequenceChoice& choice) {
  const bool sounds = choice.model == "similarity" || (choice.model == "auto" && is_sound_file(choice.files.front()));
  return sounds ? make_recording_sequence(choice) : make_text_sequence(choice);
}

Mask mask_looking_back(const std::string& terms, const Extent& extent) {
  Mask asked = Mask::parse(terms.empty() ? "causal" : terms, extent);
  if (!looks_ahead(asked)) return asked;
  Mask causal = names_term(terms, "causal") ? std::move(asked) : Mask::parse("causal+" + terms, extent);
  require(!looks_ahead(causal), "run predicts each token of a text from earlier ones, and the mask ", terms,
          " lets tokens of its prefix see later ones: leave the term prefix out");
  return causal;
}

void share_coordinates(Draft& draft, const std::string& group, const std::vector<std::string>& names,
                       const std::string& others) {
  std::string all = others;
  for (const std::string& name : names) {
    all += sentence(all.empty() ? "" : " ", name);
    if (group != "tokens") draft.link(sentence(group, "/", name), sentence("tokens/", name));
  }
  draft.attribute(group, "coordinates", all);
}

void write_passages(Draft& draft, const PassageTable& table, const std::string& what) {
  static constexpr const char* names[5] = {"first_begin", "first_end", "second_begin", "second_end", "links"};
  const Index rows = static_cast<Index>(table.text.size());
  for (std::size_t c = 0; c < 5; ++c)
    draft.write_small(
        {std::string("passages/") + names[c], {rows}, Element::i64, {"passage"}, c < 4 ? "token" : "1", what},
        table.columns[c]);
  draft.write_small(
      {"passages/mean_score", {rows}, Element::f64, {"passage"}, "1", "mean of q.k over the passage; 1 is the same"},
      table.score);
  draft.write_small({"passages/text", {rows}, Element::text, {"passage"}, "", what}, table.text);
}

}  // namespace annulus::app
