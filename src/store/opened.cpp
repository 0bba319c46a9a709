#include "opened.hpp"

#include <fcntl.h>

#include <algorithm>
#include <bit>

#include "posix.hpp"

namespace annulus {
namespace {

using store::checked;
using store::Id;
using store::owned;

herr_t refuse_external_link(const char*, const char*, const char*, const char*, unsigned*, hid_t, void* met) {
  *static_cast<bool*>(met) = true;
  return -1;
}

/// Bytes of all elements; throws when the shape is negative or overflows.
Index checked_bytes(const Shape& shape, const std::string& what) {
  Index bytes = std::max<Index>(1, bytes_of(shape.element));
  for (const Index dim : shape.dims) {
    const bool holds = dim >= 0 && !__builtin_mul_overflow(bytes, std::max<Index>(1, dim), &bytes);
    require<Failure::file>(holds, what, " has an impossible shape: ", text_of(shape));
  }
  return shape.elements() == 0 ? 0 : bytes;
}

void require_contiguous_inside(hid_t dataset, Index bytes, Index file_bytes, const std::string& what) {
  const haddr_t offset = H5Dget_offset(dataset);
  require<Failure::file>(offset != HADDR_UNDEF, what, " was declared, but its data were never written");
  require<Failure::file>(offset <= static_cast<haddr_t>(file_bytes) && bytes <= file_bytes - static_cast<Index>(offset),
                         what, " needs ", bytes, " bytes from byte ", offset, ", but the file has only ", file_bytes);
}

/// A chunked dataset may be compressed, so that only the number of its chunks can be held against its shape.
void require_all_chunks(hid_t dataset, hid_t list, const Shape& shape, Index file_bytes, const std::string& what) {
  std::vector<hsize_t> chunk(shape.dims.size());
  checked(H5Pget_chunk(list, static_cast<int>(chunk.size()), chunk.data()), what + ": its chunks cannot be read");
  Index expected = 1;
  for (std::size_t i = 0; i < chunk.size(); ++i) {
    const auto length = static_cast<Index>(chunk[i]);
    require<Failure::file>(length > 0, what, " has chunks of no length");
    expected *= ceil_div(shape.dims[i], length);
  }
  require<Failure::file>(expected <= file_bytes, what, " is ", text_of(shape), " in ", expected,
                         " chunks, but the file has only ", file_bytes, " bytes");
  const Id space = owned(H5Dget_space(dataset), H5Sclose, what + ": its shape cannot be read");
  hsize_t count = 0;
  checked(H5Dget_num_chunks(dataset, space.get(), &count), what + ": its chunks cannot be read");
  require<Failure::file>(static_cast<Index>(count) == expected, what, " has only ", count, " of its ", expected,
                         " chunks: its data were never written whole");
}

H5D_layout_t require_data_inside(hid_t dataset, const Shape& shape, Index file_bytes, const std::string& what) {
  const Id list = owned(H5Dget_create_plist(dataset), H5Pclose, what + ": its properties cannot be read");
  require<Failure::file>(H5Pget_external_count(list.get()) == 0, what,
                         " keeps its data in other files, which is refused: copy it into one file");
  const H5D_layout_t layout = H5Pget_layout(list.get());
  require<Failure::file>(layout != H5D_VIRTUAL, what,
                         " is a virtual dataset made of other files, which is refused: copy it into one file");
  const Index bytes = checked_bytes(shape, what);
  if (bytes == 0 || layout == H5D_COMPACT) return H5D_COMPACT;
  if (layout == H5D_CHUNKED) {
    require_all_chunks(dataset, list.get(), shape, file_bytes, what);
    return layout;
  }
  require<Failure::file>(layout == H5D_CONTIGUOUS, what, " has a layout that is not known");
  // Text: the dataset itself holds references of 16 bytes.
  require_contiguous_inside(dataset, bytes, file_bytes, what);
  return layout;
}

/// The descriptor of an open file; -1 where HDF5 does not read it with plain calls of the system.
int descriptor_of(const Id& file, const Id& access, const std::string& path) {
  if (H5Pget_driver(access.get()) != H5FD_SEC2) return -1;
  void* handle = nullptr;
  checked(H5Fget_vfd_handle(file.get(), access.get(), &handle), path + ": its descriptor cannot be had");
  return *static_cast<const int*>(handle);
}

/// HDF5 keeps 1 MiB of chunks, and larger ones not at all: it would decompress them again for each run of rows.
Id access_with_room_for_a_chunk(hid_t dataset, const Shape& shape, const std::string& what) {
  constexpr hsize_t usual = hsize_t{1} << 20, most = hsize_t{256} << 20;
  const Id list = owned(H5Dget_create_plist(dataset), H5Pclose, what);
  std::vector<hsize_t> chunk(shape.dims.size());
  checked(H5Pget_chunk(list.get(), static_cast<int>(chunk.size()), chunk.data()), what);
  hsize_t bytes = static_cast<hsize_t>(std::max<Index>(1, bytes_of(shape.element)));
  for (const hsize_t length : chunk) bytes = std::min(most + 1, bytes) * std::min(most, length);
  Id access = owned(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose, what);
  if (usual < bytes && bytes <= most)
    checked(H5Pset_chunk_cache(access.get(), H5D_CHUNK_CACHE_NSLOTS_DEFAULT, bytes, H5D_CHUNK_CACHE_W0_DEFAULT), what);
  return access;
}

}  // namespace

InputFile::Opened::Opened(const std::string& name) : path(name) {
  const store::Descriptor probe = store::open_file(path, O_RDONLY);
  file_bytes = store::bytes_of_file(probe.get(), path);
  const htri_t known = checked(H5Fis_hdf5(path.c_str()), path + ": the file cannot be read");
  require<Failure::file>(known > 0, path, ": this is not an HDF5 file");
  const Id access = owned(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, path);
  file =
      owned(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose, path + ": the HDF5 file cannot be opened");
  descriptor = descriptor_of(file, access, path);
  links = owned(H5Pcreate(H5P_LINK_ACCESS), H5Pclose, path);
  checked(H5Pset_elink_cb(links.get(), refuse_external_link, &met_external_link), path);
}

InputFile::Opened::~Opened() {
  const store::Hdf5Lock lock;
  links.close();
  file.close();
}

Id InputFile::Opened::object(const std::string& name) const {
  const std::string at = path + ": '" + name + "'";
  met_external_link = false;
  const hid_t id = name.empty() ? -1 : H5Oopen(file.get(), name.c_str(), links.get());
  require<Failure::file>(!met_external_link, at,
                         " is a link into another file, which is refused: copy it into one file");
  if (id < 0) require<Failure::file>(has(name), path, ": there is no '", name, "' in the file");
  return owned(id, H5Oclose, at + " cannot be opened");
}

bool InputFile::Opened::has(const std::string& name) const {
  if (name.empty()) return false;
  if (name == "/") return true;
  // H5Lexists fails, rather than denies, when a group on the way is missing.
  for (std::size_t end = name.find('/', 1); end != std::string::npos; end = name.find('/', end + 1))
    if (H5Lexists(file.get(), name.substr(0, end).c_str(), links.get()) <= 0) return false;
  return H5Lexists(file.get(), name.c_str(), links.get()) > 0;
}

std::string InputFile::Opened::soft_link(const std::string& name) const {
  H5L_info_t info{};
  constexpr std::size_t longest = 4096;
  if (H5Lget_info(file.get(), name.c_str(), &info, links.get()) < 0 || info.type != H5L_TYPE_SOFT) return "";
  std::string to(std::min(longest, info.u.val_size), '\0');
  if (H5Lget_val(file.get(), name.c_str(), to.data(), to.size(), links.get()) < 0) return "";
  to.resize(std::min(to.size(), to.find('\0')));
  return to;
}

InputFile::Opened::Dataset InputFile::Opened::dataset(const std::string& name) const {
  Dataset found{object(name), {}, what(name)};
  const hid_t id = found.id.get();
  require<Failure::file>(H5Iget_type(id) == H5I_DATASET, path, ": '", name, "' is not a dataset");
  const Id space = owned(H5Dget_space(id), H5Sclose, found.what + ": its shape cannot be read");
  const Id type = owned(H5Dget_type(id), H5Tclose, found.what + ": its type cannot be read");
  require<Failure::file>(H5Sget_simple_extent_type(space.get()) != H5S_NULL, found.what, " is empty: it has no shape");
  std::vector<hsize_t> dims(static_cast<std::size_t>(
      checked(H5Sget_simple_extent_ndims(space.get()), found.what + ": its shape cannot be read")));
  checked(H5Sget_simple_extent_dims(space.get(), dims.data(), nullptr), found.what + ": its shape cannot be read");
  for (const hsize_t dim : dims) found.shape.dims.push_back(static_cast<Index>(dim));
  const auto element = store::element_of_type(type.get());
  require<Failure::file>(element.has_value(), found.what,
                         " must hold f16, bf16, f32, f64, integers or text; its type is none of them");
  found.shape.element = *element;
  const H5D_layout_t layout = require_data_inside(id, found.shape, file_bytes, found.what);
  found.chunked = layout == H5D_CHUNKED;
  constexpr H5T_order_t mine = std::endian::native == std::endian::little ? H5T_ORDER_LE : H5T_ORDER_BE;
  if (layout == H5D_CONTIGUOUS && descriptor >= 0 && H5Tget_order(type.get()) == mine)
    found.offset = static_cast<Index>(H5Dget_offset(id));
  if (!found.chunked) return found;
  const Id access = access_with_room_for_a_chunk(id, found.shape, found.what);
  found.id = {};  // HDF5 looks at the list when a dataset is opened that is not open yet
  found.id = owned(H5Dopen2(file.get(), name.c_str(), access.get()), H5Dclose, found.what + " cannot be opened");
  return found;
}

Value InputFile::Opened::whole(const std::string& name, Index limit) const {
  const Dataset found = dataset(name);
  require<Failure::file>(found.shape.elements() <= limit, found.what, " has ", found.shape.elements(),
                         " elements, but at most ", limit, " are read at once");
  const Id type = owned(H5Dget_type(found.id.get()), H5Tclose, found.what);
  const Id space = owned(H5Dget_space(found.id.get()), H5Sclose, found.what);
  const auto read = [&](hid_t memory, void* to) {
    return H5Dread(found.id.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, to);
  };
  return store::read_value(type.get(), space.get(), false, read, found.what);
}

std::vector<std::string> InputFile::Opened::names(const std::string& group) const {
  const Id opened = object(group);
  require<Failure::file>(H5Iget_type(opened.get()) == H5I_GROUP, path, ": '", group, "' is not a group");
  H5G_info_t info{};
  checked(H5Gget_info(opened.get(), &info), path + ": group '" + group + "' cannot be read");
  require<Failure::file>(info.nlinks <= static_cast<hsize_t>(file_bytes), path, ": group '", group,
                         "' has an impossible number of names");
  std::vector<std::string> names;
  for (hsize_t i = 0; i < info.nlinks; ++i) {
    const auto name = [&](char* to, std::size_t bytes) {
      const ssize_t length =
          H5Lget_name_by_idx(opened.get(), ".", H5_INDEX_NAME, H5_ITER_INC, i, to, bytes, H5P_DEFAULT);
      return static_cast<std::size_t>(checked(length, path + ": a name in group '" + group + "' cannot be read"));
    };
    std::string text(name(nullptr, 0) + 1, '\0');
    text.resize(name(text.data(), text.size()));
    names.push_back(std::move(text));
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace annulus
