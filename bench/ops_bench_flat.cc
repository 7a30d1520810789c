// Ops on flat buffers of parameters and gradients: the optimizer, norms, and the
// ordered sum of shards.
#include <fmt/format.h>

#include "bench/ops_bench.h"
#include "bench/turns.h"
#include "kernels/elementwise.h"
#include "kernels/optimizer.h"
#include "kernels/reductions.h"
#include "learners/ordered_reducer.h"
#include "tests/kernels/cases/flat_cases.h"

namespace orrery::bench {
namespace {

using namespace kernels::cases;

Vec<float> elements(const Buffer& buffer) { return buffer.vec<float>(); }

void run_adamw(benchmark::State& state, const Machine& machine, const FlatCase& c) {
  const int64_t n = c.count;
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

void run_sum_squares(benchmark::State& state, const Machine& machine, const FlatCase& c) {
  const int64_t n = c.count;
  const int64_t chunks = (n + kernels::kNormChunk - 1) / kernels::kNormChunk;
  const Buffer x = random_buffer(n, 1), sums(Device{}, chunks * sizeof(float));
  measure(state, machine, {.flops = 2.0 * static_cast<double>(n), .read = as_bytes(n)}, [&] {
    kernels::sum_squares_chunks(context_of(machine), {.sums = elements(sums), .x = elements(x)});
  });
}

/// Into the first part, as the tree of shards is summed.
void run_nested_sum(benchmark::State& state, const Machine& machine, const SumCase& c) {
  const int64_t n = c.count;
  std::vector<Buffer> buffers;
  std::vector<const float*> parts;
  for (int64_t p = 0; p < c.parts; ++p) {
    buffers.push_back(random_buffer(n, static_cast<uint32_t>(1 + p)));
    parts.push_back(elements(buffers.back()).data);
  }
  const Cost cost{.flops = static_cast<double>((c.parts - 1) * n),
                  .read = as_bytes(c.parts * n),
                  .written = as_bytes(n),
                  .working_set = as_bytes(c.parts * n)};
  measure(state, machine, cost, [&] {
    kernels::nested_sum(context_of(machine), {.out = elements(buffers.front()), .parts = parts});
  });
}

/// What a rank that walks all shards adds to computing their gradients, which here is a
/// write of each.
void run_shard_tree(benchmark::State& state, const Machine& machine, const SumCase& c) {
  const int64_t n = c.count;
  const Context ctx = context_of(machine);
  learners::ShardTree tree(Device{}, {0, n}, c.parts);
  // Every second shard ends subtrees: their sums are read, with it, and one is written.
  const int64_t ends = c.parts / 2;
  const Cost cost{.flops = static_cast<double>((c.parts - 1) * n),
                  .read = as_bytes((c.parts - 1 + ends) * n),
                  .written = as_bytes((ends + c.parts) * n),
                  .working_set = static_cast<double>(tree.memory_bytes())};
  measure(state, machine, cost, [&] {
    tree.begin(ctx);
    for (int64_t s = 0; s < c.parts; ++s) {
      const FlatView buffer = tree.begin_shard(/*by_region=*/false);
      kernels::fill(ctx, {.y = {buffer.at(0), n}, .value = 1.0f});
      tree.end_shard();
    }
  });
}

/// The elements are all parts' together.
void run_tree_sum(benchmark::State& state, const Machine& machine, const SumCase& c) {
  const int64_t n = c.count / c.parts;
  const Buffer all = random_buffer(c.parts * n, 1), out = random_buffer(n, 2);
  std::vector<const float*> parts;
  for (int64_t p = 0; p < c.parts; ++p) parts.push_back(all.span<float>().data() + p * n);
  const Cost cost{.flops = static_cast<double>((c.parts - 1) * n),
                  .read = as_bytes(c.parts * n),
                  .written = as_bytes(n)};
  measure(state, machine, cost,
          [&] { kernels::tree_sum(context_of(machine), {.out = elements(out), .parts = parts}); });
}

void run_fill(benchmark::State& state, const Machine& machine, const FlatCase& c) {
  const Buffer y = random_buffer(c.count, 1);
  measure(state, machine, {.written = as_bytes(c.count)},
          [&] { kernels::fill(context_of(machine), {.y = elements(y), .value = 1.0f}); });
}

void run_checksum(benchmark::State& state, const Machine& machine, const FlatCase& c) {
  const Buffer x = random_buffer(c.count, 1);
  measure(state, machine, {.flops = 2.0 * static_cast<double>(c.count), .read = as_bytes(c.count)},
          [&] {
            benchmark::DoNotOptimize(kernels::checksum(context_of(machine), {.x = elements(x)}));
          });
}

void run_max_abs(benchmark::State& state, const Machine& machine, const FlatCase& c) {
  const Buffer x = random_buffer(c.count, 1);
  measure(state, machine, {.flops = static_cast<double>(c.count), .read = as_bytes(c.count)}, [&] {
    benchmark::DoNotOptimize(kernels::max_abs(context_of(machine), {.x = elements(x)}));
  });
}

}  // namespace

void add_flat_cases(const Registry& registry) {
  const auto named = [](const char* op) {
    return [=](const auto& c) { return fmt::format("{}/N:{}", op, c.count); };
  };
  registry.add_table(kAdamwCases, kBenchForward, named("adamw_step"), run_adamw);
  registry.add_table(kSumSquaresCases, kBenchForward, named("sum_squares_chunks"), run_sum_squares);
  registry.add_table(
      kNestedSumCases, kBenchForward,
      [](const SumCase& c) { return fmt::format("nested_sum/P:{}/N:{}", c.parts, c.count); },
      run_nested_sum);
  registry.add_table(kTreeSumCases, kBenchForward, named("shard_tree_sum"), run_shard_tree);
  registry.add_table(kTreeSumCases, kBenchForward, named("tree_sum"), run_tree_sum);
  registry.add_table(kFillCases, kBenchForward, named("fill"), run_fill);
  registry.add_table(kChecksumCases, kBenchForward, named("checksum"), run_checksum);
  registry.add_table(kMaxAbsCases, kBenchForward, named("max_abs"), run_max_abs);
}

}  // namespace orrery::bench
