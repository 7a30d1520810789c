// `orrery eval`: scores of a checkpoint or a Hugging Face folder on a config's held-out
// items.
#pragma once

#include <optional>
#include <string>

#include "comm/communicator.h"
#include "proto/config.pb.h"

namespace orrery::experiments {

struct EvaluationOptions {
  std::string
      checkpoint;     ///< checkpoint folder, run folder, Hugging Face folder; empty: model.path
  bool json = false;  ///< print one JSON object
  std::optional<std::string>
      out;  ///< a JSONL file of the samples, written whole or not at all (docs/formats.md)
  std::string config_file;  ///< which `out` must not replace
};

/// Collective over `world`; rank 0 prints and writes. Returns the exit code. Usage
/// Error before anything is generated when `out` cannot be written or is a file that
/// the config reads.
int run_evaluation(const proto::Config& config, const EvaluationOptions& options,
                   comm::Communicator& world, LocalRank local);

}  // namespace orrery::experiments
