#include "experiments/job.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "comm/plane_choice.h"
#include "config/config_external.h"
#include "core/error.h"
#include "core/file.h"
#include "core/flight_recorder.h"
#include "core/host_image.h"
#include "core/log.h"
#include "core/parallel.h"
#include "experiments/agreement.h"
#include "experiments/device_memory.h"
#include "experiments/inputs.h"
#include "experiments/model_source.h"
#include "experiments/on_all_ranks.h"
#include "rollout/block_manager.h"
#include "storage/hf_folder.h"

namespace orrery::experiments {
namespace {

std::unique_ptr<models::Transformer> make_transformer(const std::filesystem::path& folder,
                                                      const text::Tokenizer& tokenizer,
                                                      Device device, DType compute_dtype,
                                                      int64_t max_positions) {
  const models::ModelConfig config = models::load_model_config(folder);
  check_vocabulary(folder, tokenizer, config);
  return std::make_unique<models::Transformer>(config, device, compute_dtype, max_positions);
}

std::unique_ptr<models::Transformer> load_transformer(const Context& ctx,
                                                      const std::filesystem::path& folder,
                                                      const text::Tokenizer& tokenizer,
                                                      DType compute_dtype, int64_t max_positions) {
  auto model = make_transformer(folder, tokenizer, ctx.device, compute_dtype, max_positions);
  HostImage weights(ctx, model->write_parameters());
  storage::load_hf_weights(ctx, folder, model->config(), model->table(), weights.values());
  weights.commit();
  model->pack(ctx);
  return model;
}

/// Of a job that neither generates nor imitates a teacher.
class NoEnvironment final : public actors::Environment {
 public:
  uint64_t size(actors::Split /*split*/) const override { return 0; }
  std::unique_ptr<actors::Episode> reset(actors::Split /*split*/,
                                         uint64_t /*index*/) const override {
    fail("this job has no environment");
  }
  std::optional<actors::Demonstration> demonstration(uint64_t /*index*/) const override {
    return std::nullopt;
  }
};

constexpr double kBytesPerGib = 1 << 30;
/// What rollout.kv_cache_gb = 0 means where a rank does not take all of a device.
constexpr double kDefaultKvGib = 1;

bool generates(const actors::PromptUse& use) { return use.train_prompts > 0 || use.val; }

/// A usage Error where a part of the reward is asked for that the environment is known
/// not to have.
void check_reward_parts(const proto::Config& config, const actors::Environment& env) {
  const std::vector<std::string> known = env.reward_parts();
  if (known.empty() || config.algorithm().adv_estimator() != proto::AlgorithmSection::GDPO) return;
  for (const std::string& key : config.algorithm().gdpo_reward_keys()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    fail_usage(
        "algorithm.gdpo_reward_keys has '{}', and the rewards of data.env {} have no such part: "
        "they have {}",
        key, config::env_name(config.data()), fmt::join(known, ", "));
  }
}

}  // namespace

void as_usage_errors(const std::function<void()>& work) {
  try {
    work();
  } catch (const SystemError&) {
    throw;
  } catch (const Error& error) {
    throw Error(error.what(), error.exit_code() == kExitFailure ? kExitUsage : error.exit_code());
  }
}

models::ModelConfig read_job_model(const proto::Config& config, const actors::PromptUse& use) {
  const std::filesystem::path folder = config.model().path();
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    fail_usage("model.path: '{}' is not a folder; give a Hugging Face model folder",
               folder.string());
  }
  if (const std::string hint = not_a_model_hint(folder); !hint.empty())
    fail_usage("model.path: {} holds no config.json{}", folder.string(), hint);
  models::ModelConfig model = models::load_model_config(folder);
  if (!generates(use)) return model;
  const int64_t longest = config.data().max_prompt_length() + config.data().max_response_length();
  if (longest > model.max_position_embeddings) {
    fail_usage(
        "data.max_prompt_length + data.max_response_length is {} but {} handles {} positions; "
        "lower one of them",
        longest, folder.string(), model.max_position_embeddings);
  }
  return model;
}

int resolve_threads(const proto::Config& config, int local_ranks) {
  const int cpus = available_cpus();
  const int wanted = config.cluster().threads();
  if (wanted == 0) return std::max(1, cpus / std::max(1, local_ranks));
  if (wanted > cpus) {
    spdlog::warn(
        "cluster.threads is {} but this rank may run on {} CPU(s) only; "
        "mpirun --bind-to none lifts the binding",
        wanted, cpus);
    return wanted;
  }
  const int64_t all = int64_t{wanted} * local_ranks, host = ::sysconf(_SC_NPROCESSORS_ONLN);
  if (all > 2 * host) {
    spdlog::warn(
        "cluster.threads is {} for each of {} ranks on this host, {} threads on {} CPUs, "
        "which wait for each other; 0 shares the CPUs among the ranks",
        wanted, local_ranks, all, host);
  }
  return std::min(wanted,
                  max_team_members());  // ops keep scratch for each thread that they are told of
}

bool learns_demonstrations(const proto::Config& config) {
  const proto::SftSection& sft = config.sft();
  return sft.total_training_steps() > 0 && sft.text_files().empty() && sft.train_files().empty();
}

std::unique_ptr<actors::Environment> make_job_environment(const proto::Config& config,
                                                          const actors::PromptUse& use) {
  if (generates(use) || learns_demonstrations(config)) {
    std::unique_ptr<actors::Environment> env =
        actors::make_environment(config.data(), config.seed());
    if (use.train_prompts > 0) check_reward_parts(config, *env);
    return env;
  }
  return std::make_unique<NoEnvironment>();
}

void warn_about_threads(const proto::Config& config) {
  const int64_t wanted = config.cluster().threads(), cpus = available_cpus();
  if (wanted <= 2 * cpus) return;
  spdlog::warn(
      "cluster.threads is {} and this machine has {} CPU(s) for it: "
      "more threads than CPUs wait for each other; 0 takes what there is",
      wanted, cpus);
}

actors::PromptUse training_prompts(const proto::Config& config) {
  const int64_t steps = config.trainer().total_training_steps();
  actors::PromptUse use;
  use.train_prompts = steps * config.data().train_batch_size();
  use.val = steps > 0 && config.trainer().test_freq() != 0;
  return use;
}

actors::CheckSetup check_setup(const Job& job) {
  return {job.ctx, job.is_main(), [&job] { job.note_progress(); }};
}

void set_up_data_plane(comm::Communicator& ranks, const proto::ClusterSection& cluster,
                       const std::string& key, Device device) {
  proto::RankDevice mine;
  on_all_ranks(ranks, [&] { mine = comm::describe_rank(cluster, key, device, ranks.size()); });
  std::string way;
  on_all_ranks(ranks, [&] { way = comm::set_up_data_plane(ranks, cluster, mine); });
  if (!way.empty() && ranks.rank() == 0)
    spdlog::info("data plane of {} ranks: {}", ranks.size(), way);
}

std::unique_ptr<Job> make_job(const proto::Config& config, comm::Communicator& world,
                              LocalRank local, const actors::PromptUse& use,
                              comm::Watchdog* watchdog) {
  const comm::Topology topology = comm::make_topology(config.cluster(), world.size());
  Context ctx;
  const bool learns = topology.is_learner(world.rank());
  on_all_ranks(world, [&] {
    ctx.device = learns ? config::device(config, local) : config::rollout_device(config, local);
  });
  if (config.device() == "auto" && world.rank() == 0)
    spdlog::info("device: auto is {} ({})", device_name(ctx.device), auto_device(local).why);
  const bool same = config.rollout().device() == config::kSameDevice;
  const std::string key = learns || same ? "device" : "rollout.device";
  set_up_data_plane(world, config.cluster(), key, ctx.device);
  ctx.threads = resolve_threads(config, local.size);
  std::unique_ptr<comm::Communicator> learners = world.split(learns ? 0 : -1);
  // What all ranks have in common may be less than what the learners have.
  if (learns && !same) set_up_data_plane(*learners, config.cluster(), key, ctx.device);
  const DType dtype =
      learns ? config::compute_dtype(config) : config::rollout_compute_dtype(config);
  std::vector<storage::InputDigest> inputs = read_inputs(config);
  agree_on_inputs(world, inputs);
  std::unique_ptr<Job> job;
  const auto make = [&] {
    const std::filesystem::path folder = config.model().path();
    read_job_model(config, use);
    job.reset(new Job{
        config, world, topology, ctx, config.run_dir(),
        text::Tokenizer::load(folder, {.chat_template_file = config.model().chat_template_file()}),
        Modules{}, nullptr, nullptr, std::move(learners), std::move(inputs)});
    job->watchdog = watchdog;
    job->env = make_job_environment(config, use);
    job->source = std::make_unique<actors::PromptSource>(config.data(), *job->env, job->tokenizer,
                                                         config.seed(), check_setup(*job), use);
    const int64_t rows = job->source->train_size();
    if (use.train_prompts > 0 && rows > 0 && job->is_main() &&
        rows < config.data().train_batch_size()) {
      spdlog::warn(
          "data.train_batch_size is {} but there are {} training prompts: "
          "a step has some more than once",
          config.data().train_batch_size(), rows);
    }
    if (config.model().from_scratch()) {
      job->modules.policy = make_transformer(folder, job->tokenizer, ctx.device, dtype, 0);
      HostImage weights(ctx, job->model().write_parameters());
      models::initialize_parameters(job->model().config(), job->model().table(), config.seed(),
                                    weights.values());
      weights.commit();
      job->model().pack(ctx);
    } else {
      job->modules.policy = load_transformer(ctx, folder, job->tokenizer, dtype, 0);
    }
  };
  on_all_ranks(world, [&] { as_usage_errors(make); });
  const storage::InputDigest weights = weights_input(ctx, job->model().parameters());
  agree_on_inputs(world, {&weights, 1});
  // Random ones follow from the seed.
  if (!config.model().from_scratch()) job->inputs.push_back(weights);
  return job;
}

void Job::begin_phase(const std::string& text) const {
  record_event("{}", text);
  if (watchdog != nullptr) watchdog->begin_phase(text);
}

kernels::AdamWParams adamw_params(const proto::OptimSection& optim) {
  kernels::AdamWParams params;
  params.lr = optim.lr();
  params.beta1 = optim.beta1();
  params.beta2 = optim.beta2();
  params.eps = optim.eps();
  params.weight_decay = optim.weight_decay();
  return params;
}

learners::LrSchedule lr_schedule(const proto::OptimSection& optim, int64_t total_steps) {
  learners::LrSchedule schedule;
  schedule.lr = optim.lr();
  schedule.warmup_steps = optim.lr_warmup_steps();
  schedule.scheduler = optim.lr_scheduler_type();
  schedule.min_lr_ratio = optim.min_lr_ratio();
  schedule.total_steps = total_steps;
  return schedule;
}

rollout::EngineConfig engine_config(const proto::Config& config, const models::ModelConfig& model) {
  rollout::EngineConfig engine;
  engine.max_num_seqs = config.rollout().max_num_seqs();
  engine.max_num_batched_tokens = config.rollout().max_num_batched_tokens();
  const double gib = config.rollout().kv_cache_gb();
  engine.kv_cache_bytes = (gib == 0 ? kDefaultKvGib : gib) * kBytesPerGib;
  engine.most_samples = std::max(config.rollout().n(), config.rollout().val_n());
  engine.max_model_len =
      std::min(model.max_position_embeddings,
               config.data().max_prompt_length() + config.data().max_response_length());
  return engine;
}

size_t kv_cache_bytes_per_sequence(const proto::Config& config, const models::ModelConfig& model,
                                   Device device) {
  const int64_t blocks =
      rollout::BlockManager::blocks_for(engine_config(config, model).max_model_len) +
      1;  // a group keeps its prompt's last block
  return models::KvCache::bytes_per_block(model, config::rollout_compute_dtype(config), device) *
         blocks;
}

void check_kv_cache(const proto::Config& config, const models::ModelConfig& model, Device device) {
  if (takes_rest_of_device(config, device)) return;
  const rollout::EngineConfig engine = engine_config(config, model);
  const size_t bytes = kv_cache_bytes_per_sequence(config, model, device);
  if (engine.kv_cache_bytes >= bytes) return;
  const double gib = config.rollout().kv_cache_gb();
  fail_usage(
      "rollout.kv_cache_gb is {}, too little for the keys and values of one sequence of "
      "data.max_prompt_length + data.max_response_length = {} tokens of this model: "
      "give at least {}",
      gib == 0 ? fmt::format("0, which is {} here", kDefaultKvGib) : fmt::format("{}", gib),
      engine.max_model_len, std::ceil(bytes / kBytesPerGib * 1e6) / 1e6);
}

kernels::SamplingParams train_sampling(const proto::RolloutSection& rollout) {
  kernels::SamplingParams params;
  params.temperature = rollout.temperature();
  params.top_k = rollout.top_k();
  params.top_p = rollout.top_p();
  params.min_p = rollout.min_p();
  return params;
}

kernels::SamplingParams val_sampling(const proto::RolloutSection& rollout) {
  kernels::SamplingParams params;
  params.temperature = rollout.val_temperature();
  return params;
}

}  // namespace orrery::experiments
