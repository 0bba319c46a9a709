#include "app/model_result.hpp"

#include <algorithm>
#include <filesystem>

#include "annulus/base/error.hpp"
#include "annulus/store/content_hash.hpp"
#include "app/sequence.hpp"

namespace annulus::app {
namespace {

const std::vector<std::string> coordinates{"document", "byte_begin", "position"};

std::vector<std::string> hashes_of(const std::vector<std::string>& files) {
  std::vector<std::string> all;
  for (const std::string& file : files) all.push_back(content_hash(file));
  return all;
}

// HDF5's texts end at a zero.
std::string without_zeros(std::string text) {
  for (std::size_t at = 0; (at = text.find('\0', at)) != text.npos;) text.replace(at, 1, "\\x00");
  return text;
}

// One layer's datasets.
void declare_layer(Draft& draft, const ModelSubject& subject, const Recording& recording, const Job& job, Index layer) {
  const TransformerShape& s = subject.shape;
  const Index tokens = subject.texts->tokens();
  const Element element = element_of(job.shape.type);
  const std::string group = layer_group(layer), attention = group + "/attention";
  const auto flat = [&](bool wanted, const char* name, Index channels, const char* dimension, const char* what) {
    if (wanted) draft.add({group + "/" + name, {tokens, channels}, element, {"token", dimension}, "1", what});
  };
  const auto by_heads = [&](bool wanted, const char* name, Index heads, const char* row, const char* head,
                            const char* what) {
    if (!wanted) return;
    const std::vector<Index> dims{tokens, heads, s.head_channels};
    draft.add({group + "/" + name, dims, element, {row, head, "head_channel"}, "1", what});
  };
  const Activations& a = recording.activations;
  flat(a.residual, "residual", s.channels, "channel", "residual stream behind the layer");
  flat(a.mlp, "mlp", s.channels, "channel", "what the layer's MLP added to the residual stream");
  flat(a.out, "out", s.query_heads * s.head_channels, "out_channel", "attention output, head after head");
  by_heads(a.q, "q", s.query_heads, "token", "head", "queries, turned by their positions");
  by_heads(a.k, "k", s.kv_heads, "key", "kv_head", "keys, turned by their positions");
  by_heads(a.v, "v", s.kv_heads, "key", "kv_head", "values");
  Traces::declare(draft, recording.traces, job, attention);
  for (const auto& [there, name] : {std::pair{a.any(), group}, std::pair{recording.traces.any(), attention}}) {
    if (!there) continue;
    share_coordinates(draft, name, coordinates);
    draft.attribute(name, "mask", job.schedule.mask.name());
  }
}

}  // namespace

Recording::Recording(const Settings& settings, Index count)
    : traces(trace_choice(settings)),
      activations(parse_activations(settings.text("activations"))),
      layers(static_cast<std::size_t>(count), !settings.has("layers")) {
  for (const Range& range : settings.list("layers")) {
    require(range.end <= count, settings.name_of("layers"), " names layer ", range.end - 1,
            ", and the model has layers 0 to ", count - 1);
    std::fill(layers.begin() + range.begin, layers.begin() + range.end, true);
  }
}

void declare_model_result(Draft& draft, const ModelSubject& subject, const Recording& recording,
                          const std::vector<Job>& jobs, bool predicts) {
  const Index tokens = subject.texts->tokens();
  draft.dimension("token", tokens);
  draft.dimension("key", tokens);
  draft.dimension("head", subject.shape.query_heads);
  const auto add = [&](const char* name, Element element, const char* units, const char* what) {
    draft.add({name, {tokens}, element, {"token"}, units, what});
  };
  add("tokens/ids", Element::u32, "1",
      "token, numbered as in the model's vocabulary; spelled out in tokens/vocabulary");
  add("tokens/byte_begin", Element::u64, "byte", "first byte of the token in its document's file, unpacked");
  add("tokens/byte_end", Element::u64, "byte", "byte behind the token");
  add("tokens/document", Element::u32, "1", "document of the token, as in documents/path");
  add("tokens/position", Element::u32, "token", "position of the token, as the model sees it");
  share_coordinates(draft, "tokens", coordinates);
  if (predicts) {
    add("predictions/ids", Element::u32, "1", "the token most likely to follow");
    add("predictions/probability", Element::f32, "1", "its probability");
    add("predictions/bits", Element::f32, "bit", "cost of the token that does follow; NaN where none does");
    add("predictions/entropy", Element::f32, "bit", "entropy of the token that follows");
    share_coordinates(draft, "predictions", coordinates);
  }
  for (Index layer = 0; layer < subject.shape.layers; ++layer)
    if (recording.of(layer))
      declare_layer(draft, subject, recording, jobs[subject.mask_of[static_cast<std::size_t>(layer)]], layer);
}

void describe_model(Draft& draft, const ModelSubject& subject, const std::vector<std::string>& files) {
  draft.attribute("/", "mask", subject.base_mask);
  draft.attribute("/", "inputs", subject.files());
  draft.attribute("/", "input_hashes", hashes_of(subject.files()));
  draft.attribute("/", "model", std::filesystem::absolute(subject.folder).lexically_normal().string());
  draft.attribute("/", "model_kind", subject.shape.kind);
  draft.attribute("/", "model_files", files);
  draft.attribute("/", "model_hashes", hashes_of(files));
  draft.attribute("/", "token_kind", std::string(subject.by_ids ? "ids" : "model"));
}

void write_tokens(RowWriter& writer, const ModelSubject& subject, std::span<const Run> runs) {
  const auto write = [&](const char* name, const auto& number_of) {
    std::vector<Index> numbers;
    for (const Run& run : runs)
      for (Index i = 0; i < run.count; ++i) numbers.push_back(number_of(run.at(i)));
    writer.write_integer_rows(sentence("tokens/", name), runs, numbers, 1);
  };
  const EncodedTexts& texts = *subject.texts;
  write("ids", [&](Index token) { return static_cast<Index>(texts.ids()[static_cast<std::size_t>(token)]); });
  write("byte_begin", [&](Index token) { return texts.byte_begin(token); });
  write("byte_end", [&](Index token) { return texts.byte_end(token); });
  write("document", [&](Index token) { return texts.document(token); });
  write("position", [&](Index token) { return subject.position(token); });
}

void write_names(Draft& draft, const ModelSubject& subject) {
  std::vector<std::string> paths, words;
  for (Index d = 0; d < subject.texts->documents(); ++d) paths.push_back(subject.texts->path(d));
  const auto count = static_cast<Index>(paths.size());
  draft.write_small({"documents/path", {count}, Element::text, {"document"}, "", "file of the document"}, paths);
  draft.write_small({"documents/offset",
                     {count + 1},
                     Element::i64,
                     {"boundary"},
                     "token",
                     "first token of each document, and the end"},
                    subject.offsets);
  if (!subject.tokenizer) return;
  for (Index id = 0; id < subject.shape.vocabulary; ++id)
    words.push_back(without_zeros(subject.tokenizer->spelling(static_cast<std::uint32_t>(id))));
  draft.write_small(
      {"tokens/vocabulary", {subject.shape.vocabulary}, Element::text, {"id"}, "", "spelling of each token id"}, words);
}

}  // namespace annulus::app
