// What a rank of a training job works with, made from the config before the first step.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "actors/environment.h"
#include "actors/prompt_source.h"
#include "comm/communicator.h"
#include "comm/topology.h"
#include "comm/watchdog.h"
#include "config/config.h"
#include "core/context.h"
#include "kernels/optimizer.h"
#include "learners/schedule.h"
#include "models/transformer.h"
#include "proto/config.pb.h"
#include "rollout/engine.h"
#include "storage/manifest.h"
#include "text/tokenizer.h"

namespace orrery::experiments {

/// A job's models, one a module (models/parameters.h), each null where a rank has no
/// use for it. A module that trains has a Learner of its own (experiments/run.h): a
/// critic would be a member here, made where the policy is, and a second Learner there.
struct Modules {
  std::unique_ptr<models::Transformer> policy;  ///< kPolicy; on every rank
  /// kReference; on learners whose loss compares with it, once RL has begun or where it
  /// is known before (experiments/reference.h).
  std::unique_ptr<models::Transformer> reference;
};

struct Job {
  const proto::Config& config;
  comm::Communicator& world;
  comm::Topology topology;
  Context ctx;
  std::filesystem::path run_dir;
  text::Tokenizer tokenizer;
  Modules modules;
  std::unique_ptr<actors::Environment> env;
  std::unique_ptr<actors::PromptSource> source;
  std::unique_ptr<comm::Communicator> learners;  ///< null on ranks that only act
  std::vector<storage::InputDigest> inputs;      ///< what the files held that this job has read

  comm::Watchdog* watchdog = nullptr;  ///< training only

  /// Tells the watchdog and the flight recorder what this rank does from now on, in a
  /// user's words ("update step 12").
  void begin_phase(const std::string& text) const;
  void note_progress() const {
    if (watchdog != nullptr) watchdog->note_progress();
  }
  /// Rank 0, which reports for all.
  bool is_main() const { return world.rank() == 0; }
  bool is_learner() const { return topology.is_learner(world.rank()); }
  bool is_actor() const { return topology.is_actor(world.rank()); }
  models::Transformer& model() { return *modules.policy; }
  const models::Transformer& model() const { return *modules.policy; }
};

/// Collective over world, whose ranks must have the same config. An error when they do
/// not read the same files and weights (experiments/agreement.h). Usage Error when the
/// model's folder or the data is wrong, damaged or not supported; an Error of exit code
/// 1 when it could not be read. `local`: this rank on its host, for the device and the
/// number of threads. `use`: what will be asked of the source. `watchdog` may be null.
/// The data are read and checked before the weights are.
std::unique_ptr<Job> make_job(const proto::Config& config, comm::Communicator& world,
                              LocalRank local, const actors::PromptUse& use,
                              comm::Watchdog* watchdog);

/// Collective. Chooses what moves data between the devices of a communicator's ranks,
/// by cluster.data_plane, for communicators that are split from it from then on, too
/// (comm/plane_choice.h). `key`: of the config, by which this rank's device was chosen.
/// Usage Error on all ranks when that cannot be.
void set_up_data_plane(comm::Communicator& ranks, const proto::ClusterSection& cluster,
                       const std::string& key, Device device);

/// config.json of model.path. Usage Error when there is no such folder, or when the
/// longest prompt and response do not fit the model's positions (where prompts are
/// asked for).
models::ModelConfig read_job_model(const proto::Config& config, const actors::PromptUse& use);

/// The environment of the config; where neither prompts nor demonstrations are asked
/// for, one without items. Usage Error where training needs a part of the reward
/// (algorithm.gdpo_reward_keys) that it is known not to have.
std::unique_ptr<actors::Environment> make_job_environment(const proto::Config& config,
                                                          const actors::PromptUse& use);

/// Calls work(). Makes a usage Error of an Error of exit code 1, as what is wrong with
/// a model's folder or with data stays wrong. A SystemError stays what it is: the
/// system could not read the file this time.
void as_usage_errors(const std::function<void()>& work);

/// The prompts that a training run asks for; an evaluation asks for {0, true}.
actors::PromptUse training_prompts(const proto::Config& config);

/// How this rank checks data: rank 0 prints warnings, each rank shows its progress.
actors::CheckSetup check_setup(const Job& job);

/// Prints a warning when cluster.threads is more than twice the CPUs of this machine.
void warn_about_threads(const proto::Config& config);

/// Threads of a rank: cluster.threads, or where that is 0 an equal share of this host's
/// CPUs.
int resolve_threads(const proto::Config& config, int local_ranks);

/// Whether SFT learns from the environment's demonstrations, and not from files of its
/// own.
bool learns_demonstrations(const proto::Config& config);

// The config's words as the parts below know them.
kernels::AdamWParams adamw_params(const proto::OptimSection& optim);
learners::LrSchedule lr_schedule(const proto::OptimSection& optim, int64_t total_steps);
rollout::EngineConfig engine_config(const proto::Config& config, const models::ModelConfig& model);
/// Usage Error when engine_config's KV cache does not hold one sequence of the greatest
/// length, so that this is known before any step. Nothing where a rank takes what is
/// left of the device, which is known later.
void check_kv_cache(const proto::Config& config, const models::ModelConfig& model, Device device);
/// Bytes of KV cache that one sequence of the greatest length takes.
size_t kv_cache_bytes_per_sequence(const proto::Config& config, const models::ModelConfig& model,
                                   Device device);
kernels::SamplingParams train_sampling(const proto::RolloutSection& rollout);
kernels::SamplingParams val_sampling(const proto::RolloutSection& rollout);

}  // namespace orrery::experiments
