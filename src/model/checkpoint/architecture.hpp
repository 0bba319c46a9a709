#pragma once
#include <string>
#include <vector>

#include "annulus/model/checkpoint.hpp"
#include "annulus/model/transformer.hpp"

namespace annulus {

/// A tensor of a checkpoint, or some outputs of it. Weights are [outputs, inputs], transposed ones [inputs, outputs]; a name is
/// without its ending ".weight" or ".bias".
struct Part {
  std::string name;
  Index outputs = 0;  ///< of the whole tensor
  Range taken = {};   ///< of its outputs
};

/// One matrix of a layer: the outputs of its parts one after another, with a bias where the checkpoint has one. No parts: there is
/// none.
struct Linear {
  std::vector<Part> parts;
  Index inputs = 0, outputs = 0;
  bool transposed = false;
};

/// Where a layer's numbers are. Norms: names without endings, empty where there is none.
struct LayerTensors {
  Linear q, k, v, out;
  Linear gate, up, down;  ///< no gate: the activation is of `up`
  std::string before_attention, after_attention, before_mlp, after_mlp;
  std::string q_norm, k_norm;  ///< of each head, or of all of them together
  bool norm_all_heads = false;
};

struct ModelTensors {
  std::string embedding, positions, embedding_norm, final_norm;
  std::string read_out;  ///< empty: the model predicts nothing
  std::vector<LayerTensors> layer;
};

/// Where a checkpoint of this shape has what. Throws Error (file) when it has no embedding under any name known.
ModelTensors find_tensors(const TransformerShape& shape, const Checkpoint& checkpoint);

}  // namespace annulus
