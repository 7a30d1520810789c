#include <optional>

#include "core/timer.h"
#include "experiments/on_all_ranks.h"
#include "tools/bench/bench_parts.h"

namespace orrery::tools {

BenchReport bench_train(const BenchOptions& options, comm::Communicator& comm) {
  bench::Limits limits(options, comm);
  Profile profile;
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
    sequences.push_back(
        bench::random_prompt(options, vocab, static_cast<uint64_t>(i), options.seq_len + 1));
  const std::vector<uint8_t> mask(static_cast<size_t>(options.seq_len), 1);
  bench::UpdateSeconds seconds;
  std::vector<double> total;
  double flops = 0;
  for (int64_t i = 0; i <= options.repeats; ++i) {
    const bool measured = i > 0;  // the first is a warm-up
    std::vector<learners::Tree> trees;
    for (const auto& tokens : sequences) {
      learners::Leaf leaf;
      leaf.tokens = std::span(tokens).subspan(1);
      leaf.loss_mask = mask;
      leaf.weight = static_cast<float>(1.0 / static_cast<double>(options.batch * options.seq_len));
      trees.push_back({std::span(tokens).first(1), {}});
      trees.back().leaves.push_back(std::move(leaf));
    }
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
  const auto tokens = static_cast<double>(options.batch * options.seq_len);
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
  limits.finish(report, profile,
                static_cast<double>(loaded.transformer->memory_bytes() + learner->memory_bytes()));
  return report;
}

}  // namespace orrery::tools
