#include "annulus/store/draft.hpp"

#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <filesystem>

#include "hdf5.hpp"
#include "leftovers.hpp"
#include "posix.hpp"

namespace annulus {

struct Draft::State {
  enum class Stage { open, sealed, reopened, committed };
  std::string path, temporary;
  std::vector<std::string> leftovers;
  bool overwrite = false;
  Stage stage = Stage::open;
  store::Descriptor reserve;  ///< the same file, for what HDF5 does not do: reserving, syncing
  store::Id file;
  std::vector<std::string> rows;  ///< datasets the ranks will write
  Index rows_bytes = 0;

  ~State();
  std::string what(const std::string& name) const { return path + ": dataset '" + name + "'"; }
  /// The file, opened again when it was closed by seal().
  hid_t opened();
  void close();
};

namespace {

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
  const auto status = std::filesystem::symlink_status(path, code);
  require<Failure::file>(status.type() != std::filesystem::file_type::directory, path, ": this is a directory");
  require<Failure::file>(overwrite || !std::filesystem::exists(status), path,
                         ": the file exists, and existing files are replaced only with --overwrite");
}

/// V18 object headers carry checksums and hold attributes of any length; the superblock stays readable for old readers.
/// Datasets start at multiples of 4096 bytes, so that ranks do not share pages at their borders.
Id access(const std::string& what) {
  Id list = owned(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, what);
  checked(H5Pset_libver_bounds(list.get(), H5F_LIBVER_V18, H5F_LIBVER_V110), what);
  checked(H5Pset_alignment(list.get(), hsize_t{1} << 16, 4096), what);
  return list;
}

std::vector<hsize_t> extent_of(const DatasetPlan& plan, const std::string& what) {
  Index bytes = std::max<Index>(1, bytes_of(plan.element));
  std::vector<hsize_t> dims;
  require(plan.dims.size() <= 32, what, ": a dataset has at most 32 dimensions, not ", plan.dims.size());
  for (const Index dim : plan.dims) {
    const bool holds = dim >= 0 && !__builtin_mul_overflow(bytes, std::max<Index>(1, dim), &bytes);
    require(holds, what, ": its dimensions must not be negative nor overflow: ", text_of({plan.dims, plan.element}));
    dims.push_back(static_cast<hsize_t>(dim));
  }
  require(plan.dimension_names.empty() || plan.dimension_names.size() == dims.size(), what, " has ", dims.size(),
          " dimensions, but ", plan.dimension_names.size(), " names for them");
  return dims;
}

/// Creates the dataset with its groups, names and units; contiguous, allocated now, never filled.
Id create_dataset(hid_t file, const DatasetPlan& plan, const std::string& what) {
  const auto dims = extent_of(plan, what);
  const Id space = owned(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr), H5Sclose, what);
  const Id links = owned(H5Pcreate(H5P_LINK_CREATE), H5Pclose, what);
  checked(H5Pset_create_intermediate_group(links.get(), 1), what);
  checked(H5Pset_char_encoding(links.get(), H5T_CSET_UTF8), what);
  const Id list = owned(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, what);
  if (plan.element != Element::text) {
    checked(H5Pset_alloc_time(list.get(), H5D_ALLOC_TIME_EARLY), what);
    checked(H5Pset_fill_time(list.get(), H5D_FILL_TIME_NEVER), what);
  }
  const Id type = store::type_of(plan.element);
  Id dataset = owned(H5Dcreate2(file, plan.name.c_str(), type.get(), space.get(), links.get(), list.get(), H5P_DEFAULT),
                     H5Dclose, what + " cannot be made");
  store::write_attribute(dataset.get(), "units", plan.units, what);
  store::write_attribute(dataset.get(), "long_name", plan.long_name, what);
  // What H5DSset_label of HDF5's high-level library writes.
  if (!plan.dimension_names.empty())
    store::write_attribute(dataset.get(), "DIMENSION_LABELS", plan.dimension_names, what);
  return dataset;
}

void write_whole(hid_t file, const DatasetPlan& plan, Id memory, const void* values, std::size_t count,
                 const std::string& what) {
  extent_of(plan, what);
  const Index expected = Shape{plan.dims, plan.element}.elements();
  require(expected == static_cast<Index>(count), what, " is ", text_of({plan.dims, plan.element}), ", but ", count,
          " values were given");
  Id dataset = create_dataset(file, plan, what);
  if (count > 0)
    checked(H5Dwrite(dataset.get(), memory.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values), what + " cannot be written");
  require<Failure::file>(dataset.close(), what, " cannot be closed");
}

/// Room for headers and attributes. HDF5 1.10 cannot close a file whose headers do not fit the disk, so they must.
constexpr Index header_bytes = Index{64} << 10;

void require_space(const std::string& path, Index bytes) {
  struct statvfs disk {};
  const auto parent = std::filesystem::absolute(path).parent_path();
  if (::statvfs(parent.c_str(), &disk) != 0 || disk.f_blocks == 0) return;  // no disk, such as /proc
  const auto available = static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
  require<Failure::fit>(static_cast<double>(bytes) <= available, path, ": the result needs ", bytes,
                        " bytes on the disk, but only ", static_cast<Index>(available), " are free");
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
    const Id list = access(path);
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
  require_space(path, header_bytes);
  const std::string temporary = store::temporary_name(path);
  const int file = ::open(temporary.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
  require<Failure::file>(file >= 0, path, ": the file cannot be made: ", store::reason_of(errno));
  state_->temporary = temporary;
  state_->reserve = store::Descriptor(file);
  const Id list = access(path);
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

void Draft::add(const DatasetPlan& plan) {
  const Hdf5Lock lock;
  const std::string what = state_->what(plan.name);
  require(state_->stage == State::Stage::open, what, " must be added before the draft is sealed");
  require(plan.element != Element::text && !plan.dims.empty(), what,
          ": rows must be numbers and have a first dimension");
  extent_of(plan, what);
  const Index bytes = Shape{plan.dims, plan.element}.elements() * bytes_of(plan.element);
  require_space(state_->path, state_->rows_bytes + bytes + header_bytes);
  create_dataset(state_->opened(), plan, what);
  state_->rows.push_back(plan.name);
  state_->rows_bytes += bytes;
}

void Draft::attribute(const std::string& object, const std::string& name, const Value& value) {
  const Hdf5Lock lock;
  const std::string what = sentence(state_->path, ": attribute '", name, "' of '", object, "'");
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
  require_space(state_->path, static_cast<Index>(values.size_bytes()) + header_bytes);
  write_whole(state_->opened(), plan, store::type_of(Element::i64), values.data(), values.size(), what);
}

void Draft::write_small(const DatasetPlan& plan, std::span<const float> values) {
  const Hdf5Lock lock;
  const std::string what = state_->what(plan.name);
  require(plan.element == Element::f32 || plan.element == Element::f64, what,
          " must be f32 or f64 to be written whole");
  require_space(state_->path, static_cast<Index>(values.size_bytes()) + header_bytes);
  write_whole(state_->opened(), plan, store::type_of(Element::f32), values.data(), values.size(), what);
}

void Draft::write_small(const DatasetPlan& plan, std::span<const double> values) {
  const Hdf5Lock lock;
  const std::string what = state_->what(plan.name);
  require(plan.element == Element::f32 || plan.element == Element::f64, what,
          " must be f32 or f64 to be written whole");
  require_space(state_->path, static_cast<Index>(values.size_bytes()) + header_bytes);
  write_whole(state_->opened(), plan, store::type_of(Element::f64), values.data(), values.size(), what);
}

void Draft::write_small(const DatasetPlan& plan, std::span<const std::string> values) {
  const Hdf5Lock lock;
  const std::string what = state_->what(plan.name);
  require(plan.element == Element::text, what, " must be text to hold text, not ", name_of(plan.element));
  std::vector<const char*> pointers;
  for (const std::string& value : values) pointers.push_back(value.c_str());
  require_space(state_->path, static_cast<Index>(values.size_bytes()) + header_bytes);
  write_whole(state_->opened(), plan, store::type_of(Element::text), pointers.data(), pointers.size(), what);
}

Layout Draft::seal() {
  const Hdf5Lock lock;
  State& state = *state_;
  require(state.stage == State::Stage::open, state.path, ": the draft was sealed already");
  Layout layout{state.temporary, {}};
  for (const std::string& name : state.rows) {
    const std::string what = state.what(name);
    const Id dataset = owned(H5Dopen2(state.opened(), name.c_str(), H5P_DEFAULT), H5Dclose, what);
    const Id space = owned(H5Dget_space(dataset.get()), H5Sclose, what),
             type = owned(H5Dget_type(dataset.get()), H5Tclose, what);
    std::vector<hsize_t> dims(static_cast<std::size_t>(checked(H5Sget_simple_extent_ndims(space.get()), what)));
    checked(H5Sget_simple_extent_dims(space.get(), dims.data(), nullptr), what);
    Layout::Dataset laid{name, {{dims.begin(), dims.end()}, store::element_of_type(type.get()).value()}, 0};
    const haddr_t offset = H5Dget_offset(dataset.get());
    require<Failure::file>(offset != HADDR_UNDEF || laid.shape.elements() == 0, what, " has no place in the file");
    if (laid.shape.elements() > 0) laid.offset = static_cast<Index>(offset);
    layout.datasets.push_back(std::move(laid));
  }
  state.close();
  state.stage = State::Stage::sealed;
  const Index bytes = store::bytes_of_file(state.reserve.get(), state.path);
  const int code = ::posix_fallocate(state.reserve.get(), 0, bytes);
  if (code == ENOSPC || code == EDQUOT) require_space(state.path, bytes);
  if (code != 0)
    throw Error(code == ENOSPC || code == EDQUOT ? Failure::fit : Failure::file,
                sentence(state.path, ": ", bytes, " bytes cannot be reserved on the disk: ", store::reason_of(code)));
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
