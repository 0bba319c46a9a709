#include "datasets.hpp"

#include <algorithm>
#include <limits>
#include <string_view>

#include "scales.hpp"

namespace annulus::store {
namespace {

Id space_of(const std::vector<Index>& dims, const std::string& what) {
  const std::vector<hsize_t> extent(dims.begin(), dims.end());
  return owned(H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr), H5Sclose, what);
}

/// Rows [begin, begin + count) of rows shaped as `dims`.
Id rows_in(std::vector<Index> dims, Index begin, Index count, const std::string& what) {
  Id space = space_of(dims, what);
  std::vector<hsize_t> start(dims.size(), 0), counts(dims.begin(), dims.end());
  start[0] = static_cast<hsize_t>(begin);
  counts[0] = static_cast<hsize_t>(count);
  checked(H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start.data(), nullptr, counts.data(), nullptr), what);
  return space;
}

/// HDF5 reads names of source files as printf does: %b counts blocks, %% is %.
std::string source_name(std::string_view file) {
  std::string name;
  for (const char letter : file) name.append(letter == '%' ? 2 : 1, letter);
  return name;
}

Id create(hid_t file, const DatasetPlan& plan, const Id& properties, const std::string& what) {
  const Id space = space_of(plan.dims, what);
  const Id links = owned(H5Pcreate(H5P_LINK_CREATE), H5Pclose, what);
  checked(H5Pset_create_intermediate_group(links.get(), 1), what);
  checked(H5Pset_char_encoding(links.get(), H5T_CSET_UTF8), what);
  const Id type = type_of(plan.element);
  Id dataset =
      owned(H5Dcreate2(file, plan.name.c_str(), type.get(), space.get(), links.get(), properties.get(), H5P_DEFAULT),
            H5Dclose, what + " cannot be made");
  write_attribute(dataset.get(), "units", plan.units, what);
  write_attribute(dataset.get(), "long_name", plan.long_name, what);
  name_dimensions(file, plan, dataset.get(), what);
  return dataset;
}

Id create_contiguous(hid_t file, const DatasetPlan& plan, const std::string& what) {
  const Id properties = owned(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, what);
  if (plan.element != Element::text) {
    checked(H5Pset_alloc_time(properties.get(), H5D_ALLOC_TIME_EARLY), what);
    checked(H5Pset_fill_time(properties.get(), H5D_FILL_TIME_NEVER), what);
  }
  return create(file, plan, properties, what);
}

}  // namespace

Id access_to_write(const std::string& what) {
  Id list = owned(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, what);
  checked(H5Pset_libver_bounds(list.get(), H5F_LIBVER_V18, H5F_LIBVER_V110), what);
  checked(H5Pset_alignment(list.get(), hsize_t{1} << 16, 4096), what);
  return list;
}

void check_plan(const DatasetPlan& plan, const std::string& what) {
  Index bytes = std::max<Index>(1, bytes_of(plan.element));
  require(plan.dims.size() <= 32, what, ": a dataset has at most 32 dimensions, not ", plan.dims.size());
  for (const Index dim : plan.dims) {
    const bool holds = dim >= 0 && !__builtin_mul_overflow(bytes, std::max<Index>(1, dim), &bytes);
    require(holds, what, ": its dimensions must not be negative nor overflow: ", text_of({plan.dims, plan.element}));
  }
  require(plan.dimension_names.empty() || plan.dimension_names.size() == plan.dims.size(), what, " has ",
          plan.dims.size(), " dimensions, but ", plan.dimension_names.size(), " names for them");
}

void create_rows(hid_t file, const DatasetPlan& plan, const std::string& what) {
  check_plan(plan, what);
  create_contiguous(file, plan, what);
}

void create_view(hid_t file, const DatasetPlan& plan, std::span<const RowSource> sources, const std::string& what) {
  check_plan(plan, what);
  const Id properties = owned(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, what);
  Index row = 0;
  for (const RowSource& source : sources) {
    std::vector<Index> dims = plan.dims;
    dims[0] = source.capacity;
    if (source.rows > 0) {
      const Id here = rows_in(plan.dims, row, source.rows, what), there = rows_in(dims, 0, source.rows, what);
      const std::string from = source_name(source.file);
      checked(H5Pset_virtual(properties.get(), here.get(), from.c_str(), plan.name.c_str(), there.get()), what);
    }
    row += source.rows;
  }
  require(row == plan.dims[0], what, " has ", plan.dims[0], " rows, but its sources have ", row);
  const float nothing = std::numeric_limits<float>::quiet_NaN();
  const Id memory = type_of(Element::f32);
  checked(H5Pset_fill_value(properties.get(), memory.get(), &nothing), what);
  create(file, plan, properties, what);
}

void write_whole(hid_t file, const DatasetPlan& plan, const Id& memory, const void* values, std::size_t count,
                 const std::string& what) {
  check_plan(plan, what);
  const Index expected = Shape{plan.dims, plan.element}.elements();
  require(expected == static_cast<Index>(count), what, " is ", text_of({plan.dims, plan.element}), ", but ", count,
          " values were given");
  Id dataset = create_contiguous(file, plan, what);
  if (count > 0)
    checked(H5Dwrite(dataset.get(), memory.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values), what + " cannot be written");
  require<Failure::file>(dataset.close(), what, " cannot be closed");
}

Layout::Dataset place_of_rows(hid_t file, const std::string& name, const std::string& what) {
  const Id dataset = owned(H5Dopen2(file, name.c_str(), H5P_DEFAULT), H5Dclose, what);
  const Id space = owned(H5Dget_space(dataset.get()), H5Sclose, what),
           type = owned(H5Dget_type(dataset.get()), H5Tclose, what);
  std::vector<hsize_t> dims(static_cast<std::size_t>(checked(H5Sget_simple_extent_ndims(space.get()), what)));
  checked(H5Sget_simple_extent_dims(space.get(), dims.data(), nullptr), what);
  Layout::Dataset laid{name, {{dims.begin(), dims.end()}, element_of_type(type.get()).value()}, 0};
  const haddr_t offset = H5Dget_offset(dataset.get());
  require<Failure::file>(offset != HADDR_UNDEF || laid.shape.elements() == 0, what, " has no place in the file");
  if (laid.shape.elements() > 0) laid.offset = static_cast<Index>(offset);
  return laid;
}

}  // namespace annulus::store
