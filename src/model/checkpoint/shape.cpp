#include <algorithm>
#include <array>
#include <optional>

#include "annulus/model/transformer.hpp"
#include "model/checkpoint/config.hpp"
#include "model/checkpoint/rotary.hpp"

namespace annulus {
namespace {

using Norm = TransformerShape::Norm;
using Activation = TransformerShape::Activation;

constexpr Index most_layers = 1024;
constexpr Index most_head_channels = 512;  // that kernels take

// What one kind of model has that others do not. Everything else is said by the keys that all have in common.
struct Kind {
  std::string_view name;
  void (*adjust)(const Config&, TransformerShape&);
  const char*
      defaults;  ///< of keys that config.json leaves out where they are as the kind's class has them (transformers 5.24)
};

Activation activation_of(const Config& c, std::string_view key, const std::string& fallback) {
  const std::string name = c.text(key, fallback);
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") return Activation::gelu_tanh;
  if (name == "relu") return Activation::relu;
  c.refuse(key, "must be silu, gelu, gelu_new, gelu_pytorch_tanh or relu");
}

// Rotary positions of one kind of layer. names: sections of rope_parameters that may hold it; base: a key of older files.
Rotary rotary_of(const Config& c, const TransformerShape& s, const RotarySubject& subject, std::string_view section,
                 std::string_view base_key, bool scaled = true) {
  RotarySubject own = subject;
  own.base = c.number(base_key, subject.base);
  double share = c.number("partial_rotary_factor", c.number("rotary_pct", 1));
  std::optional<Config> rules = c.section("rope_parameters");
  if (rules && rules->is_object(section)) rules = rules->inside(section);
  else if (scaled && c.has("rope_scaling")) rules = c.section("rope_scaling");
  if (rules) share = rules->number("partial_rotary_factor", share);
  if (!(share > 0 && share <= 1)) c.refuse("partial_rotary_factor", "must be above 0 and at most 1");
  if (share != 1 && s.kind != "phi3" && s.kind != "gpt_neox")
    c.refuse("partial_rotary_factor", "must be 1 for ", s.kind, ", whose heads are turned as a whole");
  own.channels = static_cast<Index>(static_cast<double>(s.head_channels) * share);
  if (own.channels % 2 != 0)
    c.refuse("head_dim", "times the share that is turned must be even: it is ", own.channels, ", and head_dim itself");
  return make_rotary(c, rules ? &*rules : nullptr, own);
}

// Windows of the layers that layer_types calls sliding; where there is no such list, of those that `slides` says.
void set_windows(const Config& c, TransformerShape& s, Index before, Index after,
                 bool (*slides)(const Config&, Index)) {
  const auto kinds = c.has("layer_types") ? c.texts("layer_types") : std::vector<std::string>{};
  if (!kinds.empty() && static_cast<Index>(kinds.size()) != s.layers)
    c.refuse("layer_types", "must have one entry for each of the ", s.layers, " layers");
  for (std::size_t n = 0; n < s.layer.size(); ++n) {
    if (!kinds.empty() && kinds[n] != "sliding_attention" && kinds[n] != "full_attention")
      c.refuse("layer_types", "must be of full_attention and sliding_attention");
    if (!kinds.empty() ? kinds[n] != "sliding_attention" : !slides(c, static_cast<Index>(n))) continue;
    s.layer[n].window_before = before;
    s.layer[n].window_after = after;
  }
}

// A query sees itself and the window - 1 keys before it.
void slide(const Config& c, TransformerShape& s, bool (*slides)(const Config&, Index)) {
  if (c.has("sliding_window")) set_windows(c, s, c.count("sliding_window") - 1, 0, slides);
}

void llama(const Config&, TransformerShape&) {}

void mistral(const Config& c, TransformerShape& s) {
  slide(c, s, [](const Config&, Index) { return true; });
}

void phi3(const Config& c, TransformerShape& s) {
  if (c.has("sliding_window")) s.layer.assign(s.layer.size(), {c.count("sliding_window") - 1, 0, 0});
}

void qwen(const Config& c, TransformerShape& s) {
  if (!c.flag("use_sliding_window", false)) return;
  slide(c, s, [](const Config& own, Index layer) {
    return static_cast<double>(layer) >= own.number("max_window_layers", 28);
  });
}

void smollm3(const Config& c, TransformerShape& s) {
  std::vector<double> turned;
  if (c.has("no_rope_layers")) turned = c.numbers("no_rope_layers");
  const Index every = c.count("no_rope_layer_interval", 4);
  s.rotaries.emplace_back();
  for (std::size_t n = 0; n < s.layer.size(); ++n) {
    const bool turns = n < turned.size() ? turned[n] != 0 : (static_cast<Index>(n) + 1) % every != 0;
    if (!turns) s.layer[n].rotary = 1;
  }
  if (!c.flag("use_sliding_window", false) || !c.has("sliding_window")) return;
  if (c.has("layer_types")) return slide(c, s, nullptr);
  for (auto& layer : s.layer)
    if (layer.rotary == 1) layer.window_before = c.count("sliding_window") - 1, layer.window_after = 0;
}

void gemma(const Config& c, TransformerShape& s) {
  s.norm_adds_one = true;
  s.embedding_scale = std::sqrt(static_cast<double>(s.channels));
  s.activation = activation_of(c, c.has("hidden_activation") ? "hidden_activation" : "hidden_act", "gelu_pytorch_tanh");
  if (s.activation == Activation::gelu)
    s.activation = Activation::gelu_tanh;  // as it was trained, whatever the file says
}

// Kinds whose layers have rotary positions of two sorts.
void require_sections(const Config& c) {
  const auto rules = c.section("rope_parameters");
  if (rules && !rules->is_object("full_attention") && !rules->is_object("sliding_attention"))
    c.refuse("rope_parameters", "must have the sections full_attention and sliding_attention");
}

void gemma3(const Config& c, TransformerShape& s) {
  require_sections(c);
  gemma(c, s);
  s.softmax_scale = 1 / std::sqrt(c.number("query_pre_attn_scalar", 256));
  s.logit_cap = c.number("final_logit_softcapping", 0);
  slide(c, s, [](const Config& own, Index layer) { return (layer + 1) % own.count("sliding_window_pattern", 6) != 0; });
  if (c.flag("use_bidirectional_attention", false)) c.refuse("use_bidirectional_attention", "must be false");
  s.rotaries.front() =
      rotary_of(c, s, {.base = 1e6, .positions = s.positions, .tokens = 0}, "full_attention", "rope_theta");
  s.rotaries.push_back(rotary_of(c, s, {.base = 1e4, .positions = s.positions, .tokens = 0}, "sliding_attention",
                                 "rope_local_base_freq", false));
  for (auto& layer : s.layer) layer.rotary = layer.window_before >= 0 ? 1 : 0;
}

void starcoder2(const Config& c, TransformerShape& s) {
  s.norm = Norm::mean_and_variance;
  s.norm_epsilon = c.number("norm_epsilon", 1e-5);
  slide(c, s, [](const Config&, Index) { return true; });
}

void gpt_neox(const Config& c, TransformerShape& s) {
  s.norm = Norm::mean_and_variance;
  s.norm_epsilon = c.number("layer_norm_eps", 1e-5);
  s.parallel = c.flag("use_parallel_residual", true);
}

void gpt2(const Config& c, TransformerShape& s) {
  s.norm = Norm::mean_and_variance;
  s.norm_epsilon = c.number("layer_norm_epsilon", 1e-5);
  s.learned_positions = true;
  s.rotaries = {Rotary{}};
  s.activation = activation_of(c, "activation_function", "gelu_new");
  if (!c.flag("scale_attn_weights", true)) s.softmax_scale = 1;
  if (c.flag("scale_attn_by_inverse_layer_idx", false)) c.refuse("scale_attn_by_inverse_layer_idx", "must be false");
}

void modernbert(const Config& c, TransformerShape& s) {
  require_sections(c);
  if (c.has("rope_scaling")) c.refuse("rope_scaling", "must be absent for modernbert");
  if (c.has("sliding_window") && !c.has("local_attention"))
    c.refuse("local_attention", "must be there where sliding_window is");
  s.norm = Norm::mean_and_variance;
  s.norm_epsilon = c.number("norm_eps", 1e-5);
  s.causal = false;
  s.activation = activation_of(c, "hidden_activation", "gelu");
  const Index half = c.count("local_attention", 128) / 2;
  set_windows(c, s, half, half,
              [](const Config& own, Index layer) { return layer % own.count("global_attn_every_n_layers", 3) != 0; });
  const RotarySubject subject{.base = 160000, .positions = s.positions, .tokens = 0};
  s.rotaries.front() = rotary_of(c, s, subject, "full_attention", "global_rope_theta");
  s.rotaries.push_back(rotary_of(c, s, {.base = 10000, .positions = s.positions, .tokens = 0}, "sliding_attention",
                                 "local_rope_theta", false));
  for (auto& layer : s.layer) layer.rotary = layer.window_before >= 0 ? 1 : 0;
}

constexpr const char* llama_defaults = R"({"tie_word_embeddings":false,"max_position_embeddings":2048})";
constexpr const char* gemma3_defaults =
    R"({"vocab_size":262208,"num_attention_heads":8,"num_key_value_heads":4,"head_dim":256,"sliding_window":4096,
        "max_position_embeddings":131072})";
constexpr std::array<Kind, 14> kinds{
    {{"gemma", gemma, R"({"head_dim":256,"max_position_embeddings":8192})"},
     {"gemma3", gemma3, gemma3_defaults},
     {"gemma3_text", gemma3, gemma3_defaults},
     {"gpt2", gpt2, R"({"n_positions":1024})"},
     {"gpt_neox", gpt_neox, R"({"rotary_pct":0.25,"hidden_act":"gelu","tie_word_embeddings":false})"},
     {"llama", llama, llama_defaults},
     {"mistral", mistral, R"({"sliding_window":4096,"tie_word_embeddings":false,"max_position_embeddings":131072})"},
     {"modernbert", modernbert, R"({"max_position_embeddings":8192})"},
     {"olmo2", llama, R"({"rms_norm_eps":1e-5,"tie_word_embeddings":false})"},
     {"phi3", phi3, R"({"rms_norm_eps":1e-5,"tie_word_embeddings":false,"max_position_embeddings":4096,
                        "original_max_position_embeddings":4096})"},
     {"qwen2", qwen, R"({"sliding_window":4096,"tie_word_embeddings":false,"max_position_embeddings":32768})"},
     {"qwen3", qwen,
      R"({"sliding_window":4096,"head_dim":128,"tie_word_embeddings":false,"max_position_embeddings":32768})"},
     {"smollm3", smollm3, R"({"rope_theta":2000000.0,"max_position_embeddings":32768})"},
     {"starcoder2", starcoder2, R"({"hidden_act":"gelu_pytorch_tanh","max_position_embeddings":4096})"}}};

// Keys that change what is computed in a way that is not computed here.
void refuse_what_is_not_computed(const Config& c) {
  for (const char* key :
       {"attn_logit_softcapping", "quantization_config", "clip_qkv", "num_experts", "num_local_experts"})
    if (c.has(key)) c.refuse(key, "must be absent: models that have it are not supported");
}

}  // namespace

std::span<const std::string_view> transformer_kinds() {
  static const auto names = [] {
    std::array<std::string_view, kinds.size()> all;
    std::ranges::transform(kinds, all.begin(), &Kind::name);
    return all;
  }();
  return names;
}

TransformerShape read_transformer_shape(const std::string& folder, Index tokens) {
  const Config file(folder);
  TransformerShape s;
  s.kind = file.text("model_type");
  const auto kind = std::ranges::find(kinds, s.kind, &Kind::name);
  if (kind == kinds.end()) {
    std::string known;
    for (const std::string_view name : transformer_kinds()) known += sentence(known.empty() ? "" : ", ", name);
    file.refuse("model_type", "must be one of ", known);
  }
  const Config c = (file.is_object("text_config") ? file.inside("text_config") : file).with_defaults(kind->defaults);
  refuse_what_is_not_computed(file);
  refuse_what_is_not_computed(c);
  const bool old_names = s.kind == "gpt2";
  s.layers = c.count(old_names ? "n_layer" : "num_hidden_layers");
  if (s.layers > most_layers) c.refuse("num_hidden_layers", "must be at most ", most_layers);
  s.channels = c.count(old_names ? "n_embd" : "hidden_size");
  s.query_heads = c.count(old_names ? "n_head" : "num_attention_heads");
  s.kv_heads = c.count("num_key_value_heads", s.query_heads);
  s.head_channels = old_names ? s.channels / s.query_heads : c.count("head_dim", s.channels / s.query_heads);
  if (s.head_channels < 1 || s.head_channels > most_head_channels)
    c.refuse("head_dim", "must be 1 to ", most_head_channels, ", and without it hidden_size / num_attention_heads, ",
             s.head_channels);
  s.hidden = old_names ? c.count("n_inner", 4 * s.channels) : c.count("intermediate_size");
  s.vocabulary = c.count("vocab_size");
  s.positions = c.count(old_names ? "n_positions" : "max_position_embeddings", 2048);
  if (s.query_heads % s.kv_heads != 0)
    c.refuse("num_key_value_heads", "must divide the ", s.query_heads, " query heads");
  s.softmax_scale = 1 / std::sqrt(static_cast<double>(s.head_channels));
  s.norm_epsilon = c.number("rms_norm_eps", 1e-6);
  if (!old_names && c.has("hidden_act")) s.activation = activation_of(c, "hidden_act", "silu");
  s.tied = c.flag("tie_word_embeddings", true);
  s.attention_bias = c.flag("attention_bias", true);
  s.layer.resize(static_cast<std::size_t>(s.layers));
  if (!old_names)
    s.rotaries = {rotary_of(c, s, {.base = 10000, .positions = s.positions, .tokens = tokens}, "full_attention",
                            c.has("rotary_emb_base") ? "rotary_emb_base" : "rope_theta")};
  kind->adjust(c, s);
  return s;
}

}  // namespace annulus
