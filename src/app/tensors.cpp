#include "app/tensors.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "annulus/base/error.hpp"
#include "app/job.hpp"

namespace annulus::app {
namespace {

annulus::Shape floats(const InputFile& file, const std::string& tensor, const TensorPlaces& places) {
  const std::string name = places.path(tensor);
  if (!file.has(name)) throw Error(Failure::file, file.path() + instead_of(tensor, file, places));
  const annulus::Shape shape = file.shape(name);
  const bool batch = places.axes.batch >= 0;
  const std::size_t axes = batch ? 4 : 3;
  require<Failure::file>(shape.dims.size() == axes && dtype_of(shape.element), "dataset ", name, " of ", file.path(),
                         " must be f16, bf16, f32 or f64 ", text_of(places.axes), ": it is ", text_of(shape),
                         shape.dims.size() == 4 && !batch  ? " (of a batch, --batch N takes sequence N)"
                         : shape.dims.size() == 3 && batch ? " (--batch is for datasets of four axes)"
                                                           : "");
  require<Failure::file>(!batch || places.axes.batch < shape.dims[0], "dataset ", name, " of ", file.path(), " holds ",
                         shape.dims[0], " sequences, numbered from 0 on, and no sequence ", places.axes.batch,
                         ": it is ", text_of(shape));
  return file.shape(name, places.axes);
}

void require_dims(const std::string& path, const std::string& name, const annulus::Shape& shape,
                  const std::vector<Index>& dims, const std::string& rule) {
  require<Failure::file>(shape.dims == dims, "dataset ", name, " of ", path, " must be ", rule, ": it is ",
                         text_of(shape), ", and should be ", text_of({dims, shape.element}));
}

// Of tokens, heads and channels; told in the order in which the file has them.
struct Expected {
  std::array<const char*, 3> rule;
  std::array<Index, 3> dims;
};

void require_dims(const InputFile& file, const std::string& tensor, const TensorPlaces& places, Expected expected) {
  auto& [rule, dims] = expected;
  if (places.axes.heads_first) {
    std::swap(rule[0], rule[1]);
    std::swap(dims[0], dims[1]);
  }
  const std::string name = places.path(tensor);
  const annulus::Shape shape = file.shape(name);
  const bool batch = places.axes.batch >= 0;
  std::vector<Index> whole(dims.begin(), dims.end());
  if (batch) whole.insert(whole.begin(), shape.dims[0]);
  require_dims(file.path(), name, shape, whole,
               sentence(batch ? "[batch, " : "[", rule[0], ", ", rule[1], ", ", rule[2], "]"));
}

// The narrowest type that holds both.
DType common(DType a, DType b) {
  if (a == b) return a;
  return a == DType::f64 || b == DType::f64 ? DType::f64 : DType::f32;
}

// Whether keys and values can follow those of the cache.
void require_fits(const CacheFile& cache, Index tokens, const annulus::Shape& k, const annulus::Shape& v, DType type) {
  const auto old_k = cache.shape("k"), old_v = cache.shape("v");
  const std::string& path = cache.path();
  require<Failure::file>(tokens <= old_k.dims[0], path, " must hold the first ", tokens, " tokens: it holds ",
                         old_k.dims[0]);
  require_dims(path, "k", old_k, {old_k.dims[0], k.dims[1], k.dims[2]}, "as the k that are added to it");
  require_dims(path, "v", old_v, {old_k.dims[0], v.dims[1], v.dims[2]}, "as the v that are added to it");
  require<Failure::file>(dtype_of(old_k.element) == type && dtype_of(old_v.element) == type, "the cache ", path,
                         " must hold what is computed with, ", name_of(type), ": it holds ",
                         name_of(*dtype_of(old_k.element)), " and ", name_of(*dtype_of(old_v.element)));
}

// [n + 1], or of a batch [batch, n + 1]: those of its sequence.
std::vector<Index> offsets_in(const InputFile& file, const std::string& name, Index batch) {
  const std::vector<Index> dims = file.shape(name).dims;
  const bool apart = batch >= 0 && dims.size() == 2;
  require<Failure::file>(dims.size() == 1 || apart, "dataset ", name, " of ", file.path(), " must be [n + 1]",
                         batch >= 0 ? " or [batch, n + 1]" : "", ": it is ", text_of(file.shape(name)));
  std::vector<Index> offsets = file.read_integers(name);
  if (!apart) return offsets;
  require<Failure::file>(batch < dims[0], "dataset ", name, " of ", file.path(), " must have a row for sequence ", batch,
                         " of the batch: it is ", text_of(file.shape(name)));
  return {offsets.begin() + batch * dims[1], offsets.begin() + (batch + 1) * dims[1]};
}

}  // namespace

void TensorInput::read(const std::string& name, std::span<const Run> runs, const Rows& into, const Reading& how) const {
  const std::string dataset = places.path(name);
  if (cached == 0 || (name != "k" && name != "v")) return file.read_rows(dataset, runs, into, places.axes, how);
  Index row = 0;
  for (const Run& run : runs) {  // what of it lies in the cache, and what behind it
    const Index before = std::clamp<Index>(ceil_div(cached - run.first, run.stride), 0, run.count);
    const Run old{run.first, before, run.stride}, fresh{run.at(before) - cached, run.count - before, run.stride};
    if (old.count > 0) cache->read_rows(name, {&old, 1}, into.slice(row, row + before), how);
    if (fresh.count > 0)
      file.read_rows(dataset, {&fresh, 1}, into.slice(row + before, row + run.count), places.axes, how);
    row += run.count;
  }
}

TensorChoice tensor_choice(const Settings& settings, bool backward, const CacheChoice& cache) {
  return {.places = tensor_places(settings),
          .mask = settings.text("mask"),
          .dtype = settings.has("dtype") ? parse_dtype(settings.text("dtype")) : DType::f64,
          .softmax_scale = settings.has("softmax-scale") ? settings.number("softmax-scale") : 0,
          .backward = backward,
          .cache = cache};
}

TensorInput open_tensors(const std::string& path, const TensorChoice& choice) {
  InputFile file(path);
  const TensorPlaces& places = choice.places;
  const auto q = floats(file, "q", places), k = floats(file, "k", places), v = floats(file, "v", places);
  require_dims(file, "k", places, {{"keys", "kv_heads", "channels of q"}, {k.dims[0], k.dims[1], q.dims[2]}});
  require_dims(file, "v", places, {{"keys", "kv_heads of k", "value_channels"}, {k.dims[0], k.dims[1], v.dims[2]}});
  if (choice.backward) {
    floats(file, "dout", places);
    require_dims(file, "dout", places,
                 {{"tokens of q", "query_heads of q", "channels of v"}, {q.dims[0], q.dims[1], v.dims[2]}});
  }
  const DType type = common(*dtype_of(q.element), common(*dtype_of(k.element), *dtype_of(v.element)));
  AttentionShape shape{q.dims[1], k.dims[1], q.dims[2], v.dims[2], type, choice.softmax_scale};
  try {
    check(shape);
  } catch (const Error& e) {
    throw Error(Failure::file, sentence("the datasets of ", path, " do not fit together: ", e.what()));
  }
  if (choice.dtype != DType::f64) shape.type = choice.dtype;
  if (shape.type == DType::f64) shape.type = DType::f32;
  const bool of_model = file.attribute("/", "schema") == Value("annulus-run") && file.attribute("/", "model_kind");
  if (choice.softmax_scale == 0)
    shape.softmax_scale =
        of_model ? file.number("/", "softmax_scale") : 1 / std::sqrt(static_cast<double>(shape.channels));
  require<Failure::file>(std::isfinite(shape.softmax_scale) && shape.softmax_scale > 0, "attribute softmax_scale of ", path,
                         " must be above zero: it is ", shape.softmax_scale);
  const bool has_mask = of_model && !places.group.empty() && file.attribute(places.group, "mask");
  std::string model_mask = has_mask ? file.text(places.group, "mask") : "";
  std::optional<CacheFile> cache;
  Index cached = 0;
  if (!choice.cache.path.empty()) {
    cache.emplace(choice.cache.path);
    cached = choice.cache.tokens < 0 ? cache->shape("k").dims[0] : choice.cache.tokens;
    require_fits(*cache, cached, k, v, shape.type);
  }
  Extent extent{q.dims[0], cached + k.dims[0], {}};
  const std::string documents = places.path("documents");
  const bool apart = names_term(choice.mask, "documents"), known = file.has(documents);
  require(!apart || known || extent.queries != extent.keys, "mask term documents needs a dataset ", documents, " in ",
          path, ": n + 1 integers, the offsets of n documents, from 0 to the number of tokens");
  if (apart && known) {
    extent.documents = offsets_in(file, documents, places.axes.batch);
    require<Failure::file>(!extent.documents.empty(), "dataset ", documents, " of ", path,
                           " must hold offsets, the first 0 and the last the number of tokens: it is empty");
  }
  try {
    return {std::move(file),  places, shape, Mask::parse(choice.mask, extent), std::move(cache), cached,
            std::move(model_mask)};
  } catch (const Error& e) {  // offsets that make no sense are the file's fault
    const bool offsets = std::string(e.what()).starts_with("document offsets");
    throw Error(offsets ? Failure::file : Failure::usage,
                offsets ? sentence(path, ": ", e.what()) : std::string(e.what()));
  }
}

}  // namespace annulus::app
