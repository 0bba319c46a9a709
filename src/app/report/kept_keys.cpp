#include "app/report/kept_keys.hpp"

#include "annulus/base/error.hpp"
#include "annulus/memory/device.hpp"
#include "app/stop.hpp"

namespace annulus::app {
namespace {

std::vector<double> read_shares(const InputFile& file, const std::string& name, const annulus::Run& queries,
                                Index heads, Index kept) {
  CpuDevice cpu;
  const Array shares(cpu, DType::f64, queries.count, heads, kept);
  file.read_rows(name, {&queries, 1}, shares.rows());
  const auto numbers = shares.elements<double>();
  return {numbers.begin(), numbers.end()};
}

}  // namespace

std::optional<Shape> shape_of_kept_keys(const InputFile& file, const std::string& group) {
  const std::string index = sentence(group, "/topk_index"), probability = sentence(group, "/topk_probability");
  if (!file.has(index) || !file.has(probability)) return std::nullopt;
  Shape shape = file.shape(index);
  require<Failure::file>(shape.dims.size() == 3 && file.shape(probability).dims == shape.dims,
                         "the keys that were kept must be [token, head, k], and their probabilities, too: ",
                         file.path(), ": ", index, " is ", text_of(shape));
  return shape;
}

KeptKeys::KeptKeys(const InputFile& file, const std::string& group, const Shape& shape, const annulus::Run& run)
    : queries(run),
      heads(shape.dims[1]),
      kept(shape.dims[2]),
      keys(static_cast<std::size_t>(run.count * heads * kept)),
      shares(read_shares(file, sentence(group, "/topk_probability"), run, heads, kept)) {
  require_not_stopped();
  file.read_integer_rows(sentence(group, "/topk_index"), {&run, 1}, keys);
}

std::vector<double> KeptKeys::seeing() const {
  std::vector<double> seeing(static_cast<std::size_t>(heads));
  for (Index row = 0; row < queries.count * heads; ++row)
    if (kept > 0 && keys[static_cast<std::size_t>(row * kept)] >= 0) seeing[static_cast<std::size_t>(row % heads)] += 1;
  return seeing;
}

}  // namespace annulus::app
