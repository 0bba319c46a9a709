#include <algorithm>
#include <cstdio>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/model/induction.hpp"
#include "annulus/store/content_hash.hpp"
#include "annulus/transport/collectives.hpp"
#include "app/activations.hpp"
#include "app/backends.hpp"
#include "app/checkpoint_folder.hpp"
#include "app/commands/commands.hpp"
#include "app/compute.hpp"
#include "app/help.hpp"
#include "app/outputs.hpp"
#include "app/sequence.hpp"
#include "app/speeds.hpp"
#include "app/stop.hpp"
#include "app/timeline_file.hpp"

namespace annulus::app {
namespace {

const std::string layer = "layers/000";

std::vector<Index> parse_contexts(std::string_view text) {
  std::vector<Index> contexts;
  for (const Range range : parse_list(text))
    for (Index tokens = range.begin; tokens < std::min(range.end, range.begin + longest_context + 1); ++tokens)
      contexts.push_back(tokens);
  induction_model(contexts);  // knows the rules
  return contexts;
}

SequenceChoice choice_of(const Settings& settings) {
  SequenceChoice choice;
  choice.model = settings.text("model");
  choice.tokens = settings.text("tokens");
  choice.files = settings.positional();
  choice.type = parse_dtype(settings.text("dtype"));
  choice.documents_apart = names_term(settings.text("mask"), "documents");
  if (settings.has("passage-tokens")) choice.passage_tokens = settings.count("passage-tokens", 1);
  if (settings.has("contexts")) choice.contexts = parse_contexts(settings.text("contexts"));
  return choice;
}

void declare(Draft& draft, const Sequence& sequence, const Job& job, const TraceChoice& traces) {
  const AttentionShape& s = job.shape;
  draft.dimension("token", sequence.tokens());
  draft.dimension("key", sequence.tokens());
  draft.dimension("head", s.query_heads);
  sequence.declare(draft, traces);
  draft.add({layer + "/out",
             {sequence.tokens(), s.query_heads * s.value_channels},
             element_of(s.type),
             {"token", "channel"},
             "1",
             "attention output, head after head"});
  const std::string attention = layer + "/attention";
  Traces::declare(draft, traces, job, attention);
  share_coordinates(draft, layer, sequence.coordinates());
  if (traces.any()) share_coordinates(draft, attention, sequence.coordinates());
}

void describe_input(Draft& draft, const Sequence& sequence) {
  std::vector<std::string> hashes;
  for (const std::string& file : sequence.files()) hashes.push_back(content_hash(file));
  draft.attribute("/", "inputs", sequence.files());
  draft.attribute("/", "input_hashes", hashes);
  draft.attribute("/", "model", sequence.model());
  draft.attribute("/", "token_kind", sequence.token_kind());
}

void run_rank(const Settings& given, const Context& context, const Placement& place, RankTools& tools) {
  const Settings settings = with_measured_weights(given, place, tools);
  const Rank rank = tools.transport.rank();
  const TraceChoice traces_choice = trace_choice(settings);
  const SequenceChoice choice = choice_of(settings);
  std::unique_ptr<Sequence> sequence;
  std::optional<Job> job;
  std::optional<Draft> draft;
  const double begins = tools.timeline.now();
  together(tools.transport, [&] { sequence = make_sequence(choice); });
  together(tools.transport, [&] {
    job = make_job(settings, place, sequence->shape(), sequence->mask(settings.text("mask")), false);
    check_memory(*job, false,
                 trace_bytes(traces_choice, *job) + job->schedule.queries.largest() * sequence->bytes_per_token());
  });
  sequence->prepare(tools.transport);
  Compute compute(settings, *job, tools, {traces_choice.any(), false, trace_bytes(traces_choice, *job)});
  Layout mine;
  together(tools.transport, [&] {
    if (!tools.lead) return;
    check_outputs(settings, sequence->files());
    draft.emplace(settings.text("output"), settings.flag("overwrite"));
    describe_result(*draft, settings, context, *job, "annulus-run", compute);
    describe_input(*draft, *sequence);
    declare(*draft, *sequence, *job, traces_choice);
    mine = draft->seal();
  });
  const Layout layout = share_layout(tools.transport, mine);

  const AttentionShape& s = job->shape;
  const auto runs = job->schedule.queries.runs(rank);
  const Index rows = job->schedule.queries.rows(rank);
  Array q, block, out, lse;
  KeyValue kv;
  together(tools.transport, [&] {
    q = Array(tools.device, s.type, rows, s.query_heads, s.channels);
    block =
        Array(lending(tools.transport, tools.device), s.type, rows, 1, s.kv_heads * (s.channels + s.value_channels));
    out = Array(tools.device, DType::f32, rows, s.query_heads, s.value_channels);
    lse = Array(tools.device, DType::f32, rows, s.query_heads, 1);
    kv = Attention::views(block, s.kv_heads, s.channels, s.value_channels);
    sequence->embed(runs, q, kv.k, kv.v);
  });
  const double computes = tools.timeline.now();
  compute.forward(q, kv, out, lse);
  Traces traces(traces_choice, *job, tools, layer + "/attention");
  if (traces_choice.any()) compute.observe(q, kv.k, lse, traces);
  compute.finish();
  const double reads = tools.timeline.now();
  together(tools.transport, [&] { sequence->read_out(*job, rank, traces, lse); });
  sequence->collect(tools.transport);
  together(tools.transport, [&] {
    RowWriter writer(layout);
    writer.write_rows(layer + "/out", runs,
                      dense_rows(out.rows().data, DType::f32, rows, 1, s.query_heads * s.value_channels));
    traces.write(writer, lse);
    sequence->write(writer, runs);
    writer.finish();
  });
  std::string prediction;
  together(tools.transport, [&] {
    if (!tools.lead) return;
    traces.write_small(*draft);
    sequence->write_small(*draft);
    prediction = compute.compare_with_prediction(settings, context, *draft);
    draft->commit();
  });
  if (!tools.lead) return;
  const double passes = 2.0 * static_cast<double>(s.channels + s.value_channels) +
                        (traces_choice.any() ? 2.0 * static_cast<double>(s.channels) : 0.0);
  const double operations = passes * static_cast<double>(job->schedule.mask.pairs() * s.query_heads);
  const std::string &asked = settings.text("mask"), &taken = job->schedule.mask.name();
  std::printf("annulus run: model %s, %lld heads x %lld channels, %s, mask %s%s\n", sequence->model().c_str(),
              static_cast<long long>(s.query_heads), static_cast<long long>(s.channels),
              std::string(name_of(s.type)).c_str(), taken.c_str(),
              asked.empty() || asked == taken ? "" : sentence(" (asked for: ", asked, ")").c_str());
  std::printf("  plan      %s\n            %s  kernel    %s\n", describe(*job, context).c_str(),
              wrapped_line(job->reason, 12).c_str(), compute.description().c_str());
  std::printf("  time      read and embed %s, attention %s (%.1f GFLOP/s), read out and write %s\n",
              duration_text(computes - begins).c_str(), duration_text(reads - computes).c_str(),
              operations / (reads - computes) * 1e-9, duration_text(tools.timeline.now() - reads).c_str());
  std::fputs(prediction.c_str(), stdout);
  if (traces_choice.received)
    std::printf("  check     attention received = queries, off by %.1e\n", traces.deviation());
  sequence->print();
  std::printf("\n  wrote     %s\n", settings.text("output").c_str());
}

void check_model(std::string_view model) {
  if (names_checkpoint(model)) checkpoint_folder(model);
}

int run(const Settings& settings, Context& context) {
  require(settings.has("output"), "run needs --output FILE");
  const bool trained = names_checkpoint(settings.text("model"));
  for (const char* name : {"activations", "layers"})
    require(trained || !settings.given(name), settings.name_of(name), " is for trained models: the model is ",
            settings.text("model"));
  require(trained || settings.text("tokens") != "ids", settings.name_of("tokens"),
          " ids are for trained models: the model is ", settings.text("model"));
  const Placement place = placement(settings, context);
  catch_stop_signals();
  context.on_every_rank(place.ranks, settings.number("timeout"),
                        recorded(settings, [&](RankTools& tools) {
                          (trained ? run_checkpoint_rank : run_rank)(settings, context, place, tools);
                        }));
  return 0;
}

std::vector<Option> model_options() {
  return {
      {.name = "model",
       .value = "MODEL",
       .fallback = "auto",
       .group = "Model",
       .help = "induction: what followed the same words before (texts)\nsimilarity: what sounds alike (one "
               "recording: wav, flac, ogg)\nauto: by the first file's name, else by its first bytes\n"
               "a folder: a trained transformer as Hugging Face stores them, config.json, safetensors and "
               "tokenizer.json\na name such as Qwen/Qwen3-0.6B: the folder where hf download has put it",
       .check = check_model},
      {.name = "tokens",
       .value = "auto|words|bytes|bases|ids",
       .fallback = "auto",
       .group = "Model",
       .help = "what a token of a text is; a recording's is 50 ms of sound, a trained model has its own\n"
               "bases: residues of FASTA, each record a document\nids: the files hold the numbers of a trained model's "
               "tokens\nauto: bases of .fa .fasta .fna .ffn .frn .faa (with .gz, too), else words"},
      {.name = "contexts",
       .value = "LIST",
       .fallback = "(1,2,4,8; of bases 2,4,8,16)",
       .group = "Model",
       .help = sentence("tokens of context of each head of a text: 1 to ", most_contexts, " whole numbers up to ",
                        longest_context, "\nthe longest finds passages; beyond 16 heads get 8 channels for each"),
       .check = [](std::string_view value) { parse_contexts(value); }},
      {.name = "passage-tokens",
       .value = "N",
       .fallback = "(12; of bases 32)",
       .group = "Model",
       .help = "shortest passage reported, in tokens; shorter ones of bases are often alike by chance",
       .check = whole_number(1)},
      {.name = "activations",
       .value = "LIST",
       .fallback = "residual",
       .group = "Model",
       .help = "what is kept of a trained model's layers, with commas between\nnone, residual (the stream behind the "
               "layer), out (attention output), mlp (what it adds to the stream), q, k, v (which attend --group layers/007 "
               "reads)",
       .check = [](std::string_view value) { parse_activations(value); }},
      {.name = "layers",
       .value = "LIST",
       .fallback = "(all)",
       .group = "Model",
       .help = "layers of which activations and traces are kept: 0,8,16-23",
       .check = number_list()}};
}

Option mask_for_run() {
  Option mask = mask_option("(the model's: causal for texts and most trained models, all that came before for recordings)");
  mask.help += "\nof a text no token sees later ones: causal is added to a mask without it";
  return mask;
}

}  // namespace

Command run_command() {
  return {.name = "run",
          .summary = "documents or a recording -> activations and attention traces in HDF5",
          .arguments = {"FILE...", 1, 1'000'000},
          .options = joined({model_options(),
                             {mask_for_run(),
                              dtype_option("f32"),
                              {.name = "softmax-scale",
                               .value = "X",
                               .fallback = "(the model's own)",
                               .group = "Attention",
                               .help = "not for run: a model is made for its own scale",
                               .check =
                                   [](std::string_view value) {
                                     throw Error(Failure::usage,
                                                 sentence("run's models are made for their own scale, which cannot be ",
                                                          value, ": it is for attend, bench and plan"));
                                   }}},
                             trace_options("full"),
                             distribution_options(),
                             output_options()}),
          .examples = {"annulus run book.txt --output book.h5",
                       "mpirun -n 4 annulus run chapters/*.txt --output book.h5 --overwrite",
                       "annulus run genome.fa.gz --output genome.h5 --mask causal+window:99999,0",
                       "annulus run talk.flac --output talk.h5 --ranks 2",
                       "mpirun -n 4 annulus run book.txt --model models/Qwen3-0.6B --dtype bf16 --output book.h5"},
          .run = run};
}

}  // namespace annulus::app
