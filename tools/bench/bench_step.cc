#include <algorithm>
#include <optional>

#include "comm/mailbox.h"
#include "core/timer.h"
#include "experiments/on_all_ranks.h"
#include "proto/config.pb.h"
#include "rollout/trajectory.h"
#include "tools/bench/bench_parts.h"

namespace orrery::tools {
namespace {

std::vector<rollout::Group> as_groups(const BenchOptions& options, int64_t vocab,
                                      std::vector<rollout::GenerateResult> results) {
  std::vector<rollout::Group> groups;
  for (rollout::GenerateResult& result : results) {
    rollout::Trajectory t;
    t.prompt_index = result.prompt_index;
    t.sample_index = result.sample_index;
    t.prompt_tokens = bench::random_prompt(options, vocab, result.prompt_index, options.prompt_len);
    t.loss_mask.assign(result.tokens.size(), 1);
    t.tokens = std::move(result.tokens);
    t.logprobs = std::move(result.logprobs);
    t.entropies = std::move(result.entropies);
    t.weight_versions = std::move(result.weight_versions);
    t.finish_reason = result.finish_reason;
    if (groups.empty() || groups.back().prompt_index != t.prompt_index)
      groups.push_back({0, t.prompt_index, {}});
    groups.back().samples.push_back(std::move(t));
  }
  return groups;
}

/// Every rank's groups, in the order of the prompts, on every rank: as learners get
/// them.
std::vector<rollout::Group> share(const Context& ctx, comm::Communicator& comm,
                                  std::vector<rollout::Group> mine) {
  if (comm.size() == 1) return mine;
  const ProfilePhaseScope phase(ctx, "exchange");
  proto::GroupsMessage message;
  for (const rollout::Group& group : mine) *message.add_groups() = rollout::group_to_proto(group);
  std::vector<std::string> parts = comm.all_gather_bytes(comm::seal(message));
  std::vector<rollout::Group> all;
  for (int rank = 0; rank < comm.size(); ++rank) {
    const auto part = comm::unseal<proto::GroupsMessage>(comm.rank(), rank, std::move(parts[rank]));
    for (const proto::Group& group : part.groups()) all.push_back(rollout::group_from_proto(group));
  }
  return all;
}

/// better, worse: advantages of the tokens of every second sample, and of the others.
std::vector<learners::Tree> as_trees(const std::vector<rollout::Group>& groups,
                                     std::span<const float> better, std::span<const float> worse) {
  int64_t tokens = 0;
  for (const rollout::Group& group : groups) {
    for (const rollout::Trajectory& t : group.samples) tokens += std::ssize(t.tokens);
  }
  std::vector<learners::Tree> trees;
  for (const rollout::Group& group : groups) {
    trees.push_back({group.samples.front().prompt_tokens, {}});
    for (const rollout::Trajectory& t : group.samples) {
      learners::Leaf leaf;
      leaf.tokens = t.tokens;
      leaf.loss_mask = t.loss_mask;
      leaf.old_logprobs = t.logprobs;
      leaf.advantages = (t.sample_index % 2 == 0 ? better : worse).first(t.tokens.size());
      leaf.weight = static_cast<float>(1.0 / tokens);
      trees.back().leaves.push_back(std::move(leaf));
    }
  }
  return trees;
}

/// Seconds of the measured steps, and what one of them comes to.
struct StepMeasures {
  std::vector<double> total, gen;
  bench::UpdateSeconds update;
  double train_flops = 0, mismatch = 0;
};

BenchReport step_report(const BenchOptions& options, const comm::Communicator& comm,
                        const models::ModelConfig& config, const StepMeasures& measured,
                        double product_peak) {
  const double samples = options.prompts * options.samples;
  const double gen_tokens = samples * options.gen_len;
  const double tokens = gen_tokens + samples * options.prompt_len;
  const double seconds = bench::median(measured.total), gen = bench::median(measured.gen);
  const double gradient = bench::median(measured.update.gradient);
  const double rollout_flops = bench::rollout_flops(options, config, options.prompts);
  BenchReport report;
  report.title = fmt::format("GRPO step: {} prompts x {} samples, {} in + {} out, {}",
                             options.prompts, options.samples, options.prompt_len, options.gen_len,
                             bench::layout(options, comm));
  report.figures = {{"step_seconds", seconds},
                    {"tokens_per_s", tokens / seconds},
                    {"gen_seconds", gen},
                    {"gen_tokens_per_s", gen_tokens / gen},
                    {"forward_backward_seconds", gradient},
                    {"reduce_seconds", bench::median(measured.update.reduce)},
                    {"optimizer_seconds", bench::median(measured.update.optimizer)},
                    {"pack_seconds", bench::median(measured.update.pack)},
                    {"mfu_rollout", rollout_flops / gen / product_peak},
                    {"mfu_learner", measured.train_flops / gradient / product_peak},
                    {"logprob_diff_max", measured.mismatch}};
  return report;
}

}  // namespace

BenchReport bench_step(const BenchOptions& options, comm::Communicator& comm) {
  bench::Limits limits(options, comm);
  Profile profile(options.ctx.stream());
  Context ctx = options.ctx;
  ctx.profile = &profile;
  const int64_t begin = options.prompts * comm.rank() / comm.size(),
                end = options.prompts * (comm.rank() + 1) / comm.size();
  bench::Model loaded;
  std::optional<rollout::Engine> engine;
  std::optional<learners::Learner> learner;
  experiments::on_all_ranks(comm, [&] {
    loaded = bench::load(options, options.prompt_len + options.gen_len, bench::kLengths);
    learner.emplace(ctx, *loaded.transformer, comm, bench::learner_config(options, comm));
    rollout::EngineConfig config =
        bench::engine_config(options, loaded.transformer->config(),
                             std::max<int64_t>(1, (end - begin) * options.samples));
    config.kv_memory = learner->idle_memory();
    engine.emplace(ctx, *loaded.transformer, nullptr, config);
  });
  const models::ModelConfig& config = loaded.transformer->config();
  StepMeasures measures;
  const std::vector<float> better(options.gen_len, 1.0f), worse(options.gen_len, -1.0f);
  for (int64_t i = 0; i <= options.repeats; ++i) {
    const bool measured = i > 0;  // the first is a warm-up
    comm.barrier();
    if (measured) profile.start();
    const Timer timer;
    const uint64_t step = i;
    engine->set_weight_version(step);
    std::vector<rollout::GenerateResult> results =
        bench::rollout(options, *engine, config.vocab_size, begin, end, options.gen_len, step);
    const double gen_seconds = timer.seconds();
    const std::vector<rollout::Group> groups =
        share(ctx, comm, as_groups(options, config.vocab_size, std::move(results)));
    std::vector<learners::Tree> trees = as_trees(groups, better, worse);
    const learners::UpdateResult result =
        bench::update(ctx, *learner, trees, learners::policy_objective({}));
    const double step_seconds = timer.seconds();
    measures.mismatch = std::max(measures.mismatch, result.sums.logprob_diff_max);
    if (!measured) continue;
    profile.stop();
    measures.total.push_back(bench::slowest(comm, step_seconds));
    measures.gen.push_back(bench::slowest(comm, gen_seconds));
    measures.update.add(comm, result);
    measures.train_flops = result.model_flops;
  }
  BenchReport report = step_report(options, comm, config, measures, limits.product_peak());
  report.note = loaded.note;
  limits.finish(
      report, profile,
      loaded.transformer->memory_bytes() + learner->memory_bytes() + engine->memory_bytes());
  return report;
}

}  // namespace orrery::tools
