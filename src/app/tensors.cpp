#include "app/tensors.hpp"

#include <cmath>

#include "annulus/base/error.hpp"

namespace annulus::app {
namespace {

annulus::Shape floats(const InputFile& file, const std::string& name) {
  require<Failure::file>(file.has(name), file.path(), " must have a dataset ", name, " [tokens, heads, channels]");
  annulus::Shape shape = file.shape(name);
  require<Failure::file>(shape.dims.size() == 3 && dtype_of(shape.element), "dataset ", name, " of ", file.path(),
                         " must be f16, bf16, f32 or f64 [tokens, heads, channels]: it is ", text_of(shape));
  return shape;
}

void require_dims(const InputFile& file, const std::string& name, const annulus::Shape& shape,
                  const std::vector<Index>& dims, const char* rule) {
  require<Failure::file>(shape.dims == dims, "dataset ", name, " of ", file.path(), " must be ", rule, ": it is ",
                         text_of(shape), ", and should be ", text_of({dims, shape.element}));
}

}  // namespace

TensorInput open_tensors(const std::string& path, const std::string& mask, DType dtype, double softmax_scale,
                         bool backward) {
  InputFile file(path);
  const auto q = floats(file, "q"), k = floats(file, "k"), v = floats(file, "v");
  require_dims(file, "k", k, {k.dims[0], k.dims[1], q.dims[2]}, "[keys, kv_heads, channels of q]");
  require_dims(file, "v", v, {k.dims[0], k.dims[1], v.dims[2]}, "[keys, kv_heads of k, value_channels]");
  if (backward) {
    const auto dout = floats(file, "dout");
    require_dims(file, "dout", dout, {q.dims[0], q.dims[1], v.dims[2]}, "shaped as out");
  }
  AttentionShape shape{q.dims[1], k.dims[1], q.dims[2], v.dims[2], *dtype_of(q.element), softmax_scale};
  try {
    check(shape);
  } catch (const Error& e) {
    throw Error(Failure::file, sentence("the datasets of ", path, " do not fit together: ", e.what()));
  }
  if (dtype != DType::f64) shape.type = dtype;
  if (shape.type == DType::f64) shape.type = DType::f32;
  if (softmax_scale == 0) shape.softmax_scale = 1 / std::sqrt(static_cast<double>(shape.channels));
  Extent extent{q.dims[0], k.dims[0], {}};
  if (file.has("documents")) {
    extent.documents = file.read_integers("documents");
    require<Failure::file>(!extent.documents.empty(), "dataset documents of ", path,
                           " must hold offsets, the first 0 and the last the number of tokens: it is empty");
  }
  try {
    return {std::move(file), shape, Mask::parse(mask, extent)};
  } catch (const Error& e) {  // offsets that make no sense are the file's fault
    const bool offsets = std::string(e.what()).starts_with("document offsets");
    throw Error(offsets ? Failure::file : Failure::usage,
                offsets ? sentence(path, ": ", e.what()) : std::string(e.what()));
  }
}

TensorInput open_tensors(const std::string& path, const Settings& settings, bool backward) {
  return open_tensors(path, settings.text("mask"),
                      settings.has("dtype") ? parse_dtype(settings.text("dtype")) : DType::f64,
                      settings.has("softmax-scale") ? settings.number("softmax-scale") : 0, backward);
}

}  // namespace annulus::app
