#include "app/report/along.hpp"

#include <algorithm>
#include <cmath>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/memory/device.hpp"
#include "app/stop.hpp"

namespace annulus::app {
namespace {

constexpr Index most_points = 400;  // along a curve: of more tokens, means of neighbours are drawn
constexpr Index most_at_once = Index{1} << 21;

}  // namespace

Along::Along(Index tokens, Index heads)
    : tokens_(tokens),
      heads_(heads),
      each_(std::max<Index>(1, ceil_div(tokens, most_points))),
      count_(ceil_div(tokens, each_)),
      sums_(static_cast<std::size_t>(heads * count_)),
      counts_(sums_.size()) {}

void Along::add(Index token, Index head, double value) {
  if (!std::isfinite(value)) return;
  const std::size_t at = place(head, token / each_);
  sums_[at] += value;
  counts_[at] += 1;
}

double Along::mean(Index head) const {
  double sum = 0, count = 0;
  for (Index point = 0; point < count_; ++point) {
    sum += sums_[place(head, point)];
    count += counts_[place(head, point)];
  }
  return count > 0 ? sum / count : NAN;
}

std::vector<double> Along::means() const {
  std::vector<double> means;
  for (Index head = 0; head < heads_; ++head) means.push_back(mean(head));
  return means;
}

std::vector<double> Along::points(Index head) const {
  std::vector<double> points;
  for (std::size_t at = place(head, 0); at < place(head + 1, 0); ++at)
    points.push_back(counts_[at] > 0 ? sums_[at] / counts_[at] : NAN);
  return points;
}

std::vector<Index> Along::middles() const {
  std::vector<Index> middles;
  for (Index point = 0; point < count_; ++point) middles.push_back(std::min(tokens_ - 1, point * each_ + each_ / 2));
  return middles;
}

annulus::Run evenly(Index rows, Index most) {
  if (rows == 0) return {0, 0, 1};
  const Index stride = ceil_div(rows, std::clamp<Index>(most, 1, rows));
  return {0, ceil_div(rows, stride), stride};
}

Shape shape_of_trace(const InputFile& file, const std::string& name) {
  Shape shape = file.shape(name);
  require<Failure::file>(shape.dims.size() == 2, "a trace must have the axes [token, head]: ", file.path(), ": ", name,
                         " is ", text_of(shape));
  return shape;
}

Along along(const InputFile& file, const std::string& group, const std::string& trace) {
  return along(file, group, trace, {0, shape_of_trace(file, sentence(group, "/", trace)).dims[0], 1});
}

Along along(const InputFile& file, const std::string& group, const std::string& trace, const annulus::Run& rows) {
  const std::string name = sentence(group, "/", trace), lse = sentence(group, "/lse");
  const Shape shape = shape_of_trace(file, name);
  Along out(rows.count, shape.dims[1]);
  const auto heads = static_cast<std::size_t>(out.heads());
  const bool known = file.has(lse) && file.shape(lse).dims == shape.dims;
  const Index at_once =
      std::clamp<Index>(most_at_once / std::max<Index>(out.heads(), 1), 1, std::max<Index>(rows.count, 1));
  CpuDevice cpu;
  const Array values(cpu, DType::f64, at_once, out.heads(), 1),
      seen = Array::zeros(cpu, DType::f64, at_once, out.heads(), 1);
  for (Index first = 0; first < rows.count; first += at_once) {
    require_not_stopped();
    const annulus::Run run{rows.at(first), std::min(at_once, rows.count - first), rows.stride};
    file.read_rows(name, {&run, 1}, values.rows().slice(0, run.count));
    if (known) file.read_rows(lse, {&run, 1}, seen.rows().slice(0, run.count));
    const auto numbers = values.elements<double>(), sees = seen.elements<double>();
    for (std::size_t i = 0; i < static_cast<std::size_t>(run.count) * heads; ++i)
      if (sees[i] == -INFINITY) ++out.blind;
      else out.add(first + static_cast<Index>(i / heads), static_cast<Index>(i % heads), numbers[i]);
  }
  return out;
}

}  // namespace annulus::app
