#include "app/tensors.hpp"

#include <algorithm>
#include <cmath>

#include "annulus/base/error.hpp"
#include "app/job.hpp"

namespace annulus::app {
namespace {

// "q [8, 4, 16] f32, results": the first things in a file.
std::string contents(const InputFile& file) {
  constexpr std::size_t most = 8;
  std::string text;
  const auto names = file.names();
  for (const std::string& name : std::span(names).first(std::min(most, names.size()))) {
    text += sentence(text.empty() ? "" : ", ", name);
    try {
      text += sentence(" ", text_of(file.shape(name)));
    } catch (const Error&) {  // a group
    }
  }
  return text.empty() ? "nothing" : text + (names.size() > most ? ", ..." : "");
}

annulus::Shape floats(const InputFile& file, const std::string& name) {
  if (!file.has(name))
    throw Error(Failure::file, sentence(file.path(), " must have a dataset ", name,
                                        " [tokens, heads, channels]: it holds ", contents(file)));
  annulus::Shape shape = file.shape(name);
  require<Failure::file>(shape.dims.size() == 3 && dtype_of(shape.element), "dataset ", name, " of ", file.path(),
                         " must be f16, bf16, f32 or f64 [tokens, heads, channels]: it is ", text_of(shape),
                         shape.dims.size() == 4 ? " (of a batch, give each sequence a file of its own, or put them "
                                                  "one behind another with --mask documents)"
                                                : "");
  return shape;
}

void require_dims(const std::string& path, const std::string& name, const annulus::Shape& shape,
                  const std::vector<Index>& dims, const char* rule) {
  require<Failure::file>(shape.dims == dims, "dataset ", name, " of ", path, " must be ", rule, ": it is ",
                         text_of(shape), ", and should be ", text_of({dims, shape.element}));
}

// The narrowest type that holds both.
DType common(DType a, DType b) {
  if (a == b) return a;
  return a == DType::f64 || b == DType::f64 ? DType::f64 : DType::f32;
}

}  // namespace

void TensorInput::read(const std::string& name, std::span<const Run> runs, const Rows& into) const {
  if (cached == 0 || (name != "k" && name != "v")) return file.read_rows(name, runs, into);
  Index row = 0;
  for (const Run& run : runs) {  // what of it lies in the cache, and what behind it
    const Index before = std::clamp<Index>(ceil_div(cached - run.first, run.stride), 0, run.count);
    const Run old{run.first, before, run.stride}, fresh{run.at(before) - cached, run.count - before, run.stride};
    if (old.count > 0) cache->read_rows(name, {&old, 1}, into.slice(row, row + before));
    if (fresh.count > 0) file.read_rows(name, {&fresh, 1}, into.slice(row + before, row + run.count));
    row += run.count;
  }
}

TensorInput open_tensors(const std::string& path, const std::string& mask, DType dtype, double softmax_scale,
                         bool backward, const CacheChoice& choice) {
  InputFile file(path);
  const auto q = floats(file, "q"), k = floats(file, "k"), v = floats(file, "v");
  require_dims(path, "k", k, {k.dims[0], k.dims[1], q.dims[2]}, "[keys, kv_heads, channels of q]");
  require_dims(path, "v", v, {k.dims[0], k.dims[1], v.dims[2]}, "[keys, kv_heads of k, value_channels]");
  if (backward) {
    const auto dout = floats(file, "dout");
    require_dims(path, "dout", dout, {q.dims[0], q.dims[1], v.dims[2]}, "shaped as out");
  }
  const DType type = common(*dtype_of(q.element), common(*dtype_of(k.element), *dtype_of(v.element)));
  AttentionShape shape{q.dims[1], k.dims[1], q.dims[2], v.dims[2], type, softmax_scale};
  try {
    check(shape);
  } catch (const Error& e) {
    throw Error(Failure::file, sentence("the datasets of ", path, " do not fit together: ", e.what()));
  }
  if (dtype != DType::f64) shape.type = dtype;
  if (shape.type == DType::f64) shape.type = DType::f32;
  if (softmax_scale == 0) shape.softmax_scale = 1 / std::sqrt(static_cast<double>(shape.channels));
  std::optional<CacheFile> cache;
  Index cached = 0;
  if (!choice.path.empty()) {
    cache.emplace(choice.path);
    const auto old_k = cache->shape("k"), old_v = cache->shape("v");
    cached = choice.tokens < 0 ? old_k.dims[0] : choice.tokens;
    require<Failure::file>(cached <= old_k.dims[0], choice.path, " must hold the first ", cached, " tokens: it holds ",
                           old_k.dims[0]);
    require_dims(choice.path, "k", old_k, {old_k.dims[0], k.dims[1], k.dims[2]}, "as the k that are added to it");
    require_dims(choice.path, "v", old_v, {old_k.dims[0], v.dims[1], v.dims[2]}, "as the v that are added to it");
    require<Failure::file>(dtype_of(old_k.element) == shape.type && dtype_of(old_v.element) == shape.type, "the cache ",
                           choice.path, " must hold what is computed with, ", name_of(shape.type), ": it holds ",
                           name_of(*dtype_of(old_k.element)), " and ", name_of(*dtype_of(old_v.element)));
  }
  Extent extent{q.dims[0], cached + k.dims[0], {}};
  const bool apart = names_term(mask, "documents"), known = file.has("documents");
  require(!apart || known || extent.queries != extent.keys, "mask term documents needs a dataset documents in ", path,
          ": n + 1 integers, the offsets of n documents, from 0 to the number of tokens");
  if (apart && known) {
    extent.documents = file.read_integers("documents");
    require<Failure::file>(!extent.documents.empty(), "dataset documents of ", path,
                           " must hold offsets, the first 0 and the last the number of tokens: it is empty");
  }
  try {
    return {std::move(file), shape, Mask::parse(mask, extent), std::move(cache), cached};
  } catch (const Error& e) {  // offsets that make no sense are the file's fault
    const bool offsets = std::string(e.what()).starts_with("document offsets");
    throw Error(offsets ? Failure::file : Failure::usage,
                offsets ? sentence(path, ": ", e.what()) : std::string(e.what()));
  }
}

TensorInput open_tensors(const std::string& path, const Settings& settings, bool backward, const CacheChoice& cache) {
  return open_tensors(path, settings.text("mask"),
                      settings.has("dtype") ? parse_dtype(settings.text("dtype")) : DType::f64,
                      settings.has("softmax-scale") ? settings.number("softmax-scale") : 0, backward, cache);
}

}  // namespace annulus::app
