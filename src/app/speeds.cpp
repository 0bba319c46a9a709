#include "app/speeds.hpp"

#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "annulus/base/error.hpp"
#include "annulus/plan/plan.hpp"
#include "annulus/transport/collectives.hpp"
#include "app/backends.hpp"
#include "app/processor_peak.hpp"

namespace annulus::app {

Settings with_measured_weights(const Settings& settings, const Placement& place, RankTools& tools) {
  if (settings.text("weights") != measured_weights) return settings;
  std::string kernel;
  together(tools.transport, [&] {
    require(settings.text("device") != "cuda", settings.name_of("weights"),
            " measured is about processors, and the device is cuda");
    kernel = make_kernel(settings.text("kernel"), {}, {1})->name();
    require(processor_peak(kernel, 1) > 0, settings.name_of("weights"), " cannot be measured with the kernel ", kernel);
  });
  barrier(tools.transport);
  const double mine = processor_peak(kernel, place.threads);
  std::vector<double> rates;
  for (const auto& bytes : all_gather(tools.transport, std::as_bytes(std::span(&mine, 1))))
    std::memcpy(&rates.emplace_back(), bytes.data(), sizeof mine);
  std::string text;
  for (const double weight : weights_of_rates(rates)) text += sentence(text.empty() ? "" : ",", weight);
  return settings.with("weights", text);
}

}  // namespace annulus::app
