#include <optional>

#include "core/timer.h"
#include "experiments/on_all_ranks.h"
#include "tools/bench/bench_parts.h"

namespace orrery::tools {
namespace {

/// Trees of one sequence each, every token of which but the first is trained.
std::vector<learners::Tree> as_trees(const std::vector<std::vector<int32_t>>& sequences,
                                     const std::vector<uint8_t>& mask) {
  const int64_t tokens = std::ssize(sequences) * std::ssize(mask);
  std::vector<learners::Tree> trees;
  for (const std::vector<int32_t>& sequence : sequences) {
    learners::Leaf leaf;
    leaf.tokens = std::span(sequence).subspan(1);
    leaf.loss_mask = mask;
    leaf.weight = static_cast<float>(1.0 / tokens);
    trees.push_back({std::span(sequence).first(1), {}});
    trees.back().leaves.push_back(std::move(leaf));
  }
  return trees;
}

}  // namespace

BenchReport bench_train(const BenchOptions& options, comm::Communicator& comm) {
  bench::Limits limits(options, comm);
  Profile profile(options.ctx.stream());
  Context ctx = options.ctx;
  ctx.profile = &profile;
  bench::Model loaded;
  std::optional<learners::Learner> learner;
  experiments::on_all_ranks(comm, [&] {
    loaded = bench::load(options, options.seq_len, "--seq-len");
    learner.emplace(ctx, *loaded.transformer, comm, bench::learner_config(options, comm));
  });
  const int64_t vocab = loaded.transformer->config().vocab_size;
  const learners::Objective objective = learners::sft_objective();
  std::vector<std::vector<int32_t>> sequences;
  for (int64_t i = 0; i < options.batch; ++i)
    sequences.push_back(bench::random_prompt(options, vocab, i, options.seq_len + 1));
  const std::vector<uint8_t> mask(options.seq_len, 1);
  bench::UpdateSeconds seconds;
  std::vector<double> total;
  double flops = 0;
  for (int64_t i = 0; i <= options.repeats; ++i) {
    const bool measured = i > 0;  // the first is a warm-up
    std::vector<learners::Tree> trees = as_trees(sequences, mask);
    comm.barrier();
    if (measured) profile.start();
    const Timer timer;
    const learners::UpdateResult result = bench::update(ctx, *learner, trees, objective);
    const double step_seconds = timer.seconds();
    if (!measured) continue;
    profile.stop();
    total.push_back(bench::slowest(comm, step_seconds));
    seconds.add(comm, result);
    flops = result.model_flops;
  }
  const double tokens = options.batch * options.seq_len;
  const double gradient = bench::median(seconds.gradient);
  BenchReport report;
  report.title =
      fmt::format("train: {} x {} tokens, {} gradient shard(s), {}", options.batch, options.seq_len,
                  options.gradient_shards, bench::layout(options, comm));
  report.note = loaded.note;
  report.figures = {{"tokens_per_s", tokens / gradient},
                    {"tokens_per_s_with_optimizer", tokens / bench::median(total)},
                    {"forward_backward_seconds", gradient},
                    {"reduce_seconds", bench::median(seconds.reduce)},
                    {"optimizer_seconds", bench::median(seconds.optimizer)},
                    {"pack_seconds", bench::median(seconds.pack)},
                    {"mfu", flops / gradient / limits.product_peak()}};
  limits.finish(report, profile, loaded.transformer->memory_bytes() + learner->memory_bytes());
  return report;
}

}  // namespace orrery::tools
