#include "annulus/store/cache_file.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>

#include "annulus/base/error.hpp"
#include "annulus/store/draft.hpp"
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

/// All but the tokens.
CacheMark mark_of(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return {};
  return {static_cast<Index>(status.st_ino), status.st_mtim.tv_sec * Index{1'000'000'000} + status.st_mtim.tv_nsec};
}

/// The growth of an ordinary file replaces it: k and v are kept, and nothing else would be.
void require_nothing_else(const std::string& path) {
  const InputFile file(path);
  const auto refuse = [&path](const char* kind, const std::string& name) {
    throw Error(Failure::file, sentence(path, " is no cache, but a file with ", kind, " '", name,
                                        "': it cannot grow, since only k and v would be kept; copy these into a file",
                                        " of their own, or begin a new cache"));
  };
  for (const std::string& name : file.names())
    if (name != "k" && name != "v") refuse("a", name);
  for (const auto& [name, value] : file.attributes("/"))
    if (name != "status" && name != "created") refuse("the attribute", name);  // those are in every draft
}

}  // namespace

/// Not kept open: a process may have only so many files.
struct CacheFile::Part {
  std::string name, path;  ///< the name is relative to the cache's directory; empty: the cache itself
  Index rows = 0;
  Shape k, v;  ///< with all rows there is room for

  Part(std::string relative, std::string where, Index count) : name(std::move(relative)), path(std::move(where)) {
    const InputFile file(path);
    k = checked_shape(file, "k"), v = checked_shape(file, "v");
    rows = count < 0 ? k.dims[0] : count;
    require<Failure::file>(k.dims[0] == v.dims[0] && rows <= k.dims[0], path, " must hold ", rows,
                           " keys and values, and as many of the one as of the other: it has room for ", k.dims[0],
                           " and ", v.dims[0]);
  }
};

CacheFile::CacheFile(const std::string& path) : path_(path), mark_(mark_of(path)) {
  const InputFile file(path);
  const auto kind = file.attribute("/", "schema");
  if (!kind || *kind != Value(schema) || !file.has("parts")) {
    parts_.emplace_back("", path, -1);
    mark_.tokens = parts_.front().rows;
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
    mark_.tokens += rows[i];
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

Shape CacheFile::shape(const std::string& name) const {
  Shape shape = name == "k" ? parts_.front().k : parts_.front().v;
  shape.dims[0] = mark_.tokens;
  return shape;
}

void CacheFile::read_rows(const std::string& name, std::span<const Run> runs, const Rows& into,
                          const Reading& how) const {
  store::rows_of(runs, mark_.tokens, path_);
  Index begin = 0;  // the part's first token
  for (const Part& part : parts_) {
    std::optional<InputFile> file;
    Index row = 0;
    for (const Run& run : runs) {
      const auto before = [&run](Index token) {  // rows of the run that lie before it
        return std::clamp<Index>(ceil_div(token - run.first, run.stride), 0, run.count);
      };
      const Index done = before(begin), until = before(begin + part.rows);
      const Run here{run.at(done) - begin, until - done, run.stride};
      if (here.count > 0 && !file) file.emplace(part.path);
      if (here.count > 0) file->read_rows(name, {&here, 1}, into.slice(row + done, row + until), {}, how);
      row += run.count;
    }
    begin += part.rows;
  }
}

std::vector<std::string> CacheFile::part_files() const {
  std::vector<std::string> files;
  for (const Part& part : parts_)
    if (grows_) files.push_back(part.path);
  return files;
}

struct CacheGrowth::State {
  std::string path;
  CacheMark found;         ///< the cache that is to grow
  store::Descriptor lock;  ///< from hold() on
  std::vector<std::string> names;
  std::vector<Index> rows;
  Index added = 0;
  std::optional<Draft> part;                ///< a new one ...
  std::optional<store::CachePart> claimed;  ///< ... or room in the last one
  std::optional<Draft> file;
  Layout layout;
  std::vector<RowSource> sources;

  ~State();
  std::string directory() const { return path + ".rows"; }
  void require_unchanged(Index tokens) const;
  bool claim_last(const CacheFile& before);
  void make_part(const Shape& k, const Shape& v);
  void declare(const Shape& k, const Shape& v);
};

CacheGrowth::State::~State() {
  lock = {};  // release() wants it
  if (claimed) claimed->release(added);
  const bool made = part.has_value();
  part.reset();
  if (made) ::rmdir(directory().c_str());  // fails where there are parts
}

void CacheGrowth::State::require_unchanged(Index tokens) const {
  CacheMark now = mark_of(path);
  now.tokens = tokens;
  require<Failure::file>(now == found, path,
                         ": the cache was changed by somebody else meanwhile, and stays as it is now");
}

bool CacheGrowth::State::claim_last(const CacheFile& before) {
  const CacheFile::Part& last = before.parts_.back();
  store::CachePart room(last.path, last.rows);
  if (!room.claim(added)) return false;
  claimed = room;
  layout = room.reserve(added);
  rows.back() += added;
  sources.back().rows += added;
  return true;
}

void CacheGrowth::State::make_part(const Shape& k, const Shape& v) {
  require<Failure::file>(static_cast<Index>(names.size()) < most_parts, path, ": the cache has ", names.size(),
                         " parts, as many as can be read: copy its k and v into a new file, and append to that");
  const std::filesystem::path parts = directory();
  std::error_code code;
  std::filesystem::create_directory(parts, code);
  require<Failure::file>(!code, path, ": the directory of its rows, ", parts.string(),
                         ", cannot be made: ", code.message());
  std::string name;
  for (Index number = 0; name.empty() || std::filesystem::exists(parts / name); ++number) {
    const std::string digits = std::to_string(number);
    name = std::string(std::max<std::size_t>(digits.size(), 3) - digits.size(), '0') + digits + ".h5";
  }
  const auto row_bytes = [](const Shape& shape) { return Layout::Dataset{"", shape, 0}.row_bytes(); };
  const Index few = least_bytes / std::max<Index>(1, row_bytes(k) + row_bytes(v));
  const Index capacity = std::max({added, k.dims[0] - added, few});
  part.emplace((parts / name).string());
  for (const auto& [dataset, shape, channel, what] :
       {std::tuple{"k", k, "channel", "keys"}, std::tuple{"v", v, "value_channel", "values"}})
    part->add(
        {dataset, {capacity, shape.dims[1], shape.dims[2]}, shape.element, {"key", "kv_head", channel}, "1", what},
        added);
  part->write_small({"claimed", {1}, Element::i64, {}, "1", "rows that are taken"}, std::span<const Index>(&added, 1));
  layout = part->seal();
  for (Layout::Dataset& dataset : layout.datasets) dataset.shape.dims[0] = added;
  names.push_back(parts.filename() / name);
  rows.push_back(added);
  sources.push_back({names.back(), added, capacity});
}

void CacheGrowth::State::declare(const Shape& k, const Shape& v) {
  file.emplace(path, true);
  file->attribute("/", "schema", std::string(schema));
  file->attribute("/", "schema_version", Index{2});
  file->attribute("/", "tokens", k.dims[0]);
  for (const auto& [name, shape, channel, what] :
       {std::tuple{"k", k, "channel", "keys so far"}, std::tuple{"v", v, "value_channel", "values so far"}})
    file->add_view({name, shape.dims, shape.element, {"key", "kv_head", channel}, "1", what}, sources);
  const auto parts = static_cast<Index>(names.size());
  file->write_small({"parts/file", {parts}, Element::text, {"part"}, "", "files the rows lie in, one after another"},
                    names);
  file->write_small({"parts/rows", {parts}, Element::i64, {"part"}, "1", "their first rows that belong to the cache"},
                    rows);
  file->seal();
}

CacheGrowth::CacheGrowth(const std::string& path, const Shape& k, const Shape& v, const CacheMark& found)
    : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.path = real_path(path);
  state.found = found;
  state.added = k.dims[0];
  state.require_unchanged(found.tokens);
  if (found != CacheMark{}) {
    require(k.dims[0] >= found.tokens, path, ": a cache cannot shrink, from ", found.tokens, " tokens to ", k.dims[0]);
    const CacheFile before(state.path);
    state.require_unchanged(before.mark().tokens);
    if (!before.grows_) require_nothing_else(state.path);
    for (const CacheFile::Part& part : before.parts_) {
      if (!before.grows_) continue;
      state.names.push_back(part.name);
      state.rows.push_back(part.rows);
      state.sources.push_back({part.name, part.rows, part.k.dims[0]});
      state.added -= part.rows;
    }
    if (!before.grows_ || !state.claim_last(before)) state.make_part(k, v);
  } else {
    state.make_part(k, v);
  }
  state.declare(k, v);
}

CacheGrowth::CacheGrowth(CacheGrowth&&) noexcept = default;

CacheGrowth::~CacheGrowth() = default;

const Layout& CacheGrowth::layout() const { return state_->layout; }

void CacheGrowth::hold() {
  State& state = *state_;
  if (state.lock.get() >= 0) return;
  std::error_code ignored;
  std::filesystem::create_directory(state.directory(), ignored);  // a copy's rows may all be in the original's
  store::Descriptor lock = store::lock_parts(state.directory());
  state.require_unchanged(state.found.tokens);
  state.lock = std::move(lock);
}

void CacheGrowth::commit() {
  State& state = *state_;
  hold();
  if (state.part) state.part->commit();
  state.file->commit();
  state.claimed.reset();
  state.lock = {};
}

}  // namespace annulus
