#include <algorithm>
#include <cmath>
#include <numeric>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/memory/device.hpp"
#include "app/report/along.hpp"
#include "app/report/layered.hpp"
#include "app/stop.hpp"

namespace annulus::app {
namespace {

constexpr Index most_rows = 512, most_numbers = Index{1} << 20;  // of a layer's residual stream

// The mean over a layer's heads at every layer, between the heads with the least and the most.
Chart depth_of(const HeadMeans& means, const Measure& measure) {
  Chart chart{.title = measure.label, .x = {"layer"}, .y = {"", 0}, .marks = Chart::Marks::linked_points};
  Curve mean, least, most;
  for (std::size_t layer = 0; layer < means.layers.size(); ++layer) {
    double sum = 0, low = INFINITY, high = -INFINITY, count = 0;
    for (Index head = 0; head < means.heads; ++head) {
      const double value = measure.values[means.place(layer, head)];
      if (!std::isfinite(value)) continue;
      sum += value;
      low = std::min(low, value);
      high = std::max(high, value);
      count += 1;
    }
    for (auto& [curve, y] : {std::pair{&mean, sum / count}, {&least, low}, {&most, high}}) {
      curve->x.push_back(static_cast<double>(means.layers[layer].number));
      curve->y.push_back(y);
    }
  }
  chart.curves = {std::move(mean)};
  chart.guides = {std::move(least), std::move(most)};
  return chart;
}

// The root of the mean square over channels of rows spread over the text, ascending; of nothing, nothing.
std::vector<double> norms_of(const InputFile& file, const std::string& name) {
  const Shape shape = file.shape(name);
  require<Failure::file>(shape.dims.size() == 2, "a residual stream must have the axes [token, channel]: ", file.path(),
                         ": ", name, " is ", text_of(shape));
  std::vector<double> norms;
  if (shape.elements() == 0 || shape.dims[1] > most_numbers) return norms;
  const auto channels = static_cast<std::size_t>(shape.dims[1]);
  const annulus::Run run = evenly(shape.dims[0], std::min(most_rows, most_numbers / shape.dims[1]));
  CpuDevice cpu;
  const Array values(cpu, DType::f64, run.count, 1, shape.dims[1]);
  require_not_stopped();
  file.read_rows(name, {&run, 1}, values.rows());
  for (Index n = 0; n < run.count; ++n) {
    const auto row = values.elements<double>().subspan(static_cast<std::size_t>(n) * channels, channels);
    const double square = std::inner_product(row.begin(), row.end(), row.begin(), 0.0);
    if (const double norm = std::sqrt(square / static_cast<double>(channels)); std::isfinite(norm))
      norms.push_back(norm);
  }
  std::ranges::sort(norms);
  return norms;
}

void add_residual(const InputFile& file, const std::vector<Layer>& layers, Page& page) {
  Curve median{"median of tokens", {}, {}}, largest{"largest", {}, {}};
  for (const Layer& layer : layers) {
    const std::string name = layer.group + "/residual";
    if (!file.has(name)) continue;
    const std::vector<double> norms = norms_of(file, name);
    if (norms.empty()) continue;
    for (auto& [curve, y] : {std::pair{&median, norms[norms.size() / 2]}, {&largest, norms.back()}}) {
      curve->x.push_back(static_cast<double>(layer.number));
      curve->y.push_back(y);
    }
  }
  if (median.x.empty()) return;
  Chart chart{.x = {"layer"}, .y = {"root mean square"}, .marks = Chart::Marks::linked_points};
  if (const double low = std::ranges::min(median.y), high = std::ranges::max(largest.y); low > 0) {
    chart.y.least = low / 1.25;
    chart.y.largest = high * 1.25;
    chart.y.base = 10;
  }
  chart.curves = {std::move(median), std::move(largest)};
  page.figure({.name = "residual",
               .caption = "The residual stream behind each layer: the root of the mean square over channels, of tokens "
                          "spread over the text. "
                          "A largest one far above the median is a token with massive activations, mostly the first.",
               .height = 240,
               .panels = {std::move(chart)}});
}

}  // namespace

void add_depth(const InputFile& file, const std::vector<Layer>& layers, const HeadMeans& means, Page& page) {
  const bool residual =
      std::ranges::any_of(layers, [&](const Layer& layer) { return file.has(layer.group + "/residual"); });
  const bool traced = means.layers.size() > 1 && means.traces.front().known();
  if (!residual && !traced) return;
  page.section("Layer by layer");
  Figure figure{.name = "layers",
                .caption = "Means over the heads of each layer; grey: the heads with the least and the most.",
                .height = 290,
                .columns = 3};
  for (const Measure& measure : means.traces)
    if (traced && measure.known() && measure.name != "max_probability")
      figure.panels.emplace_back(depth_of(means, measure));
  figure.columns = std::max(1, static_cast<int>(figure.panels.size()));
  if (traced) page.figure(std::move(figure));
  add_residual(file, layers, page);
}

}  // namespace annulus::app
