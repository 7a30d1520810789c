// `orrery bench` measures speed and memory of rollout, training and a whole GRPO step
// on random tokens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "comm/communicator.h"
#include "core/context.h"
#include "core/dtype.h"
#include "tools/bench/breakdown.h"

namespace orrery::tools {

struct BenchOptions {
  /// What ModelSource takes, or a folder with config.json alone, for random weights.
  std::filesystem::path model;
  DType compute_dtype = DType::kF32;
  Context ctx;
  int64_t batch = 8;      ///< rollout, train: sequences
  int64_t seq_len = 256;  ///< train: tokens of a sequence
  int64_t prompts = 8;    ///< step: prompts
  int64_t samples = 8;    ///< step and rollout (there 1 unless given): samples of each prompt
  int64_t prompt_len = 64;
  int64_t gen_len = 128;
  int64_t max_token_len = 4096;  ///< the most rows of one forward and backward
  int64_t gradient_shards = 8;
  int64_t repeats = 3;  ///< repetitions after one warm-up, of which medians are taken
  uint64_t seed = 1;
};

/// Named figures, in the order in which they are printed. Seconds are those of the
/// slowest rank; speeds and memory are summed over all ranks; the breakdown is rank 0's
/// mean over the repetitions. `note` explains them where that is needed.
struct BenchReport {
  std::string title, note;
  std::vector<std::pair<std::string, double>> figures;
  Breakdown breakdown;
};

// Each benchmark is collective: every rank of `comm` calls it with the same options,
// and gets a report.

/// Measures prefill and decode of `batch` sequences with prompt_len tokens in and
/// gen_len out; end-of-sequence is ignored. Takes one rank only.
BenchReport bench_rollout(const BenchOptions& options, comm::Communicator& comm);
/// Measures forward, backward and optimizer step over batch x seq_len tokens, all of
/// which are trained.
BenchReport bench_train(const BenchOptions& options, comm::Communicator& comm);
/// Measures prompts x samples rollouts of prompt_len + gen_len tokens and one GRPO
/// update. Each rank generates for its share of the prompts; then all ranks get all
/// groups, and update together.
BenchReport bench_step(const BenchOptions& options, comm::Communicator& comm);

}  // namespace orrery::tools
