#include "model/checkpoint/architecture.hpp"

#include <algorithm>
#include <array>

#include "annulus/base/error.hpp"

namespace annulus {
namespace {

Linear whole(const std::string& name, Index outputs, Index inputs) {
  return {{{name, outputs, {0, outputs}}}, inputs, outputs};
}

// Some outputs of a matrix that several share.
Linear part_of(const std::string& name, Index all, Range taken, Index inputs) {
  return {{{name, all, taken}}, inputs, taken.count()};
}

struct Widths {
  Index q, kv, channels, hidden;
};
Widths widths_of(const TransformerShape& s) {
  return {s.query_heads * s.head_channels, s.kv_heads * s.head_channels, s.channels, s.hidden};
}

// q, k and v one after another in one matrix.
void split_attention(LayerTensors& t, const std::string& name, const Widths& w) {
  const Index all = w.q + 2 * w.kv;
  t.q = part_of(name, all, {0, w.q}, w.channels);
  t.k = part_of(name, all, {w.q, w.q + w.kv}, w.channels);
  t.v = part_of(name, all, {w.q + w.kv, all}, w.channels);
}

LayerTensors llama_layer(const TransformerShape& s, const std::string& at) {
  const Widths w = widths_of(s);
  LayerTensors t;
  t.out = whole(at + "self_attn.o_proj", w.channels, w.q);
  if (s.kind == "phi3") {
    split_attention(t, at + "self_attn.qkv_proj", w);
    t.gate = part_of(at + "mlp.gate_up_proj", 2 * w.hidden, {0, w.hidden}, w.channels);
    t.up = part_of(at + "mlp.gate_up_proj", 2 * w.hidden, {w.hidden, 2 * w.hidden}, w.channels);
    t.down = whole(at + "mlp.down_proj", w.channels, w.hidden);
  } else {
    t.q = whole(at + "self_attn.q_proj", w.q, w.channels);
    t.k = whole(at + "self_attn.k_proj", w.kv, w.channels);
    t.v = whole(at + "self_attn.v_proj", w.kv, w.channels);
    const bool gated = s.kind != "starcoder2";
    if (gated) t.gate = whole(at + "mlp.gate_proj", w.hidden, w.channels);
    t.up = whole(at + (gated ? "mlp.up_proj" : "mlp.c_fc"), w.hidden, w.channels);
    t.down = whole(at + (gated ? "mlp.down_proj" : "mlp.c_proj"), w.channels, w.hidden);
  }
  const bool gemma3 = s.kind.starts_with("gemma3"), olmo2 = s.kind == "olmo2";
  if (!olmo2) t.before_attention = at + "input_layernorm";
  if (gemma3) t.before_mlp = at + "pre_feedforward_layernorm";
  (gemma3 || olmo2 ? t.after_attention : t.before_mlp) = at + "post_attention_layernorm";
  if (gemma3 || olmo2) t.after_mlp = at + "post_feedforward_layernorm";
  if (gemma3 || olmo2 || s.kind == "qwen3") {
    t.q_norm = at + "self_attn.q_norm";
    t.k_norm = at + "self_attn.k_norm";
    t.norm_all_heads = olmo2;
  }
  return t;
}

// The outputs of one matrix, head by head: q, k and v of the head.
LayerTensors gpt_neox_layer(const TransformerShape& s, const std::string& at) {
  const Widths w = widths_of(s);
  LayerTensors t;
  const Index d = s.head_channels, all = 3 * w.q;
  Index kind = 0;
  for (Linear* linear : {&t.q, &t.k, &t.v}) {
    linear->inputs = w.channels;
    linear->outputs = w.q;
    for (Index h = 0; h < s.query_heads; ++h)
      linear->parts.push_back({at + "attention.query_key_value", all, {(3 * h + kind) * d, (3 * h + kind + 1) * d}});
    ++kind;
  }
  t.out = whole(at + "attention.dense", w.channels, w.q);
  t.up = whole(at + "mlp.dense_h_to_4h", w.hidden, w.channels);
  t.down = whole(at + "mlp.dense_4h_to_h", w.channels, w.hidden);
  t.before_attention = at + "input_layernorm";
  t.before_mlp = at + "post_attention_layernorm";
  return t;
}

LayerTensors gpt2_layer(const TransformerShape& s, const std::string& at) {
  const Widths w = widths_of(s);
  LayerTensors t;
  split_attention(t, at + "attn.c_attn", w);
  t.out = whole(at + "attn.c_proj", w.channels, w.q);
  t.up = whole(at + "mlp.c_fc", w.hidden, w.channels);
  t.down = whole(at + "mlp.c_proj", w.channels, w.hidden);
  for (Linear* linear : {&t.q, &t.k, &t.v, &t.out, &t.up, &t.down}) linear->transposed = true;
  t.before_attention = at + "ln_1";
  t.before_mlp = at + "ln_2";
  return t;
}

// The activation is of the first half of Wi, which the second half weighs.
LayerTensors modernbert_layer(const TransformerShape& s, const std::string& at) {
  const Widths w = widths_of(s);
  LayerTensors t;
  split_attention(t, at + "attn.Wqkv", w);
  t.out = whole(at + "attn.Wo", w.channels, w.q);
  t.gate = part_of(at + "mlp.Wi", 2 * w.hidden, {0, w.hidden}, w.channels);
  t.up = part_of(at + "mlp.Wi", 2 * w.hidden, {w.hidden, 2 * w.hidden}, w.channels);
  t.down = whole(at + "mlp.Wo", w.channels, w.hidden);
  if (!at.ends_with("layers.0.")) t.before_attention = at + "attn_norm";  // the first layer has none
  t.before_mlp = at + "mlp_norm";
  return t;
}

// How the tensors of a kind are called, behind a prefix that depends on what was saved.
struct Names {
  std::string_view kind;  // empty: all others
  std::vector<std::string> prefixes;
  std::string embedding, positions, embedding_norm, layers, final_norm, read_out;
  LayerTensors (*layer)(const TransformerShape&, const std::string&);
};

const Names& names_of(std::string_view kind) {
  static const std::array<Names, 4> table{
      {{"gpt_neox", {"gpt_neox.", ""}, "embed_in", "", "", "layers.", "final_layer_norm", "embed_out", gpt_neox_layer},
       {"gpt2", {"transformer.", ""}, "wte", "wpe", "", "h.", "ln_f", "lm_head", gpt2_layer},
       {"modernbert",
        {"model.", ""},
        "embeddings.tok_embeddings",
        "",
        "embeddings.norm",
        "layers.",
        "final_norm",
        "",
        modernbert_layer},
       {"",
        {"model.", "", "model.language_model.", "language_model.model."},
        "embed_tokens",
        "",
        "",
        "layers.",
        "norm",
        "lm_head",
        llama_layer}}};
  const auto found = std::ranges::find(table, kind, &Names::kind);
  return found == table.end() ? table.back() : *found;
}

}  // namespace

ModelTensors find_tensors(const TransformerShape& shape, const Checkpoint& checkpoint) {
  const Names& names = names_of(shape.kind);
  const auto prefix = std::ranges::find_if(
      names.prefixes, [&](const std::string& p) { return checkpoint.has(p + names.embedding + ".weight"); });
  require<Failure::file>(prefix != names.prefixes.end(), checkpoint.folder(), " must hold the tensor ",
                         names.prefixes.front(), names.embedding, ".weight, as checkpoints of ", shape.kind, " do");
  const auto full = [&](const std::string& name) { return name.empty() ? name : *prefix + name; };
  ModelTensors t{
      full(names.embedding), full(names.positions), full(names.embedding_norm), full(names.final_norm), {}, {}};
  // Read-outs lie outside what the prefix is for; without one of its own the embedding is read backwards.
  if (!names.read_out.empty()) {
    if (shape.tied) t.read_out = t.embedding;
    for (const std::string& outer : {std::string(), std::string("language_model.")})
      if (checkpoint.has(outer + names.read_out + ".weight")) t.read_out = outer + names.read_out;
  }
  for (Index n = 0; n < shape.layers; ++n) t.layer.push_back(names.layer(shape, full(sentence(names.layers, n, "."))));
  return t;
}

}  // namespace annulus
