#pragma once
#include <string>
#include <vector>

#include "annulus/store/input_file.hpp"
#include "app/config.hpp"
#include "app/verdict.hpp"

namespace annulus::app {

/// What of a result of `run` with a trained transformer is wrong: the attention of every recorded layer, from its q, k and v where
/// they are kept, else from the residual stream before it; what a layer makes of that stream; tokens and predictions.
class ModelEvidence {
 public:
  virtual ~ModelEvidence() = default;
  virtual Index tokens() const = 0;
  /// Layers whose attention can be recomputed.
  virtual std::vector<Index> layers() const = 0;
  virtual Subject subject(Index layer) const = 0;
  /// Lines about everything else: of one layer, when its attention has been recomputed, and of the whole.
  virtual Verdict judge_layer(Index layer, const Recomputed& attention) const = 0;
  virtual Verdict judge_rest(const std::vector<Index>& rows) const = 0;
  /// Why some of it is not looked at; empty: all is.
  virtual std::string note() const = 0;
};
/// The result is borrowed. inputs: where the texts are now. Only in builds that read checkpoints. Throws Error (file) when texts or
/// model are not those that the result was made of.
std::unique_ptr<ModelEvidence> open_model_evidence(const InputFile& result, const std::string& folder,
                                                   const std::vector<std::string>& inputs);

}  // namespace annulus::app
