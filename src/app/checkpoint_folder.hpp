#pragma once
#include <string>
#include <string_view>

namespace annulus::app {

/// Whether `run --model` names a trained model, and not one of those that need no training.
bool names_checkpoint(std::string_view model);

/// The folder of a trained model: as it is given, or, of a name such as Qwen/Qwen3-0.6B, where `hf download` keeps it (HF_HUB_CACHE, else
/// HF_HOME/hub, else ~/.cache/huggingface/hub). Throws Error (usage) when neither is there.
std::string checkpoint_folder(std::string_view model);

}  // namespace annulus::app
