#include "annulus/store/cache_file.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>

#include "annulus/base/error.hpp"
#include "annulus/store/draft.hpp"
#include "annulus/store/input_file.hpp"
#include "cache_part.hpp"
#include "posix.hpp"

namespace annulus {
namespace {

constexpr const char* schema = "annulus-cache";
constexpr Index most_parts = 4096;
constexpr Index least_bytes = Index{4} << 20;  // of a part, unwritten ones take no space

Shape checked_shape(const InputFile& file, const std::string& name) {
  require<Failure::file>(file.has(name), file.path(), " must have a dataset ", name, " [tokens, heads, channels]");
  Shape shape = file.shape(name);
  require<Failure::file>(shape.dims.size() == 3 && dtype_of(shape.element), "dataset ", name, " of ", file.path(),
                         " must be f16, bf16, f32 or f64 [tokens, heads, channels]: it is ", text_of(shape));
  return shape;
}

/// Parts lie in one directory beside the cache: a file from elsewhere cannot make us read others.
std::string path_of_part(const std::string& cache, const std::string& name) {
  const std::filesystem::path part(name);
  const bool beside = std::distance(part.begin(), part.end()) == 2 && !part.has_root_path() &&
                      std::ranges::none_of(part, [](const auto& word) { return word == ".." || word == "."; });
  require<Failure::file>(beside, cache, ": parts/file must name files in a directory beside it, not '", name, "'");
  std::string path = (std::filesystem::path(cache).parent_path() / part).string();
  require<Failure::file>(std::filesystem::exists(path), cache, ": its part ", path,
                         " is missing; a cache is the file and the directory beside it");
  return path;
}

/// The file itself where `path` is a link to it: its parts are beside the file.
std::string real_path(const std::string& path) {
  std::error_code code;
  const auto real = std::filesystem::weakly_canonical(path, code);
  return code ? path : real.string();
}

}  // namespace

struct CacheFile::Part {
  std::string name;  ///< relative to the cache's directory; empty: the cache itself
  InputFile file;
  Index rows = 0;
  Shape k, v;  ///< with all rows there is room for

  Part(std::string relative, const std::string& path, Index count)
      : name(std::move(relative)), file(path), k(checked_shape(file, "k")), v(checked_shape(file, "v")) {
    rows = count < 0 ? k.dims[0] : count;
    require<Failure::file>(k.dims[0] == v.dims[0] && rows <= k.dims[0], path, " must hold ", rows,
                           " keys and values, and as many of the one as of the other: it has room for ", k.dims[0],
                           " and ", v.dims[0]);
  }
};

CacheFile::CacheFile(const std::string& path) : path_(path) {
  const InputFile file(path);
  const auto kind = file.attribute("/", "schema");
  if (!kind || *kind != Value(schema) || !file.has("parts")) {
    parts_.emplace_back("", path, -1);
    return;
  }
  grows_ = true;
  const std::string real = real_path(path);
  const auto names = file.read_texts("parts/file", most_parts);
  const auto rows = file.read_integers("parts/rows", most_parts);
  require<Failure::file>(!names.empty() && names.size() == rows.size(), path,
                         ": parts/file and parts/rows must be equally long, and not empty: they have ", names.size(),
                         " and ", rows.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    require<Failure::file>(rows[i] >= 0, path, ": parts/rows must not be negative: ", rows[i]);
    parts_.emplace_back(names[i], path_of_part(real, names[i]), rows[i]);
    for (const auto& [mine, first] : {std::pair{parts_[i].k, parts_[0].k}, std::pair{parts_[i].v, parts_[0].v}})
      require<Failure::file>(
          mine.element == first.element &&
              std::ranges::equal(mine.dims.begin() + 1, mine.dims.end(), first.dims.begin() + 1, first.dims.end()),
          path, ": its parts must be alike: ", names[i], " holds ", text_of(mine), ", ", names[0], " ", text_of(first));
  }
}

CacheFile::CacheFile(CacheFile&&) noexcept = default;
CacheFile& CacheFile::operator=(CacheFile&&) noexcept = default;
CacheFile::~CacheFile() = default;

const std::string& CacheFile::path() const { return path_; }

Index CacheFile::tokens() const {
  Index tokens = 0;
  for (const Part& part : parts_) tokens += part.rows;
  return tokens;
}

Shape CacheFile::shape(const std::string& name) const {
  Shape shape = name == "k" ? parts_.front().k : parts_.front().v;
  shape.dims[0] = tokens();
  return shape;
}

void CacheFile::read_rows(const std::string& name, std::span<const Run> runs, const Rows& into) const {
  store::rows_of(runs, tokens(), path_);
  Index row = 0;
  for (const Run& run : runs) {
    Index begin = 0, done = 0;  // the part's first token; rows of this run that were read
    for (const Part& part : parts_) {
      const Index end = begin + part.rows;
      const Index until = std::clamp<Index>(ceil_div(end - run.first, run.stride), done, run.count);
      const Run here{run.at(done) - begin, until - done, run.stride};
      if (here.count > 0) part.file.read_rows(name, {&here, 1}, into.slice(row + done, row + until));
      begin = end;
      done = until;
    }
    row += run.count;
  }
}

std::vector<std::string> CacheFile::files() const {
  std::vector<std::string> files{path_};
  for (const Part& part : parts_)
    if (grows_) files.push_back(part.file.path());
  return files;
}

struct CacheGrowth::State {
  std::string path;
  std::optional<std::filesystem::file_time_type> found;  ///< when the cache was written that is to grow
  std::vector<std::string> names;
  std::vector<Index> rows;
  Index added = 0;
  std::optional<Draft> part;                ///< a new one ...
  std::optional<store::CachePart> claimed;  ///< ... or room in the last one
  std::optional<Draft> file;
  Layout layout;
  std::vector<RowSource> sources;

  ~State();
  std::optional<std::filesystem::file_time_type> written() const;
  bool claim_last(const CacheFile& before);
  void make_part(const Shape& k, const Shape& v);
  void declare(const Shape& k, const Shape& v);
};

CacheGrowth::State::~State() {
  if (claimed) claimed->release(added);
  const bool made = part.has_value();
  part.reset();
  if (made) ::rmdir((path + ".rows").c_str());  // fails where there are parts
}

// The name is given to a new file by each growth, so that its time is enough.
std::optional<std::filesystem::file_time_type> CacheGrowth::State::written() const {
  std::error_code code;
  const auto time = std::filesystem::last_write_time(path, code);
  return code ? std::nullopt : std::optional(time);
}

bool CacheGrowth::State::claim_last(const CacheFile& before) {
  const CacheFile::Part& last = before.parts_.back();
  store::CachePart room(last.file.path(), last.rows);
  if (!room.claim(added)) return false;
  claimed = room;
  layout = room.reserve(added);
  rows.back() += added;
  sources.back().rows += added;
  return true;
}

void CacheGrowth::State::make_part(const Shape& k, const Shape& v) {
  const std::filesystem::path directory = path + ".rows";
  std::error_code code;
  std::filesystem::create_directory(directory, code);
  require<Failure::file>(!code, path, ": the directory of its rows, ", directory.string(),
                         ", cannot be made: ", code.message());
  std::string name;
  for (Index number = 0; name.empty() || std::filesystem::exists(directory / name); ++number) {
    const std::string digits = std::to_string(number);
    name = std::string(std::max<std::size_t>(digits.size(), 3) - digits.size(), '0') + digits + ".h5";
  }
  const auto row_bytes = [](const Shape& shape) { return Layout::Dataset{"", shape, 0}.row_bytes(); };
  const Index few = least_bytes / std::max<Index>(1, row_bytes(k) + row_bytes(v));
  const Index capacity = std::max({added, k.dims[0] - added, few});
  part.emplace((directory / name).string());
  for (const auto& [dataset, shape, what] : {std::tuple{"k", k, "keys"}, std::tuple{"v", v, "values"}})
    part->add({dataset, {capacity, shape.dims[1], shape.dims[2]}, shape.element, {"key", "head", "channel"}, "1", what},
              added);
  part->write_small({"claimed", {1}, Element::i64, {}, "1", "rows that are taken"}, std::span<const Index>(&added, 1));
  layout = part->seal();
  for (Layout::Dataset& dataset : layout.datasets) dataset.shape.dims[0] = added;
  names.push_back(directory.filename() / name);
  rows.push_back(added);
  sources.push_back({names.back(), added, capacity});
}

void CacheGrowth::State::declare(const Shape& k, const Shape& v) {
  file.emplace(path, true);
  file->attribute("/", "schema", std::string(schema));
  file->attribute("/", "schema_version", Index{2});
  file->attribute("/", "tokens", k.dims[0]);
  for (const auto& [name, shape, what] : {std::tuple{"k", k, "keys so far"}, std::tuple{"v", v, "values so far"}})
    file->add_view({name, shape.dims, shape.element, {"key", "head", "channel"}, "1", what}, sources);
  const auto parts = static_cast<Index>(names.size());
  file->write_small({"parts/file", {parts}, Element::text, {"part"}, "", "files the rows lie in, one after another"},
                    names);
  file->write_small({"parts/rows", {parts}, Element::i64, {"part"}, "1", "their first rows that belong to the cache"},
                    rows);
  file->seal();
}

CacheGrowth::CacheGrowth(const std::string& path, const Shape& k, const Shape& v) : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.path = real_path(path);
  state.found = state.written();
  state.added = k.dims[0];
  if (state.found) {
    const CacheFile before(state.path);
    for (const CacheFile::Part& part : before.parts_) {
      if (!before.grows_) continue;
      state.names.push_back(part.name);
      state.rows.push_back(part.rows);
      state.sources.push_back({part.name, part.rows, part.k.dims[0]});
      state.added -= part.rows;
    }
    require(state.added >= 0, path, ": a cache cannot shrink, from ", before.tokens(), " tokens to ", k.dims[0]);
    if (!before.grows_ || !state.claim_last(before)) state.make_part(k, v);
  } else {
    state.make_part(k, v);
  }
  state.declare(k, v);
}

CacheGrowth::CacheGrowth(CacheGrowth&&) noexcept = default;

CacheGrowth::~CacheGrowth() = default;

const Layout& CacheGrowth::layout() const { return state_->layout; }

void CacheGrowth::commit() {
  State& state = *state_;
  require<Failure::file>(state.written() == state.found, state.path,
                         ": the cache was changed by somebody else meanwhile, and stays as it is now");
  if (state.part) state.part->commit();
  state.file->commit();
  state.claimed.reset();
}

}  // namespace annulus
