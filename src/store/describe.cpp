// What a file says about itself: attributes, names, the tree.
#include <algorithm>

#include "annulus/store/input_file.hpp"
#include "opened.hpp"
#include "scales.hpp"

namespace annulus {
namespace {

using store::checked;
using store::Hdf5Lock;
using store::Id;
using store::owned;

constexpr int deepest = 32;

std::string attribute_text(const std::string& path, const std::string& object, const std::string& name) {
  return path + ": attribute '" + name + "' of '" + object + "'";
}

/// Text, integers and floats; not references, compounds or lists of variable length.
bool readable(hid_t attribute) {
  const Id type = owned(H5Aget_type(attribute), H5Tclose, "an attribute's type cannot be read");
  const H5T_class_t kind = H5Tget_class(type.get());
  return kind == H5T_STRING || kind == H5T_INTEGER || kind == H5T_FLOAT;
}

std::string name_of_attribute(hid_t attribute, const std::string& what) {
  const auto length = static_cast<std::size_t>(checked(H5Aget_name(attribute, 0, nullptr), what));
  std::string name(length + 1, '\0');
  checked(H5Aget_name(attribute, name.size(), name.data()), what);
  name.resize(length);
  return name;
}

}  // namespace

std::optional<Value> InputFile::attribute(const std::string& object, const std::string& name) const {
  const Hdf5Lock lock;
  const std::string what = attribute_text(path(), object, name);
  const Id opened = opened_->object(object);
  if (checked(H5Aexists(opened.get(), name.c_str()), what + " cannot be looked up") == 0) return std::nullopt;
  const Id attribute = owned(H5Aopen(opened.get(), name.c_str(), H5P_DEFAULT), H5Aclose, what + " cannot be opened");
  return store::read_attribute(attribute.get(), what);
}

std::string InputFile::text(const std::string& object, const std::string& name) const {
  const auto value = attribute(object, name);
  const auto* text = value ? std::get_if<std::string>(&*value) : nullptr;
  require<Failure::file>(text != nullptr, attribute_text(path(), object, name),
                         value ? " must be text" : " is missing");
  return *text;
}

double InputFile::number(const std::string& object, const std::string& name) const {
  const auto value = attribute(object, name);
  if (value)
    if (const auto* index = std::get_if<Index>(&*value)) return static_cast<double>(*index);
  const auto* number = value ? std::get_if<double>(&*value) : nullptr;
  require<Failure::file>(number != nullptr, attribute_text(path(), object, name),
                         value ? " must be one number" : " is missing");
  return *number;
}

std::vector<std::pair<std::string, Value>> InputFile::attributes(const std::string& object) const {
  const Hdf5Lock lock;
  const Id opened = opened_->object(object);
  const std::string what = path() + ": the attributes of '" + object + "' cannot be read";
  std::vector<std::pair<std::string, Value>> all;
  for (hsize_t i = 0; i < hsize_t{1} << 16; ++i) {
    const hid_t id = H5Aopen_by_idx(opened.get(), ".", H5_INDEX_NAME, H5_ITER_INC, i, H5P_DEFAULT, H5P_DEFAULT);
    if (id < 0) break;  // behind the last one
    const Id attribute(id, H5Aclose);
    if (!readable(id)) continue;
    const std::string name = name_of_attribute(id, what);
    all.emplace_back(name, store::read_attribute(id, attribute_text(path(), object, name)));
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return all;
}

std::vector<std::string> InputFile::dimension_names(const std::string& name) const {
  const Shape found = shape(name);
  const auto labels = attribute(name, "DIMENSION_LABELS");
  const auto* names = labels ? std::get_if<std::vector<std::string>>(&*labels) : nullptr;
  std::vector<std::string> all = names == nullptr ? std::vector<std::string>() : *names;
  all.resize(found.dims.size());
  return all;
}

std::vector<std::string> InputFile::names(const std::string& group) const {
  const Hdf5Lock lock;
  return opened_->names(group);
}

std::vector<InputFile::Entry> InputFile::tree(Index limit) const {
  const Hdf5Lock lock;
  std::vector<Entry> entries;
  // Depth first by hand: a group may be linked into itself, which only the limits end.
  const auto walk = [&](const auto& self, const std::string& group, int depth) -> void {
    for (const std::string& name : opened_->names(group.empty() ? "/" : group)) {
      if (static_cast<Index>(entries.size()) >= limit) return;
      Entry entry{group};
      if (!group.empty()) entry.path += '/';
      entry.path += name;
      const Id object(H5Oopen(opened_->file.get(), entry.path.c_str(), opened_->links.get()), H5Oclose);
      entry.group = object.valid() && H5Iget_type(object.get()) == H5I_GROUP;
      entry.dataset = object.valid() && H5Iget_type(object.get()) == H5I_DATASET;
      const store::ScaleKind kind = store::scale_kind(object.get());
      entry.scale = kind != store::ScaleKind::none;
      entry.bare_scale = kind == store::ScaleKind::bare;
      entry.linked = opened_->soft_link(entry.path);
      entries.push_back(entry);
      if (entry.group && depth < deepest) self(self, entry.path, depth + 1);
    }
  };
  walk(walk, "", 1);
  return entries;
}

}  // namespace annulus
