#include "scales.hpp"

#include <hdf5_hl.h>

#include <array>
#include <cstdio>
#include <string_view>

namespace annulus::store {
namespace {

/// What netCDF looks for.
constexpr std::string_view bare = "This is a netCDF dimension but not a netCDF variable.";

std::string group_of(const std::string& path) {
  const auto end = path.rfind('/');
  return end == std::string::npos ? "" : path.substr(0, end);
}

std::string inside(const std::string& group, const std::string& name) {
  return group.empty() ? name : group + "/" + name;
}

/// The length of the scale of this path; -1: there is none.
Index length_of_scale(hid_t file, const std::string& path, const std::string& what) {
  if (checked(H5Lexists(file, path.c_str(), H5P_DEFAULT), what) == 0) return -1;
  const Id object = owned(H5Oopen(file, path.c_str(), H5P_DEFAULT), H5Oclose, what);
  if (H5Iget_type(object.get()) != H5I_DATASET || checked(H5DSis_scale(object.get()), what) == 0) return -1;
  const Id space = owned(H5Dget_space(object.get()), H5Sclose, what);
  return checked(H5Sget_simple_extent_npoints(space.get()), what);
}

/// The path of the scale that the dimension shares with others, made where there is none.
std::string scale_for(hid_t file, const std::string& dataset, const std::string& name, Index length,
                      const std::string& what) {
  const std::string own = group_of(dataset);
  for (std::string group = own;; group = group_of(group)) {
    std::string path = inside(group, name);
    const Index found = length_of_scale(file, path, what);
    if (found == length) return path;
    require(found < 0 || group != own, what, ": the dimension '", name, "' is ", length,
            " long here, but has the length ", found, " in the same group");
    if (group.empty()) break;
  }
  create_dimension(file, inside(own, name), length, what);
  return inside(own, name);
}

}  // namespace

void create_dimension(hid_t file, const std::string& path, Index length, const std::string& what) {
  const std::array<hsize_t, 1> extent{static_cast<hsize_t>(length)};
  const Id space = owned(H5Screate_simple(1, extent.data(), nullptr), H5Sclose, what);
  const Id links = owned(H5Pcreate(H5P_LINK_CREATE), H5Pclose, what);
  checked(H5Pset_create_intermediate_group(links.get(), 1), what);
  checked(H5Pset_char_encoding(links.get(), H5T_CSET_UTF8), what);
  const Id properties = owned(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, what);
  checked(H5Pset_alloc_time(properties.get(), H5D_ALLOC_TIME_LATE), what);  // that is: never
  const Id type = type_of(Element::f32);
  Id scale = owned(H5Dcreate2(file, path.c_str(), type.get(), space.get(), links.get(), properties.get(), H5P_DEFAULT),
                   H5Dclose, what + ": the scale '" + path + "' of its dimension cannot be made");
  std::array<char, 96> text{};
  std::snprintf(text.data(), text.size(), "%s%10lld", std::string(bare).c_str(), static_cast<long long>(length));
  checked(H5DSset_scale(scale.get(), text.data()), what);
  require<Failure::file>(scale.close(), what, ": the scale '", path, "' of its dimension cannot be closed");
}

void name_dimensions(hid_t file, const DatasetPlan& plan, hid_t dataset, const std::string& what) {
  const auto& names = plan.dimension_names;
  if (names.empty()) return;
  write_attribute(dataset, "DIMENSION_LABELS", names, what);  // what H5DSset_label writes
  if (names.size() == 1 && plan.name == inside(group_of(plan.name), names[0])) {
    checked(H5DSset_scale(dataset, names[0].c_str()), what);
    return;
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i].empty()) continue;
    const std::string path = scale_for(file, plan.name, names[i], plan.dims[i], what);
    const Id scale = owned(H5Dopen2(file, path.c_str(), H5P_DEFAULT), H5Dclose, what);
    checked(H5DSattach_scale(dataset, scale.get(), static_cast<unsigned>(i)),
            what + ": its dimension '" + names[i] + "' cannot be attached");
  }
}

ScaleKind scale_kind(hid_t object) noexcept {
  try {
    const auto text_of = [object](const char* attribute) -> std::string {
      if (H5Aexists(object, attribute) <= 0) return "";
      const Id opened = owned(H5Aopen(object, attribute, H5P_DEFAULT), H5Aclose, "");
      return std::get<std::string>(read_attribute(opened.get(), ""));
    };
    if (H5Iget_type(object) != H5I_DATASET || text_of("CLASS") != "DIMENSION_SCALE") return ScaleKind::none;
    return text_of("NAME").starts_with(bare) ? ScaleKind::bare : ScaleKind::with_values;
  } catch (...) {  // attributes of other kinds
    return ScaleKind::none;
  }
}

}  // namespace annulus::store
