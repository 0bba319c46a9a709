#pragma once
#include <string>
#include <vector>

#include "annulus/model/transformer.hpp"
#include "annulus/store/draft.hpp"
#include "annulus/store/row_writer.hpp"
#include "app/activations.hpp"
#include "app/job.hpp"
#include "app/model_subject.hpp"
#include "app/traces.hpp"

namespace annulus::app {

/// What `run` keeps of which layers.
struct Recording {
  Recording(const Settings& settings, Index layers);
  bool of(Index layer) const { return layers[static_cast<std::size_t>(layer)]; }
  bool traced(Index layer) const { return traces.any() && of(layer); }

  TraceChoice traces;
  Activations activations;
  std::vector<bool> layers;
};

/// The datasets of a result whose rows the ranks will write. jobs: one for each of the subject's masks.
void declare_model_result(Draft& draft, const ModelSubject& subject, const Recording& recording,
                          const std::vector<Job>& jobs, bool predicts);
/// Root attributes about texts and model, with hashes of all their files.
void describe_model(Draft& draft, const ModelSubject& subject, const std::vector<std::string>& files);
/// This rank's rows of /tokens.
void write_tokens(RowWriter& writer, const ModelSubject& subject, std::span<const Run> runs);
/// What documents and vocabulary are called.
void write_names(Draft& draft, const ModelSubject& subject);

}  // namespace annulus::app
