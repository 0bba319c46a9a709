#include "app/compute.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/plan/cost.hpp"
#include "annulus/transport/collectives.hpp"
#include "app/backends.hpp"
#include "app/finishing_kernel.hpp"
#include "app/help.hpp"

namespace annulus::app {
namespace {

std::unique_ptr<Kernel> kernel_of(const Settings& settings, const Job& job, const RankTools& tools,
                                  const Accelerator& accelerator) {
  const int lane = job.schedule.lane_of(tools.transport.rank());
  const Problem problem = problem_of(job.shape, job.schedule.grid, lane, job.schedule.mask.query_shift());
  auto kernel = make_kernel(settings.text("kernel"), problem, accelerator.kernel_options(job.place.threads));
  if (!accelerator.on_gpu() || !settings.has("timeline")) return kernel;
  return std::make_unique<FinishingKernel>(std::move(kernel), accelerator.device());
}

// The first element of a row that is NaN, or -1. What is added to the bits of a number carries into the sign's place
// where they are beyond those of infinity; without a branch this is as fast as memory.
template <class Bits, Bits infinity>
Index first_nan(const std::byte* row, Index count) {
  constexpr Bits magnitude = std::numeric_limits<Bits>::max() >> 1;
  const auto carried = [row](Index i) {
    Bits bits{};
    std::memcpy(&bits, row + i * Index{sizeof bits}, sizeof bits);
    return static_cast<Bits>((bits & magnitude) + (magnitude - infinity));
  };
  Bits any = 0;
  for (Index i = 0; i < count; ++i) any = static_cast<Bits>(any | carried(i));
  if (any <= magnitude) return -1;
  Index i = 0;
  while (carried(i) <= magnitude) ++i;
  return i;
}

Index first_nan(const Rows& rows, Index token) {
  const Index count = rows.heads * rows.channels;
  const std::byte* row = rows.at<const std::byte>(token);
  switch (rows.type) {
    case DType::f32:
      return first_nan<std::uint32_t, 0x7f800000>(row, count);
    case DType::f64:
      return first_nan<std::uint64_t, 0x7ff0000000000000>(row, count);
    case DType::bf16:
      return first_nan<std::uint16_t, 0x7f80>(row, count);
    case DType::f16:
      return first_nan<std::uint16_t, 0x7c00>(row, count);
  }
  return -1;
}

Index position_of(std::span<const Run> runs, Index row) {
  for (const Run& run : runs) {
    if (row < run.count) return run.at(row);
    row -= run.count;
  }
  return -1;
}

}  // namespace

Compute::Compute(const Settings& settings, const Job& job, RankTools& tools, const Passes& passes)
    : job_(job),
      tools_(tools),
      passes_(passes),
      accelerator_(settings, job, tools, memory_of(job, passes.backward) + passes.extra_bytes),
      transport_(accelerator_.transport(), tools.transport),
      kernel_(kernel_of(settings, job, tools, accelerator_)),
      attention_(job.schedule, job.shape, machine()),
      progress_(settings.text("progress"), tools.lead, "attention",
                passes.visits() * attention_.plan().pairs() * std::max<Index>(1, kernel_->problem().query_heads)) {}

double operations_per_batch(bool on_gpu, int threads) { return on_gpu ? 1e14 : 4e9 * threads; }

Machine Compute::machine() {
  return {accelerator_.device(),
          *kernel_,
          transport_,
          tools_.timeline,
          operations_per_batch(accelerator_.on_gpu(), job_.place.threads),
          [this](Index triples) {
            progress().add(triples);
            if (transport_.ranks() == 1 && stop_requested()) throw_stopped();  // nobody to agree with
          }};
}

std::string Compute::description() const {
  return accelerator_.on_gpu() ? sentence(kernel(), " on ", device(), ", ", transport()) : kernel();
}

void Compute::forward(const Rows& q, const KeyValue& kv, const Rows& out, const Rows& lse) {
  progress().begin();
  const double begins = tools_.timeline.now();
  attention_.forward(q, kv, out, lse);
  seconds_.forward = tools_.timeline.now() - begins;
  const auto runs = job_.schedule.queries.runs(tools_.transport.rank());
  together(tools_.transport, [&] {
    for (Index i = 0; i < lse.tokens; ++i) {
      Index head = first_nan(lse, i);
      if (const Index x = first_nan(out, i); head < 0 && x >= 0) head = x / out.channels;
      require<Failure::runtime>(head < 0, "the attention of token ", position_of(runs, i), ", head ", head,
                                " is not a number: a score or a value overflows f32, or infinities cancel");
    }
  });
}

void Compute::observe(const Rows& q, const Rows& k, const Rows& lse, Traces& traces) {
  attention_.observe(q, k, lse, traces.view());
  traces.settle(tools_.transport, lse);
}

void Compute::backward(const Rows& q, const KeyValue& kv, const Rows& dout, const Rows& out, const Rows& lse,
                       const Gradients& into) {
  const double begins = tools_.timeline.now();
  attention_.backward(q, kv, dout, out, lse, into);
  seconds_.backward = tools_.timeline.now() - begins;
}

std::string Compute::compare_with_prediction(const Settings& settings, const Context& context, Draft& draft) const {
  const auto hardware = hardware_of(settings);
  if (!hardware) return {};
  const bool backward = seconds_.backward > 0;
  const Estimate e = estimate(job_.schedule, prices_of(job_, context, *hardware, backward));
  std::string line;
  const auto compare = [&](const std::string& pass, double predicted, double measured) {
    draft.attribute("/", "predicted_" + pass + "_seconds", predicted);
    draft.attribute("/", "measured_" + pass + "_seconds", measured);
    const double hundredths = std::round(100 * measured / std::max(predicted, 1e-9));
    line += sentence(line.empty() ? "" : "; ", pass, " ", duration_text(predicted), ", measured ",
                     duration_text(measured), " (", hundredths / 100, " x)");
  };
  compare("forward", e.forward.seconds, seconds_.forward);
  if (backward) compare("backward", e.backward.seconds, seconds_.backward);
  return "  predicted " + line + "\n";
}

void describe_result(Draft& draft, const Settings& settings, const Context& context, const Job& job,
                     const std::string& schema, const Compute& compute) {
  for (const std::string& name : draft.leftovers())
    std::fprintf(stderr, "annulus: removed %s, which a killed job had left\n", name.c_str());
  std::string line = "annulus";
  for (const std::string& argument : context.arguments()) line += " " + argument;
  const std::vector<std::pair<std::string, Value>> values{
      {"schema", schema},
      {"schema_version", Index{1}},
      {"program", std::string("annulus ") + ANNULUS_VERSION},
      {"command_line", line},
      {"configuration", config_page(settings)},
      {"strategy", job.strategy},
      {"grid", to_text(job.schedule.grid)},
      {"partition", job.schedule.queries.name()},
      {"ranks", Index{job.place.ranks}},
      {"threads_per_rank", Index{job.place.threads}},
      {"transport", compute.transport()},
      {"device", compute.device()},
      {"kernel", compute.kernel()},
      {"mask", job.schedule.mask.name()},
      {"dtype", std::string(name_of(job.shape.type))},
      {"softmax_scale", job.shape.softmax_scale},
  };
  draft.attributes(values);
  if (!job.weights.empty()) draft.attribute("/", "weights", job.weights);
}

Layout share_layout(Transport& transport, const Layout& mine) {
  std::vector<std::byte> bytes;
  if (transport.rank() == 0) bytes = serialise(mine);
  broadcast(transport, 0, bytes);
  return parse_layout(bytes);
}

void check_numbers(const Rows& rows, Index first, const std::string& what, std::span<const Run> runs) {
  for (Index token = 0; token < rows.tokens; ++token) {
    const Index x = first_nan(rows, token);
    if (x < 0) continue;
    throw Error(Failure::file, sentence(what, " must hold numbers: token ", position_of(runs, first + token), ", head ",
                                        x / rows.channels, ", channel ", x % rows.channels, " is NaN"));
  }
}

}  // namespace annulus::app
