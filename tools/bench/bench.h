// `orrery bench`: speed and memory of rollout, training and a whole GRPO step on random
// tokens.
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
  std::filesystem::path
      model;  ///< as ModelSource's; a folder with config.json alone: random weights
  DType compute_dtype = DType::kF32;
  Context ctx;
  int64_t batch = 8;      ///< sequences (rollout, train)
  int64_t seq_len = 256;  ///< train
  int64_t prompts = 8;    ///< step
  int64_t samples = 8;    ///< step: of each prompt; rollout: prompts shared by so many (1)
  int64_t prompt_len = 64;
  int64_t gen_len = 128;
  int64_t max_token_len = 4096;  ///< rows of one forward and backward
  int64_t gradient_shards = 8;
  int64_t repeats = 3;  ///< medians are over these, after one warm-up
  uint64_t seed = 1;
};

/// Named figures, in the order they are printed; text beside numbers where it explains.
/// Seconds are of the slowest rank, speeds and memory of all ranks together, the
/// breakdown of rank 0 and the mean of the repetitions.
struct BenchReport {
  std::string title, note;
  std::vector<std::pair<std::string, double>> figures;
  Breakdown breakdown;
};

// Each is collective: every rank of `comm` calls it with the same options, and gets a
// report.

/// Prefill and decode of `batch` sequences, prompt_len in, gen_len out, end-of-sequence
/// ignored. One rank.
BenchReport bench_rollout(const BenchOptions& options, comm::Communicator& comm);
/// Forward, backward and optimizer step over batch x seq_len tokens, every token
/// trained.
BenchReport bench_train(const BenchOptions& options, comm::Communicator& comm);
/// prompts x samples rollouts of prompt_len + gen_len and one GRPO update. Each rank
/// generates for its share of the prompts, all get all groups, then update together.
BenchReport bench_step(const BenchOptions& options, comm::Communicator& comm);

}  // namespace orrery::tools
