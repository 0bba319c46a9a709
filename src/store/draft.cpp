#include "annulus/store/draft.hpp"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <filesystem>

#include "annulus/store/leftovers.hpp"
#include "datasets.hpp"
#include "hdf5.hpp"
#include "posix.hpp"
#include "scales.hpp"

namespace annulus {

struct Draft::State {
  enum class Stage { open, sealed, reopened, committed };
  std::string path, temporary;
  std::vector<std::string> leftovers;
  bool overwrite = false;
  Stage stage = Stage::open;
  store::Descriptor reserve;  ///< the same file, for what HDF5 does not do: reserving, syncing
  store::Id file;
  struct Written {
    std::string name;
    Index reserved_rows;  ///< -1: all
  };
  std::vector<Written> written;  ///< datasets the ranks will write
  Index rows_bytes = 0;          ///< what of them seal() reserves

  ~State();
  std::string what(const std::string& name) const { return path + ": dataset '" + name + "'"; }
  /// The file, opened again when it was closed by seal().
  hid_t opened();
  void close();
};

namespace {

using store::access_to_write;
using store::checked;
using store::Hdf5Lock;
using store::Id;
using store::owned;

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

void require_absent(const std::string& path, bool overwrite) {
  std::error_code code;
  const auto status = std::filesystem::status(path, code);
  require<Failure::file>(!std::filesystem::is_directory(status), path, ": this is a directory");
  require<Failure::file>(!std::filesystem::exists(status) || std::filesystem::is_regular_file(status), path,
                         ": this is not a regular file, and stays as it is");
  require<Failure::file>(overwrite || !std::filesystem::exists(std::filesystem::symlink_status(path, code)), path,
                         ": the file exists, and existing files are replaced only with --overwrite");
}

/// Room for headers and attributes. HDF5 1.10 cannot close a file whose headers do not fit the disk, so they must.
constexpr Index header_bytes = Index{64} << 10;

/// Texts on the disk: references in the dataset, and a heap of blocks, at whose ends there may be no room for the next
/// text. Each text has a header and takes whole words.
Index bytes_of_texts(std::span<const std::string> texts) {
  Index words = 0;
  for (const std::string& text : texts) words += ceil_div(static_cast<Index>(text.size()), 8);
  const auto count = static_cast<Index>(texts.size());
  return 33 * count + 16 * words;  // 16 and 16 of each, and some of these are lost at ends of blocks
}

}  // namespace

Draft::State::~State() {
  const Hdf5Lock lock;
  file.close();
  if (!temporary.empty() && stage != Stage::committed) ::unlink(temporary.c_str());
}

hid_t Draft::State::opened() {
  require(stage != Stage::committed, path, ": the file was committed and cannot be changed");
  if (stage == Stage::sealed) {
    const Id list = access_to_write(path);
    file = owned(H5Fopen(temporary.c_str(), H5F_ACC_RDWR, list.get()), H5Fclose,
                 path + ": the draft cannot be opened again");
    stage = Stage::reopened;
  }
  return file.get();
}

void Draft::State::close() {
  checked(H5Fflush(opened(), H5F_SCOPE_GLOBAL), path + ": the draft cannot be written");
  require<Failure::file>(file.close(), path, ": the draft cannot be closed", store::hdf5_reason());
}

Draft::Draft(const std::string& path, bool overwrite) : state_(std::make_unique<State>()) {
  const Hdf5Lock lock;
  state_->path = path;
  state_->overwrite = overwrite;
  require_absent(path, overwrite);
  state_->leftovers = store::remove_leftovers(path);
  store::require_space(path, header_bytes);
  const std::string temporary = store::temporary_name(path);
  const int file = ::open(temporary.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
  require<Failure::file>(file >= 0, path, ": the file cannot be made: ", store::reason_of(errno));
  state_->temporary = temporary;
  state_->reserve = store::Descriptor(file);
  const Id list = access_to_write(path);
  state_->file = owned(H5Fcreate(temporary.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, list.get()), H5Fclose,
                       path + ": the file cannot be made");
  attribute("/", "status", "partial");
  attribute("/", "created", utc_now());
}

const std::vector<std::string>& Draft::leftovers() const { return state_->leftovers; }

Draft::Draft(Draft&&) noexcept = default;
Draft& Draft::operator=(Draft&&) noexcept = default;
Draft::~Draft() = default;

const std::string& Draft::path() const { return state_->path; }
const std::string& Draft::temporary_path() const { return state_->temporary; }

void Draft::dimension(const std::string& path, Index length) {
  const Hdf5Lock lock;
  store::create_dimension(state_->opened(), path, length, state_->what(path));
}

void Draft::link(const std::string& path, const std::string& to) {
  const Hdf5Lock lock;
  const std::string what = state_->what(path);
  const Id links = owned(H5Pcreate(H5P_LINK_CREATE), H5Pclose, what);
  checked(H5Pset_create_intermediate_group(links.get(), 1), what);
  checked(H5Lcreate_soft(sentence("/", to).c_str(), state_->opened(), path.c_str(), links.get(), H5P_DEFAULT),
          what + " cannot be linked to '" + to + "'");
}

void Draft::add(const DatasetPlan& plan, Index reserved_rows) {
  const Hdf5Lock lock;
  const std::string what = state_->what(plan.name);
  require(state_->stage == State::Stage::open, what, " must be added before the draft is sealed");
  require(plan.element != Element::text && !plan.dims.empty(), what,
          ": rows must be numbers and have a first dimension");
  store::check_plan(plan, what);
  Shape reserved{plan.dims, plan.element};
  if (reserved_rows >= 0) reserved.dims[0] = std::min(reserved_rows, plan.dims[0]);
  const Index bytes = reserved.elements() * bytes_of(plan.element);
  store::require_space(state_->path, state_->rows_bytes + bytes + header_bytes);
  store::create_rows(state_->opened(), plan, what);
  state_->written.push_back({plan.name, reserved_rows < 0 ? -1 : reserved.dims[0]});
  state_->rows_bytes += bytes;
}

void Draft::add_view(const DatasetPlan& plan, std::span<const RowSource> sources) {
  const Hdf5Lock lock;
  const std::string what = state_->what(plan.name);
  require(state_->stage == State::Stage::open, what, " must be added before the draft is sealed");
  require(dtype_of(plan.element) && !plan.dims.empty(), what, ": rows must be floats and have a first dimension");
  store::create_view(state_->opened(), plan, sources, what);
}

void Draft::attribute(const std::string& object, const std::string& name, const Value& value) {
  const Hdf5Lock lock;
  const std::string what = sentence(state_->path, ": attribute '", name, "' of '", object, "'");
  if (const auto* texts = std::get_if<std::vector<std::string>>(&value))
    store::require_space(state_->path, bytes_of_texts(*texts) + header_bytes);
  const Id opened = owned(H5Oopen(state_->opened(), object.c_str(), H5P_DEFAULT), H5Oclose, what);
  store::write_attribute(opened.get(), name, value, what);
}

void Draft::attributes(std::span<const std::pair<std::string, Value>> values) {
  for (const auto& [name, value] : values) attribute("/", name, value);
}

void Draft::write_small(const DatasetPlan& plan, std::span<const Index> values) {
  const Hdf5Lock lock;
  const std::string what = state_->what(plan.name);
  require(is_integer(plan.element), what, " must be an integer type to hold integers, not ", name_of(plan.element));
  store::require_space(state_->path, static_cast<Index>(values.size_bytes()) + header_bytes);
  store::write_whole(state_->opened(), plan, store::type_of(Element::i64), values.data(), values.size(), what);
}

void Draft::write_small(const DatasetPlan& plan, std::span<const float> values) {
  const Hdf5Lock lock;
  const std::string what = state_->what(plan.name);
  require(plan.element == Element::f32 || plan.element == Element::f64, what,
          " must be f32 or f64 to be written whole");
  store::require_space(state_->path, static_cast<Index>(values.size_bytes()) + header_bytes);
  store::write_whole(state_->opened(), plan, store::type_of(Element::f32), values.data(), values.size(), what);
}

void Draft::write_small(const DatasetPlan& plan, std::span<const double> values) {
  const Hdf5Lock lock;
  const std::string what = state_->what(plan.name);
  require(plan.element == Element::f32 || plan.element == Element::f64, what,
          " must be f32 or f64 to be written whole");
  store::require_space(state_->path, static_cast<Index>(values.size_bytes()) + header_bytes);
  store::write_whole(state_->opened(), plan, store::type_of(Element::f64), values.data(), values.size(), what);
}

void Draft::write_small(const DatasetPlan& plan, std::span<const std::string> values) {
  const Hdf5Lock lock;
  const std::string what = state_->what(plan.name);
  require(plan.element == Element::text, what, " must be text to hold text, not ", name_of(plan.element));
  std::vector<const char*> pointers;
  for (const std::string& value : values) pointers.push_back(value.c_str());
  store::require_space(state_->path, bytes_of_texts(values) + header_bytes);
  store::write_whole(state_->opened(), plan, store::type_of(Element::text), pointers.data(), pointers.size(), what);
}

Layout Draft::seal() {
  const Hdf5Lock lock;
  State& state = *state_;
  require(state.stage == State::Stage::open, state.path, ": the draft was sealed already");
  Layout layout{state.temporary, {}};
  for (const auto& [name, reserved] : state.written)
    layout.datasets.push_back(store::place_of_rows(state.opened(), name, state.what(name)));
  state.close();
  state.stage = State::Stage::sealed;
  const bool whole = std::ranges::all_of(state.written, [](const auto& rows) { return rows.reserved_rows < 0; });
  if (whole) store::reserve(state.reserve.get(), 0, store::bytes_of_file(state.reserve.get(), state.path), state.path);
  for (std::size_t i = 0; i < layout.datasets.size() && !whole; ++i) {
    const Layout::Dataset& rows = layout.datasets[i];
    const Index count = state.written[i].reserved_rows < 0 ? rows.shape.dims[0] : state.written[i].reserved_rows;
    store::reserve(state.reserve.get(), rows.offset, count * rows.row_bytes(), state.path);
  }
  return layout;
}

void Draft::commit() {
  const Hdf5Lock lock;
  State& state = *state_;
  require(state.stage != State::Stage::open, state.path, ": a draft must be sealed before it is committed");
  require_absent(state.path, state.overwrite);
  attribute("/", "status", "complete");
  state.close();
  state.stage = State::Stage::sealed;
  const auto fail = [&state](const char* doing) {
    throw Error(Failure::file, sentence(state.path, ": the file cannot be ", doing, ": ", store::reason_of(errno)));
  };
  if (::fsync(state.reserve.get()) != 0) fail("brought to the disk");
  const auto rename = [&state](unsigned flags) {
    return ::renameat2(AT_FDCWD, state.temporary.c_str(), AT_FDCWD, state.path.c_str(), flags) == 0;
  };
  // Some file systems (NFS) cannot rename without replacing: there the check above must do.
  const bool renamed = state.overwrite ? rename(0) : rename(RENAME_NOREPLACE) || (errno == EINVAL && rename(0));
  if (!renamed && errno == EEXIST) require_absent(state.path, false);
  if (!renamed) fail("given its final name");
  state.stage = State::Stage::committed;
  const auto parent = std::filesystem::absolute(state.path).parent_path();
  const store::Descriptor directory(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() >= 0) ::fsync(directory.get());
}

}  // namespace annulus
