#include "annulus/model/checkpoint.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "annulus/base/error.hpp"
#include "mapped_file.hpp"
#include "safetensors.hpp"
#include "shards.hpp"

namespace annulus {
namespace {

constexpr std::size_t longest_compared = 256;  // letters of a name

// A tensor whose elements are not numbers that we compute with.
struct Unread {
  std::string name, type, file;
};

template <class List>
auto lookup(const List& sorted, std::string_view name) -> decltype(sorted.data()) {
  const auto place =
      std::ranges::lower_bound(sorted, name, {}, [](const auto& item) { return std::string_view(item.name); });
  return place != sorted.end() && place->name == name ? &*place : nullptr;
}

std::string text_of(std::span<const Index> dims) {
  std::string text = "[";
  for (std::size_t n = 0; n < dims.size(); ++n) text += (n > 0 ? ", " : "") + std::to_string(dims[n]);
  return text + "]";
}

// Levenshtein's distance: letters to insert, delete or replace.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j)
      diagonal = std::exchange(row[j + 1], std::min({row[j + 1] + 1, row[j] + 1, diagonal + (a[i] != b[j] ? 1U : 0U)}));
  }
  return row.back();
}

}  // namespace

struct Checkpoint::Contents {
  std::string folder;
  std::vector<std::string> files;
  std::vector<checkpoint::MappedFile> maps;  // of the files, in their order
  std::vector<Tensor> tensors;               // by name
  std::vector<Unread> unread;                // by name
  Index bytes = 0;

  void take(const checkpoint::MappedFile& map);
  void sort_names();
  std::string alike(std::string_view name) const;
};

void Checkpoint::Contents::take(const checkpoint::MappedFile& map) {
  for (checkpoint::Entry& entry : checkpoint::read_safetensors(map.path(), map.bytes())) {
    if (const DType* type = checkpoint::dtype_of(entry.type)) {
      bytes += static_cast<Index>(entry.bytes.size());
      tensors.push_back({std::move(entry.name), *type, std::move(entry.dims), entry.bytes, map.path()});
    } else {
      unread.push_back({std::move(entry.name), std::move(entry.type), map.path()});
    }
  }
}

void Checkpoint::Contents::sort_names() {
  std::ranges::sort(tensors, {}, &Tensor::name);
  std::ranges::sort(unread, {}, &Unread::name);
  const auto once = [](const auto& first, const auto& second) {
    require<Failure::file>(first.name != second.name, first.file, " and ", second.file, " both have a tensor '",
                           first.name, "'");
  };
  for (std::size_t n = 1; n < tensors.size(); ++n) once(tensors[n - 1], tensors[n]);
  for (std::size_t n = 1; n < unread.size(); ++n) once(unread[n - 1], unread[n]);
  for (const Unread& other : unread)
    if (const Tensor* tensor = lookup(tensors, other.name)) once(*tensor, other);
}

// The end of the sentence that there is no such tensor.
std::string Checkpoint::Contents::alike(std::string_view name) const {
  const std::string_view stem = name.substr(0, name.rfind('.'));
  for (const std::string_view part : {".qweight", ".scales", ".qzeros", ".weight_packed"})
    if (const std::string sign = std::string(stem) + std::string(part);
        lookup(unread, sign) != nullptr || lookup(tensors, sign) != nullptr)
      return sentence(", but there is '", sign, "': quantized models are not read, only f32, f16, bf16 and f64");
  std::vector<std::pair<std::size_t, std::string_view>> near;
  for (const Tensor& tensor : tensors)
    if (tensor.name.size() <= longest_compared) near.emplace_back(distance(name, tensor.name), tensor.name);
  const std::size_t count = std::min<std::size_t>(3, near.size());
  std::ranges::partial_sort(near, near.begin() + static_cast<std::ptrdiff_t>(count));
  std::string text;
  for (std::size_t n = 0; n < count; ++n) text += sentence(n == 0 ? "; most alike: '" : ", '", near[n].second, "'");
  return text;
}

Checkpoint::Checkpoint(const std::string& folder) : contents_(std::make_unique<Contents>()) {
  checkpoint::Shards shards = checkpoint::find_shards(folder);
  Contents& all = *contents_;
  all.folder = folder;
  for (const std::string& path : shards.paths) {
    all.maps.emplace_back(path);
    all.take(all.maps.back());
  }
  all.files = std::move(shards.paths);
  all.sort_names();
  for (const auto& [name, path] : shards.places) {
    const Tensor* tensor = lookup(all.tensors, name);
    const Unread* other = lookup(all.unread, name);
    const bool there = (tensor != nullptr && tensor->file == path) || (other != nullptr && other->file == path);
    require<Failure::file>(there, shards.index, ": tensor '", name, "' should be in ", path, ", but is not");
  }
}

Checkpoint::Checkpoint(Checkpoint&& other) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&& other) noexcept = default;
Checkpoint::~Checkpoint() = default;

const std::string& Checkpoint::folder() const { return contents_->folder; }
std::span<const std::string> Checkpoint::files() const { return contents_->files; }
std::span<const Tensor> Checkpoint::tensors() const { return contents_->tensors; }
Index Checkpoint::bytes() const { return contents_->bytes; }

bool Checkpoint::has(std::string_view name) const {
  return lookup(contents_->tensors, name) != nullptr || lookup(contents_->unread, name) != nullptr;
}

const Tensor* Checkpoint::find(std::string_view name) const {
  if (const Unread* other = lookup(contents_->unread, name))
    throw Error(Failure::file, sentence(other->file, ": tensor '", name, "' has elements of type ", other->type,
                                        ", but only F32, F16, BF16 and F64 are read: quantized models are not"));
  return lookup(contents_->tensors, name);
}

const Tensor& Checkpoint::tensor(std::string_view name, std::span<const Index> dims) const {
  const Tensor* found = find(name);
  if (found == nullptr)
    throw Error(Failure::file, sentence(folder(), ": there is no tensor '", name, "'", contents_->alike(name)));
  require<Failure::file>(std::ranges::equal(found->dims, dims), found->file, ": tensor '", name, "' must be ",
                         text_of(dims), ", but is ", text_of(found->dims));
  return *found;
}

void Checkpoint::release(const Tensor& tensor) const {
  for (const checkpoint::MappedFile& map : contents_->maps)
    if (map.path() == tensor.file) map.release(tensor.bytes);
}

}  // namespace annulus
