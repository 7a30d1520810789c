#include <algorithm>
#include <optional>

#include "comm/mailbox.h"
#include "core/timer.h"
#include "experiments/on_all_ranks.h"
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
  const PhaseScope phase(ctx, "exchange");
  proto::GroupsMessage message;
  for (const rollout::Group& group : mine) *message.add_groups() = rollout::group_to_proto(group);
  std::vector<std::string> parts = comm.all_gather_bytes(comm::seal(message));
  std::vector<rollout::Group> all;
  for (int rank = 0; rank < comm.size(); ++rank) {
    const auto part = comm::unseal<proto::GroupsMessage>(
        comm.rank(), rank, std::move(parts[static_cast<size_t>(rank)]));
    for (const proto::Group& group : part.groups()) all.push_back(rollout::group_from_proto(group));
  }
  return all;
}

/// better, worse: advantages of the tokens of every second sample, and of the others.
std::vector<learners::Tree> as_trees(const std::vector<rollout::Group>& groups,
                                     std::span<const float> better, std::span<const float> worse) {
  int64_t tokens = 0;
  for (const rollout::Group& group : groups) {
    for (const rollout::Trajectory& t : group.samples)
      tokens += static_cast<int64_t>(t.tokens.size());
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
      leaf.weight = static_cast<float>(1.0 / static_cast<double>(tokens));
      trees.back().leaves.push_back(std::move(leaf));
    }
  }
  return trees;
}

}  // namespace

BenchReport bench_step(const BenchOptions& options, comm::Communicator& comm) {
  bench::Limits limits(options, comm);
  Profile profile;
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
  std::vector<double> gen, total;
  bench::UpdateSeconds seconds;
  double train_flops = 0, mismatch = 0;
  const std::vector<float> better(static_cast<size_t>(options.gen_len), 1.0f),
      worse(better.size(), -1.0f);
  for (int64_t i = 0; i <= options.repeats; ++i) {
    const bool measured = i > 0;  // the first is a warm-up
    comm.barrier();
    if (measured) profile.start();
    const Timer timer;
    const auto step = static_cast<uint64_t>(i);
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
    mismatch = std::max(mismatch, result.sums.logprob_diff_max);
    if (!measured) continue;
    profile.stop();
    total.push_back(bench::slowest(comm, step_seconds));
    gen.push_back(bench::slowest(comm, gen_seconds));
    seconds.add(comm, result);
    train_flops = result.model_flops;
  }
  const auto samples = static_cast<double>(options.prompts * options.samples);
  const auto gen_tokens = samples * static_cast<double>(options.gen_len),
             tokens = gen_tokens + samples * static_cast<double>(options.prompt_len);
  const double gradient = bench::median(seconds.gradient);
  BenchReport report;
  report.title = fmt::format("GRPO step: {} prompts x {} samples, {} in + {} out, {}",
                             options.prompts, options.samples, options.prompt_len, options.gen_len,
                             bench::layout(options, comm));
  report.note = loaded.note;
  report.figures = {{"step_seconds", bench::median(total)},
                    {"tokens_per_s", tokens / bench::median(total)},
                    {"gen_seconds", bench::median(gen)},
                    {"gen_tokens_per_s", gen_tokens / bench::median(gen)},
                    {"forward_backward_seconds", gradient},
                    {"reduce_seconds", bench::median(seconds.reduce)},
                    {"optimizer_seconds", bench::median(seconds.optimizer)},
                    {"pack_seconds", bench::median(seconds.pack)},
                    {"mfu_rollout", bench::rollout_flops(options, config, options.prompts) /
                                        bench::median(gen) / limits.product_peak()},
                    {"mfu_learner", train_flops / gradient / limits.product_peak()},
                    {"logprob_diff_max", mismatch}};
  limits.finish(report, profile,
                static_cast<double>(loaded.transformer->memory_bytes() + learner->memory_bytes() +
                                    engine->memory_bytes()));
  return report;
}

}  // namespace orrery::tools
