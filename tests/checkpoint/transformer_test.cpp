#include "annulus/model/transformer.hpp"

#include <gmock/gmock.h>

#include <cmath>
#include <numeric>
#include <random>

#include "annulus/memory/device.hpp"
#include "checkpoint/writer.hpp"

namespace annulus {
namespace {

using testing::Folder;
using testing::Written;

constexpr Index layers = 2, channels = 24, heads = 4, kv_heads = 2, width = 8, hidden = 40, vocabulary = 50;

std::string config_text(const std::string& kind) {
  return sentence(
      R"({"model_type":")", kind,
      R"(","num_hidden_layers":2,"n_layer":2,"hidden_size":24,"n_embd":24,"num_attention_heads":4,"n_head":4,)",
      R"("num_key_value_heads":2,"head_dim":8,"intermediate_size":40,"vocab_size":50,"n_positions":64,)",
      R"("max_position_embeddings":64,"hidden_act":"silu","rope_theta":10000.0,"rms_norm_eps":1e-6,)",
      R"("sliding_window":5,"rope_scaling":{"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":16}})");
}

// A llama of random numbers; of layer `silent` nothing reaches the residual stream.
void write_llama(const Folder& folder, Index silent = -1) {
  std::mt19937_64 source(7);
  std::normal_distribution<double> normal(0, 0.2);
  std::vector<Written> tensors;
  const auto add = [&](const std::string& name, std::vector<Index> dims, double factor = 1) {
    Index count = 1;
    for (const Index n : dims) count *= n;
    std::vector<double> numbers(static_cast<std::size_t>(count));
    for (double& x : numbers) x = factor * normal(source) + (dims.size() == 1 ? 1 : 0);
    tensors.push_back(testing::written(name + ".weight", DType::f32, std::move(dims), numbers));
  };
  add("model.embed_tokens", {vocabulary, channels});
  add("model.norm", {channels});
  add("lm_head", {vocabulary, channels});
  for (Index n = 0; n < layers; ++n) {
    const std::string at = sentence("model.layers.", n, ".");
    const double loud = n == silent ? 0 : 1;
    add(at + "input_layernorm", {channels});
    add(at + "post_attention_layernorm", {channels});
    add(at + "self_attn.q_proj", {heads * width, channels});
    add(at + "self_attn.k_proj", {kv_heads * width, channels});
    add(at + "self_attn.v_proj", {kv_heads * width, channels});
    add(at + "self_attn.o_proj", {channels, heads * width}, loud);
    add(at + "mlp.gate_proj", {hidden, channels});
    add(at + "mlp.up_proj", {hidden, channels});
    add(at + "mlp.down_proj", {channels, hidden}, loud);
  }
  folder.write("config.json", config_text("llama"));
  folder.write("model.safetensors", testing::safetensors(tensors));
}

// The residual stream behind all layers where attention gives each token its own value, and what is read out.
struct Outcome {
  std::vector<float> stream, bits;
};
Outcome outcome_of(const Folder& folder, std::span<const std::uint32_t> ids, Index first, DType type = DType::f32) {
  static CpuDevice cpu;
  const auto rows = static_cast<Index>(ids.size());
  Transformer transformer(folder.path(), read_transformer_shape(folder.path(), 40), type, 2);
  std::vector<Index> positions(ids.size()), next(ids.size());
  std::iota(positions.begin(), positions.end(), first);
  for (std::size_t n = 0; n < ids.size(); ++n) next[n] = (ids[n] + 1) % vocabulary;
  const Array stream(cpu, DType::f32, rows, 1, channels), q(cpu, type, rows, heads, width),
      k(cpu, type, rows, kv_heads, width), v(cpu, type, rows, kv_heads, width),
      attention = Array::zeros(cpu, DType::f32, rows, heads, width);
  transformer.embed(ids, positions, stream);
  for (Index layer = 0; layer < layers; ++layer) {
    transformer.project(layer, stream, positions, q, k, v);
    for (Index h = 0; h < heads; ++h)
      convert(v.rows().take_heads(h / 2, h / 2 + 1), attention.rows().take_heads(h, h + 1));
    transformer.absorb(layer, attention, stream, {});
  }
  Outcome out{{stream.elements<float>().begin(), stream.elements<float>().end()}, {}};
  out.bits = transformer.read_out(stream, next).bits;
  return out;
}

std::vector<std::uint32_t> some_ids(std::size_t count) {
  std::vector<std::uint32_t> ids(count);
  for (std::size_t n = 0; n < count; ++n) ids[n] = static_cast<std::uint32_t>(n * 7 % vocabulary);
  return ids;
}

TEST(Transformer, TreatsEachTokenByItself) {
  const Folder folder;
  write_llama(folder);
  const auto ids = some_ids(700);  // more than one portion of rows
  const Outcome together = outcome_of(folder, ids, 0);
  for (const std::size_t n : {0U, 1U, 511U, 512U, 699U}) {
    const Outcome alone = outcome_of(folder, {&ids[n], 1}, static_cast<Index>(n));
    for (std::size_t c = 0; c < channels; ++c)
      EXPECT_NEAR(alone.stream[c], together.stream[n * channels + c], 2e-5) << n << " " << c;
    EXPECT_NEAR(alone.bits[0], together.bits[n], 2e-5);
  }
}

TEST(Transformer, OfALayerThatAddsNothingTheStreamKnowsNothing) {
  const Folder loud, silent;
  write_llama(loud);
  write_llama(silent, 1);
  const auto ids = some_ids(9);
  CpuDevice cpu;
  const Array before(cpu, DType::f32, 9, 1, channels), attention = Array::zeros(cpu, DType::f32, 9, heads, width);
  for (const auto& [folder, changes] : {std::pair{&silent, false}, std::pair{&loud, true}}) {
    Transformer transformer(folder->path(), read_transformer_shape(folder->path(), 9), DType::f32, 1);
    std::vector<Index> positions(9);
    transformer.embed(ids, positions, before);
    const std::vector<float> kept(before.elements<float>().begin(), before.elements<float>().end());
    transformer.absorb(1, attention, before, {});
    EXPECT_NE(std::ranges::equal(kept, before.elements<float>()), changes);
  }
}

TEST(Transformer, InBf16IsNear) {
  const Folder folder;
  write_llama(folder);
  const auto ids = some_ids(33);
  const Outcome exact = outcome_of(folder, ids, 0), near = outcome_of(folder, ids, 0, DType::bf16);
  double largest = 0;
  for (const float x : exact.stream) largest = std::max<double>(largest, std::abs(x));
  for (std::size_t i = 0; i < exact.stream.size(); ++i)
    EXPECT_NEAR(near.stream[i], exact.stream[i], 16 * 0x1p-9 * largest);
}

TEST(Transformer, SaysWhichTensorIsMissingOrOfAnotherShape) {
  const Folder folder;
  write_llama(folder);
  folder.write("config.json", config_text("qwen2").replace(config_text("qwen2").find("\"intermediate_size\":40"), 22,
                                                           "\"intermediate_size\":41"));
  const TransformerShape shape = read_transformer_shape(folder.path(), 1);
  try {
    Transformer(folder.path(), shape, DType::f32, 1);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.failure(), Failure::file);
    EXPECT_THAT(e.what(), ::testing::AllOf(::testing::HasSubstr("mlp.gate_proj"), ::testing::HasSubstr("[41, 24]")));
  }
}

TEST(TransformerShape, OfDamagedConfigurationsIsReadOrRefused) {
  std::mt19937_64 source(5);
  const Folder folder;
  Index read = 0, refused = 0;
  for (const std::string_view kind : transformer_kinds())
    for (int round = 0; round < 60; ++round) {
      std::string text = config_text(std::string(kind));
      for (int change = 0; round > 0 && change < 1 + round % 3; ++change) {
        static constexpr std::string_view letters = "\"{}[],:-.09eEaxnul \xff";
        text[source() % text.size()] = letters[source() % letters.size()];
      }
      folder.write("config.json", text);
      try {
        const TransformerShape shape = read_transformer_shape(folder.path(), 100);
        EXPECT_EQ(static_cast<Index>(shape.layer.size()), shape.layers);
        for (const auto& layer : shape.layer) ASSERT_LT(layer.rotary, shape.rotaries.size());
        ++read;
      } catch (const Error& e) {
        EXPECT_EQ(e.failure(), Failure::file) << e.what();
        ++refused;
      }
    }
  EXPECT_GT(read, 14);  // each as it is, at least
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace annulus
