#include "app/model_run.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <optional>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/transport/collectives.hpp"
#include "app/checkpoint_folder.hpp"
#include "app/compute.hpp"
#include "app/help.hpp"
#include "app/model_result.hpp"
#include "app/outputs.hpp"
#include "app/speeds.hpp"

namespace annulus::app {
namespace {

// Sums over rows and heads of a layer's statistics, for people.
struct LayerSums {
  Index layer = 0;
  std::array<double, 5> values{};  // entropy, max_probability, sink_mass, mean_distance, how many
};

ModelChoice choice_of(const Settings& settings) {
  const std::string &tokens = settings.text("tokens"), &model = settings.text("model");
  require(tokens == "auto" || tokens == "ids", settings.name_of("tokens"),
          " must be auto or ids for a trained model, which has tokens of its own: it is ", tokens);
  for (const char* name : {"contexts", "passage-tokens"})
    require(!settings.given(name), settings.name_of(name), " is for the model induction, not for ", model);
  return {checkpoint_folder(model), settings.positional(), tokens == "ids", settings.text("mask")};
}

// One rank's part of a run, in the order in which its functions stand here.
class TransformerRun {
 public:
  TransformerRun(const Settings& settings, const Context& context, const Placement& place, RankTools& tools)
      : settings_(settings), context_(context), place_(place), tools_(tools), rank_(tools.transport.rank()) {}

  void operator()() {
    const double begins = tools_.timeline.now();
    together(tools_.transport, [&] {
      subject_.emplace(choice_of(settings_));
      if (!tools_.lead) subject_->tokenizer.reset();  // it is large, and ranks may be many threads of a process
    });
    together(tools_.transport, [&] { prepare(); });
    for (const Job& job : jobs_)
      computes_.push_back(std::make_unique<Compute>(
          settings_, job, tools_, Passes{false, false, trace_bytes(recording_->traces, job), &*progress_}));
    RowWriter writer(share_layout(tools_.transport, make_draft()));
    together(tools_.transport, [&] { embed(); });
    const double computes = tools_.timeline.now();
    for (Index layer = 0; layer < subject_->shape.layers; ++layer) compute(layer, writer);
    together(tools_.transport, [&] { read_out(); });
    progress_->finish();
    const double writes = tools_.timeline.now();
    add_up();
    together(tools_.transport, [&] {
      write(writer);
      writer.finish();
    });
    together(tools_.transport, [&] {
      if (tools_.lead) commit();
    });
    if (tools_.lead) print({computes - begins, writes - computes, tools_.timeline.now() - writes});
  }

 private:
  struct Seconds {
    double before, layers, after;
  };

  void prepare() {
    const TransformerShape& s = subject_->shape;
    recording_.emplace(settings_, s.layers);
    const DType type = parse_dtype(settings_.text("dtype"));
    // One partition for all layers, as it suits those that see most.
    const auto most = std::ranges::max_element(subject_->masks, {}, &Mask::pairs);
    const Job widest = make_job(settings_, place_, subject_->attention(type), *most, false);
    for (const Mask& mask : subject_->masks) {
      jobs_.push_back(widest);
      if (mask.name() != most->name()) jobs_.back().schedule = with_mask(widest.schedule, mask);
    }
    widest_ = static_cast<std::size_t>(most - subject_->masks.begin());
    transformer_.emplace(subject_->folder, s, type, place_.threads);
    check_memory(widest, false, extra_bytes());
    progress_.emplace(settings_.text("progress"), tools_.lead, "layers", units());
    transformer_->tell([this](double operations) {
      progress_->add(static_cast<Index>(operations / operations_per_unit()));
      require_not_stopped();
    });
  }

  const Job& job_of(Index layer) const { return jobs_[subject_->mask_of[static_cast<std::size_t>(layer)]]; }
  std::span<const Run> runs() const { return jobs_.front().schedule.queries.runs(rank_); }

  // What a rank needs besides its rows of q, k, v and out. The lead keeps the block maps of all layers until the end.
  Index extra_bytes() const {
    const Index rows = jobs_.front().schedule.queries.largest(), streams = recording_->activations.mlp ? 2 : 1;
    constexpr Index of_token = sizeof(std::uint32_t) + 2 * sizeof(Index);
    return rows * (streams * subject_->shape.channels * 4 + of_token) + transformer_->working_bytes(rows) +
           trace_bytes(recording_->traces, jobs_.front()) +
           trace_bytes({.map = recording_->traces.map, .map_blocks = recording_->traces.map_blocks}, jobs_.front()) *
               std::ranges::count(recording_->layers, true);
  }

  // The progress counts pairs x heads, and of what is done token by token so many operations as one.
  double operations_per_unit() const { return 4.0 * static_cast<double>(subject_->shape.head_channels); }
  Index units() const {
    const auto layers = static_cast<double>(subject_->shape.layers),
               rows = static_cast<double>(jobs_.front().schedule.queries.rows(rank_));
    double sum = rows / operations_per_unit() *
                 (layers * transformer_->layer_operations() + transformer_->read_out_operations());
    for (Index layer = 0; layer < subject_->shape.layers; ++layer) {
      const Schedule& schedule = job_of(layer).schedule;
      const auto triples =
          static_cast<double>(schedule.planner.pairs_of(schedule.seat_of(rank_)) * subject_->shape.query_heads);
      sum += triples / schedule.grid.heads * (recording_->traced(layer) ? 2 : 1);
    }
    return static_cast<Index>(sum);
  }

  Layout make_draft() {
    Layout mine;
    together(tools_.transport, [&] {
      if (!tools_.lead) return;
      std::vector<std::string> inputs = subject_->files();
      for (const std::string& file : subject_->model_files(*transformer_)) inputs.push_back(file);
      check_outputs(settings_, inputs);
      draft_.emplace(settings_.text("output"), settings_.flag("overwrite"));
      describe_result(*draft_, settings_, context_, jobs_[widest_], "annulus-run", *computes_[widest_]);
      describe_model(*draft_, *subject_, subject_->model_files(*transformer_));
      declare_model_result(*draft_, *subject_, *recording_, jobs_, transformer_->predicts());
      mine = draft_->seal();
    });
    return mine;
  }

  void embed() {
    const AttentionShape& s = jobs_.front().shape;
    for (const Run& run : runs())
      for (Index i = 0; i < run.count; ++i) {
        const Index token = run.at(i);
        ids_.push_back(subject_->texts->ids()[static_cast<std::size_t>(token)]);
        positions_.push_back(subject_->position(token));
        next_.push_back(subject_->next(token));
      }
    const auto rows = static_cast<Index>(ids_.size());
    residual_ = Array(tools_.device, DType::f32, rows, 1, subject_->shape.channels);
    if (recording_->activations.mlp) mlp_ = Array(tools_.device, DType::f32, rows, 1, subject_->shape.channels);
    q_ = Array(tools_.device, s.type, rows, s.query_heads, s.channels);
    block_ = Array(lending(tools_.transport, tools_.device), s.type, rows, 1, s.kv_heads * 2 * s.channels);
    out_ = Array(tools_.device, DType::f32, rows, s.query_heads, s.channels);
    lse_ = Array(tools_.device, DType::f32, rows, s.query_heads, 1);
    kv_ = Attention::views(block_, s.kv_heads, s.channels, s.channels);
    progress_->begin();
    transformer_->embed(ids_, positions_, residual_);
  }

  void compute(Index layer, RowWriter& writer) {
    Compute& compute = *computes_[subject_->mask_of[static_cast<std::size_t>(layer)]];
    together(tools_.transport, [&] {
      const Timeline::Span span(tools_.timeline, "project", layer);
      transformer_->project(layer, residual_, positions_, q_, kv_.k, kv_.v);
    });
    const double attends = tools_.timeline.now();
    compute.forward(q_, kv_, out_, lse_);
    forward_seconds_ += tools_.timeline.now() - attends;
    std::optional<Traces> traces;
    if (recording_->traced(layer)) {
      traces.emplace(recording_->traces, job_of(layer), tools_, layer_group(layer) + "/attention");
      compute.observe(q_, kv_.k, lse_, *traces);
      deviation_ = std::max(deviation_, traces->deviation());
    }
    const double absorbs = tools_.timeline.now();
    together(tools_.transport, [&] {
      {
        const Timeline::Span span(tools_.timeline, "absorb", layer);
        transformer_->absorb(layer, out_, residual_, mlp_);
      }
      if (recording_->of(layer)) write(layer, writer);
      if (!traces) return;
      traces->write(writer, lse_);
      sums_.push_back(sums_of(layer, *traces));
      traces->drop_rows();
      if (tools_.lead) maps_.push_back(std::move(*traces));
    });
    attention_seconds_ += absorbs - attends;
  }

  void write(Index layer, RowWriter& writer) const {
    const std::string group = layer_group(layer) + "/";
    const Activations& a = recording_->activations;
    const Rows& out = out_;
    if (a.residual) writer.write_rows(group + "residual", runs(), residual_);
    if (a.mlp) writer.write_rows(group + "mlp", runs(), mlp_);
    if (a.out)
      writer.write_rows(group + "out", runs(),
                        dense_rows(out.data, DType::f32, out.tokens, 1, out.heads * out.channels));
    if (a.q) writer.write_rows(group + "q", runs(), q_);
    if (a.k) writer.write_rows(group + "k", runs(), kv_.k);
    if (a.v) writer.write_rows(group + "v", runs(), kv_.v);
  }

  static LayerSums sums_of(Index layer, const Traces& traces) {
    LayerSums sums{layer};
    std::size_t n = 0;
    for (const Rows& rows : {traces.entropy(), traces.max_probability(), traces.sink_mass(), traces.mean_distance()}) {
      const std::span<const float> all(rows.at<const float>(0), static_cast<std::size_t>(rows.tokens * rows.heads));
      sums.values[n++] = std::accumulate(all.begin(), all.end(), 0.0);
      sums.values[4] = static_cast<double>(all.size());
    }
    return sums;
  }

  void read_out() {
    if (!transformer_->predicts()) return;
    const Timeline::Span span(tools_.timeline, "read out", 0);
    predicted_ = transformer_->read_out(residual_, next_);
  }

  // Sums over all ranks, on the lead.
  void add_up() {
    std::vector<double> all;
    for (const LayerSums& sums : sums_) all.insert(all.end(), sums.values.begin(), sums.values.end());
    std::array<double, 3> texts{};  // bits, tokens that are followed by one, and those predicted right
    for (std::size_t n = 0; n < predicted_.id.size(); ++n) {
      if (next_[n] < 0) continue;
      texts[0] += predicted_.bits[n];
      texts[1] += 1;
      texts[2] += predicted_.id[n] == next_[n] ? 1 : 0;
    }
    all.insert(all.end(), texts.begin(), texts.end());
    sum_to(tools_.transport, 0, all);
    auto at = all.begin();
    for (LayerSums& sums : sums_)
      for (double& value : sums.values) value = *at++;
    std::copy(at, all.end(), texts_.begin());
  }

  void write(RowWriter& writer) const {
    write_tokens(writer, *subject_, runs());
    if (!transformer_->predicts()) return;
    const auto floats = [&](const char* name, const std::vector<float>& values) {
      writer.write_rows(sentence("predictions/", name), runs(),
                        dense_rows(const_cast<float*>(values.data()), DType::f32,  // only read
                                   static_cast<Index>(values.size()), 1, 1));
    };
    writer.write_integer_rows("predictions/ids", runs(), predicted_.id, 1);
    floats("probability", predicted_.probability);
    floats("bits", predicted_.bits);
    floats("entropy", predicted_.entropy);
  }

  void commit() {
    for (const Traces& traces : maps_) traces.write_small(*draft_);
    write_names(*draft_, *subject_);
    if (transformer_->predicts() && texts_[1] > 0) {
      draft_->attribute("predictions", "accuracy", texts_[2] / texts_[1]);
      draft_->attribute("predictions", "bits_per_token", texts_[0] / texts_[1]);
    }
    draft_->commit();
  }

  void print(const Seconds& seconds) const {
    const Job& job = jobs_[widest_];
    const AttentionShape& s = job.shape;
    const TransformerShape& model = subject_->shape;
    const auto number = [](Index n) { return static_cast<long long>(n); };
    std::printf("annulus run: model %s (%s), %lld layers, %lld:%lld heads x %lld channels, %s, mask %s%s\n",
                subject_->folder.c_str(), model.kind.c_str(), number(model.layers), number(s.query_heads),
                number(s.kv_heads), number(s.channels), std::string(name_of(s.type)).c_str(),
                subject_->base_mask.c_str(), subject_->masks.size() > 1 ? ", windows in some layers" : "");
    std::printf("  plan      %s\n            %s  kernel    %s\n", describe(job, context_).c_str(),
                wrapped_line(job.reason, 12).c_str(), computes_[widest_]->description().c_str());
    const Index documents = subject_->texts->documents(), tokens = subject_->texts->tokens();
    std::printf("  input     %s token%s in %s document%s; weights %s\n", grouped(tokens).c_str(),
                tokens == 1 ? "" : "s", grouped(documents).c_str(), documents == 1 ? "" : "s",
                bytes_text(static_cast<double>(transformer_->weight_bytes())).c_str());
    if (subject_->longest > model.positions)
      std::printf("  note      the model was trained for %s positions, and here are up to %s\n",
                  grouped(model.positions).c_str(), grouped(subject_->longest).c_str());
    std::printf("  time      read %s, layers %s (attention %s, rest %s), write %s\n",
                duration_text(seconds.before).c_str(), duration_text(seconds.layers).c_str(),
                duration_text(attention_seconds_).c_str(), duration_text(seconds.layers - attention_seconds_).c_str(),
                duration_text(seconds.after).c_str());
    if (const auto hardware = hardware_of(settings_)) print_prediction(*hardware);
    if (recording_->traces.received && !sums_.empty())
      std::printf("  check     attention received = queries in every layer, off by %.1e at most\n", deviation_);
    print_layers();
    if (transformer_->predicts() && texts_[1] > 0) {
      const double bits = texts_[0] / texts_[1];
      std::printf("\n  next token: right %.1f %%, %.2f bits each (perplexity %.3g)\n", 100 * texts_[2] / texts_[1],
                  bits, std::exp2(bits));
    }
    std::printf("\n  wrote     %s\n", settings_.text("output").c_str());
  }

  void print_prediction(const Hardware& hardware) const {
    double predicted = 0;
    for (std::size_t m = 0; m < jobs_.size(); ++m) {
      const auto layers = static_cast<double>(std::ranges::count(subject_->mask_of, m));
      predicted += layers * estimate(jobs_[m].schedule, prices_of(jobs_[m], context_, hardware, false)).forward.seconds;
    }
    std::printf("  predicted attention of all layers, without traces, %s, measured %s (%.2f x)\n",
                duration_text(predicted).c_str(), duration_text(forward_seconds_).c_str(),
                forward_seconds_ / std::max(predicted, 1e-9));
  }

  void print_layers() const {
    if (sums_.empty() || sums_.front().values[4] == 0) return;
    std::printf("\n  means over heads and tokens\n    layer   entropy   largest p   first %lld keys   distance\n",
                static_cast<long long>(recording_->traces.sink_tokens));
    for (const LayerSums& sums : sums_) {
      const auto mean = [&](std::size_t n) { return sums.values[n] / sums.values[4]; };
      const Index window = subject_->shape.layer[static_cast<std::size_t>(sums.layer)].window_before;
      std::printf("    %5lld   %7.2f   %9.3f   %12.3f   %8.1f%s\n", static_cast<long long>(sums.layer), mean(0),
                  mean(1), mean(2), mean(3), window < 0 ? "" : sentence("   window ", window + 1).c_str());
    }
  }

  const Settings& settings_;
  const Context& context_;
  const Placement place_;
  RankTools& tools_;
  const Rank rank_;
  std::optional<ModelSubject> subject_;
  std::optional<Recording> recording_;
  std::vector<Job> jobs_;  // one for each mask
  std::size_t widest_ = 0;
  std::optional<Transformer> transformer_;
  std::optional<Progress> progress_;
  std::vector<std::unique_ptr<Compute>> computes_;  // likewise
  std::optional<Draft> draft_;
  std::vector<std::uint32_t> ids_;
  std::vector<Index> positions_, next_;
  Array residual_, mlp_, q_, block_, out_, lse_;
  KeyValue kv_;
  NextTokens predicted_;
  std::vector<LayerSums> sums_;
  std::vector<Traces> maps_;  // on the lead, without rows
  std::array<double, 3> texts_{};
  double deviation_ = 0, attention_seconds_ = 0, forward_seconds_ = 0;
};

}  // namespace

void run_transformer_rank(const Settings& given, const Context& context, const Placement& place, RankTools& tools) {
  const Settings settings = with_measured_weights(given, place, tools);
  TransformerRun(settings, context, place, tools)();
}

}  // namespace annulus::app
