#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "annulus/geometry/range.hpp"
#include "annulus/memory/rows.hpp"

namespace annulus {

/// Rotary position embedding of a kind of layer (Su et al., arXiv:2104.09864): channels c and c + n/2 of the first n of a head
/// are turned by the angle position x frequency[c], n = 2 frequencies, and made `amplitude` times as long. No frequencies: none.
struct Rotary {
  std::vector<double> frequencies;
  double amplitude = 1;
};

/// What a checkpoint's config.json says of a transformer.
struct TransformerShape {
  std::string kind;  ///< "llama", "qwen3", ...
  Index layers = 0, channels = 0, vocabulary = 0;
  Index query_heads = 0, kv_heads = 0, head_channels = 0;
  Index hidden = 0;                ///< channels inside a layer's MLP
  Index positions = 0;             ///< it was trained for so many
  bool causal = true;              ///< no token sees later ones, and the next one is predicted
  bool learned_positions = false;  ///< a vector for each of `positions`, and no further ones
  double softmax_scale = 1;
  struct Layer {
    Index window_before = -1, window_after = -1;  ///< keys a query sees before and behind it; -1: all
    std::size_t rotary = 0;                       ///< of TransformerShape::rotaries
  };
  std::vector<Layer> layer;
  std::vector<Rotary> rotaries;

  enum class Norm : std::uint8_t { rms, mean_and_variance };
  Norm norm = Norm::rms;
  double norm_epsilon = 1e-5;
  bool norm_adds_one = false;  ///< the stored weight is what is added to 1
  enum class Activation : std::uint8_t { silu, gelu, gelu_tanh, relu };
  Activation activation = Activation::silu;
  bool parallel = false;  ///< attention and MLP read the same residual stream
  double embedding_scale = 1;
  double logit_cap = 0;        ///< c: logits are c tanh(logit / c); 0: as they are
  bool attention_bias = true;  ///< q, k, v and out may have biases; false: there are none
  bool tied = true;            ///< without a matrix of its own the read-out is the embedding
};

/// Reads FOLDER/config.json as Hugging Face's transformers writes it. tokens: of the longest document, which some rotary
/// embeddings depend on. Throws Error (file) that names the file, the key, the value and what is supported.
TransformerShape read_transformer_shape(const std::string& folder, Index tokens);

/// The kinds that read_transformer_shape knows.
std::span<const std::string_view> transformer_kinds();

/// What a model thinks comes next, one number per row.
struct NextTokens {
  std::vector<Index> id;  ///< the most likely one
  std::vector<float> probability, bits,
      entropy;  ///< its probability; cost of the token that does follow, in bits (NaN: none does); entropy, in bits
};

/// Everything of a trained transformer but its attention: what is done for each token by itself, one layer after another.
///
///   residual = embed(ids)
///   for each layer:   project: norm, q k v with rotary positions    -> attention, which is the engine's ->
///                     absorb:  residual += its output, += MLP
///   read_out: the next token
///
/// Weights are read from the mapped files when they are needed and dropped behind: memory is that of the largest few matrices, not of
/// the model. The residual stream is f32; products are of f32 numbers, or of bf16 numbers with sums in f32. One rank uses one object, from one thread.
class Transformer {
 public:
  /// type: of products: bf16, or f32 for anything else. Throws Error (file) when a tensor is missing or of another shape.
  Transformer(const std::string& folder, const TransformerShape& shape, DType type, int threads);
  ~Transformer();
  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  /// The files it reads: config.json and the tensors'.
  std::vector<std::string> files() const;
  /// Bytes that a rank with so many rows needs for the present weights and numbers between them, and all weights have in their files.
  Index working_bytes(Index rows) const;
  Index weight_bytes() const;
  /// Multiplications and additions, counted as two, for one token: of a layer, and of read_out.
  double layer_operations() const;
  double read_out_operations() const;
  bool predicts() const;

  /// Called with the operations done since the last call, now and then, by the thread that called; if it throws, so does the call.
  using Worked = std::function<void(double)>;
  void tell(Worked worked);

  /// residual [rows, 1, channels] f32. positions count from 0. Throws Error (usage) for an id or a position the model has not.
  void embed(std::span<const std::uint32_t> ids, std::span<const Index> positions, const Rows& residual) const;
  /// q [rows, query_heads, head_channels], k and v [rows, kv_heads, head_channels], rounded to their type; those that are
  /// absent are not wanted.
  void project(Index layer, const Rows& residual, std::span<const Index> positions, const Rows& q, const Rows& k,
               const Rows& v);
  /// attention [rows, query_heads, head_channels] f32. mlp: what the MLP added, [rows, 1, channels] f32, or absent.
  void absorb(Index layer, const Rows& attention, const Rows& residual, const Rows& mlp);
  /// next: the id that follows each row, -1: none. The residual stream is normalised in place.
  NextTokens read_out(const Rows& residual, std::span<const Index> next);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace annulus
