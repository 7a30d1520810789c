// What the benchmarks share.
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

/// Collective: the largest of the ranks' values.
double slowest(comm::Communicator& comm, double seconds);

struct Model {
  std::unique_ptr<models::Transformer> transformer;
  std::string note;
};
/// For sequences of so many positions; packed. `length_options`: the options that say
/// how many, for messages.
Model load(const BenchOptions& options, int64_t positions, const char* length_options);

std::vector<int32_t> random_prompt(const BenchOptions& options, int64_t vocab, uint64_t index,
                                   int64_t length);

/// Of a bench that generates.
inline constexpr const char* kLengths = "--prompt-len or --gen-len";
rollout::EngineConfig engine_config(const BenchOptions& options, const models::ModelConfig& model,
                                    int64_t sequences);

/// Generates for prompts [begin, end); results by prompt and sample.
std::vector<rollout::GenerateResult> rollout(const BenchOptions& options, rollout::Engine& engine,
                                             int64_t vocab, int64_t begin, int64_t end,
                                             int64_t new_tokens, uint64_t step);

/// FLOPs of generating: each sequence's tokens once, the head for generated ones.
double rollout_flops(const BenchOptions& options, const models::ModelConfig& config,
                     int64_t prompts);

/// An error for shards that cannot be shared by the ranks.
learners::LearnerConfig learner_config(const BenchOptions& options, const comm::Communicator& comm);

/// One update at the default learning rate, clipped at 1; a phase of its own.
learners::UpdateResult update(const Context& ctx, learners::Learner& learner,
                              std::span<learners::Tree> trees,
                              const learners::Objective& objective);

/// Parts of the measured updates, of the slowest rank; reduce, what backward did not
/// hide of the reduction, of the rank that waited least.
struct UpdateSeconds {
  std::vector<double> gradient, reduce, optimizer, pack;
  void add(comm::Communicator& comm, const learners::UpdateResult& result);
};

/// Where the work runs ("2 threads", "2 ranks of 1 thread").
std::string layout(const BenchOptions& options, const comm::Communicator& comm);

/// The machine's limits, measured by all ranks at once, before and after; the model's
/// memory. `options.ctx` has no profile: what it runs is in none.
class Limits {
 public:
  Limits(const BenchOptions& options, comm::Communicator& comm);
  double product_peak() const { return all_; }  ///< all ranks together, before
  /// Adds the closing figures and the breakdown. expected_bytes: what this rank needs
  /// by formula.
  void finish(BenchReport& report, const Profile& profile, double expected_bytes);

 private:
  double measure(double& own) const;
  const BenchOptions& options_;
  comm::Communicator& comm_;
  double own_ = 0, all_ = 0;
};

}  // namespace orrery::tools::bench
