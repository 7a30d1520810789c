// Parts that the benchmarks share.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "learners/learner.h"
#include "models/transformer.h"
#include "rollout/engine.h"
#include "tools/bench/bench.h"

namespace orrery::tools::bench {

double median(std::vector<double> values);

/// Collective. Returns the largest of the ranks' values.
double slowest(comm::Communicator& comm, double seconds);

struct Model {
  std::unique_ptr<models::Transformer> transformer;
  std::string note;
};
/// Loads and packs a model for sequences of `positions` tokens. `length_options` names
/// the options that say how many, for messages.
Model load(const BenchOptions& options, int64_t positions, const char* length_options);

std::vector<int32_t> random_prompt(const BenchOptions& options, int64_t vocab, uint64_t index,
                                   int64_t length);

/// The length options of a benchmark that generates.
inline constexpr const char* kLengths = "--prompt-len or --gen-len";
rollout::EngineConfig engine_config(const BenchOptions& options, const models::ModelConfig& model,
                                    int64_t sequences);

/// Generates for prompts [begin, end). Results are ordered by prompt and sample.
std::vector<rollout::GenerateResult> rollout(const BenchOptions& options, rollout::Engine& engine,
                                             int64_t vocab, int64_t begin, int64_t end,
                                             int64_t new_tokens, uint64_t step);

/// The FLOPs of generating: every token of a sequence counts once, and the head counts
/// for generated tokens.
double rollout_flops(const BenchOptions& options, const models::ModelConfig& config,
                     int64_t prompts);

/// Throws a usage Error when the ranks cannot share the gradient shards evenly.
learners::LearnerConfig learner_config(const BenchOptions& options, const comm::Communicator& comm);

/// Runs one update at the default learning rate, clipped at 1, as a phase of its own.
learners::UpdateResult update(const Context& ctx, learners::Learner& learner,
                              std::span<learners::Tree> trees,
                              const learners::Objective& objective);

/// Seconds of the parts of the measured updates, on the slowest rank. `reduce` is what
/// backward did not hide of the reduction, on the rank that waited least.
struct UpdateSeconds {
  std::vector<double> gradient, reduce, optimizer, pack;
  void add(comm::Communicator& comm, const learners::UpdateResult& result);
};

/// Says where the work runs: "2 thread(s)", "2 ranks of 1 thread(s)".
std::string layout(const BenchOptions& options, const comm::Communicator& comm);

/// Measures the machine's limits on all ranks at once, before and after the benchmark,
/// and reports memory. `options.ctx` has no profile, so that these measurements are in
/// none.
class Limits {
 public:
  Limits(const BenchOptions& options, comm::Communicator& comm);
  /// The peak of matrix products before the benchmark, all ranks together, in FLOP/s.
  double product_peak() const { return all_; }
  /// Adds the last figures and the breakdown. `expected_bytes` is the memory that this
  /// rank needs by formula.
  void finish(BenchReport& report, const Profile& profile, double expected_bytes);

 private:
  double measure(double& own) const;
  const BenchOptions& options_;
  comm::Communicator& comm_;
  double own_ = 0, all_ = 0;
};

}  // namespace orrery::tools::bench
