// Ops on flat buffers of parameters and gradients: the optimizer, norms, and the
// ordered sum of shards.
#include <fmt/format.h>

#include <algorithm>

#include "bench/ops_bench.h"
#include "bench/turns.h"
#include "kernels/elementwise.h"
#include "kernels/optimizer.h"
#include "learners/ordered_reducer.h"

namespace orrery::bench {
namespace {

// Enough to come from memory, as a whole model does, without taking as much memory as
// a whole model.
constexpr int64_t kMaxElements = 16 << 20;
constexpr int64_t kShards = 8;

Vec<float> elements(const Buffer& buffer) { return as_vec(buffer.span<float>()); }

void run_adamw(benchmark::State& state, const Machine& machine, int64_t n) {
  const Buffer w = random_buffer(n, 1), m = random_buffer(n, 2), v = random_buffer(n, 3),
               grad = random_buffer(n, 4);
  for (float& x : v.span<float>()) x *= x;
  const Cost cost{.flops = 16.0 * static_cast<double>(n),
                  .read = as_bytes(4 * n),
                  .written = as_bytes(3 * n),
                  .working_set = as_bytes(4 * n)};
  measure(state, machine, cost, [&] {
    kernels::adamw_step(context_of(machine), {.w = elements(w),
                                              .m = elements(m),
                                              .v = elements(v),
                                              .grad = elements(grad),
                                              .t = 3,
                                              .grad_scale = 0.5f});
  });
}

void run_sum_squares(benchmark::State& state, const Machine& machine, int64_t n) {
  const int64_t chunks = (n + kernels::kNormChunk - 1) / kernels::kNormChunk;
  const Buffer x = random_buffer(n, 1), sums(Device{}, chunks * sizeof(float));
  measure(state, machine, {.flops = 2.0 * static_cast<double>(n), .read = as_bytes(n)}, [&] {
    kernels::sum_squares_chunks(context_of(machine), {.sums = elements(sums), .x = elements(x)});
  });
}

void run_accumulate(benchmark::State& state, const Machine& machine, int64_t n) {
  const Buffer y = random_buffer(n, 1), x = random_buffer(n, 2);
  const Cost cost{.flops = static_cast<double>(n),
                  .read = as_bytes(2 * n),
                  .written = as_bytes(n),
                  .working_set = as_bytes(2 * n)};
  measure(state, machine, cost,
          [&] { kernels::accumulate(context_of(machine), {.y = elements(y), .x = elements(x)}); });
}

/// What a rank that walks all shards adds to computing their gradients, which here is a
/// write of each.
void run_shard_tree(benchmark::State& state, const Machine& machine, int64_t n) {
  const Context ctx = context_of(machine);
  learners::ShardTree tree(Device{}, {0, n}, kShards);
  const auto additions = static_cast<double>(kShards - 1);
  const Cost cost{.flops = additions * static_cast<double>(n),
                  .read = 2 * additions * as_bytes(n),
                  .written = (additions + static_cast<double>(kShards)) * as_bytes(n),
                  .working_set = static_cast<double>(tree.memory_bytes())};
  measure(state, machine, cost, [&] {
    tree.begin(ctx);
    for (int64_t s = 0; s < kShards; ++s) {
      const FlatView buffer = tree.begin_shard(/*by_region=*/false);
      kernels::fill(ctx, {.y = {buffer.at(0), n}, .value = 1.0f});
      tree.end_shard();
    }
  });
}

}  // namespace

void add_flat_cases(const Registry& registry, const ModelShape& model) {
  const int64_t n = std::min(model.parameters(), kMaxElements);
  const auto add = [&](const char* op, auto run) {
    registry.add(fmt::format("{}/{}/N:{}", model.name, op, n),
                 [=](benchmark::State& state, const Machine& machine) { run(state, machine, n); });
  };
  add("adamw_step", run_adamw);
  add("sum_squares_chunks", run_sum_squares);
  add("accumulate", run_accumulate);
  add("shard_tree_sum", run_shard_tree);
}

}  // namespace orrery::bench
