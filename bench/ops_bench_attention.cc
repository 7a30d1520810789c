// Attention: decoding over paged keys and values, prefill, the training forward and
// backward over trees of segments, and writing and copying blocks. Where the keys and
// values of all layers together are more than the caches hold, each call of a decoding
// step takes another layer's pool, so that they come from memory.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <type_traits>

#include "bench/ops_bench.h"
#include "bench/turns.h"
#include "kernels/attention.h"
#include "tests/kernels/cases/attention_backward_pairs_cases.h"
#include "tests/kernels/cases/attention_cases.h"

namespace orrery::bench {
namespace {

using namespace kernels::cases;

/// Segments of a batch and their block tables. The whole blocks of a prompt are its
/// samples' too.
struct Paged {
  std::deque<std::vector<int32_t>> tables;
  std::vector<kernels::KvSegment> segments;
  int32_t blocks = 0;

  /// Grows a table to hold `tokens`.
  void grow(std::vector<int32_t>& table, int64_t tokens) {
    while (static_cast<int64_t>(table.size()) * kernels::kKvBlock < tokens)
      table.push_back(blocks++);
  }
};

/// One row per sequence, the last of `context` tokens. Blocks are taken in the order in
/// which sequences that grow side by side take them.
Paged decode_batch(const AttentionBatchCase& groups) {
  const int64_t context = groups.context;
  Paged batch;
  for (int64_t g = 0; g < groups.groups; ++g) {
    std::vector<int32_t> prompt;
    batch.grow(prompt, groups.prompt / kernels::kKvBlock * kernels::kKvBlock);
    for (int64_t s = 0; s < groups.samples; ++s) batch.tables.push_back(prompt);
  }
  for (int64_t tokens = kernels::kKvBlock; tokens < context + kernels::kKvBlock;
       tokens += kernels::kKvBlock) {
    for (std::vector<int32_t>& table : batch.tables) batch.grow(table, std::min(tokens, context));
  }
  for (const std::vector<int32_t>& table : batch.tables) {
    batch.segments.push_back({static_cast<int64_t>(batch.segments.size()), 1, context - 1, table});
  }
  return batch;
}

/// All tokens of the groups: the prompt's, then each sample's.
Paged training_batch(const AttentionBatchCase& groups) {
  Paged batch;
  int64_t row = 0;
  const auto add = [&](std::vector<int32_t> table, int64_t position, int64_t rows) {
    batch.grow(table, position + rows);
    batch.tables.push_back(std::move(table));
    batch.segments.push_back({row, rows, position, batch.tables.back()});
    row += rows;
  };
  for (int64_t g = 0; g < groups.groups; ++g) {
    std::vector<int32_t> shared;
    if (groups.prompt > 0) {
      add({}, 0, groups.prompt);
      shared = batch.tables.back();
      shared.resize(static_cast<size_t>(groups.prompt / kernels::kKvBlock));
    }
    for (int64_t s = 0; s < groups.samples; ++s) add(shared, groups.prompt, groups.rows);
  }
  return batch;
}

Paged batch_of(const AttentionBatchCase& groups) {
  return groups.context > 0 ? decode_batch(groups) : training_batch(groups);
}

/// (query, key) pairs that a batch looks at.
double pairs_of(std::span<const kernels::KvSegment> segments) {
  double pairs = 0;
  for (const kernels::KvSegment& s : segments) {
    pairs += static_cast<double>(s.rows) *
             (static_cast<double>(s.position) + 0.5 * static_cast<double>(s.rows + 1));
  }
  return pairs;
}

/// Random elements of `dtype`.
struct Elements {
  Buffer memory;
  DType dtype;

  Elements(DType type, int64_t count, uint32_t seed)
      : memory(random_buffer(count, seed)), dtype(type) {
    if (dtype == DType::kF32) return;
    Buffer rounded(Device{}, static_cast<size_t>(count) * sizeof(Bf16));
    std::ranges::transform(memory.span<float>(), rounded.span<Bf16>().begin(), to_bf16);
    memory = std::move(rounded);
  }
  ActMat mat(int64_t rows, int64_t cols) const { return {memory.data(), dtype, rows, cols, cols}; }
};

double bytes_of(DType dtype, int64_t elements) {
  return static_cast<double>(elements) * static_cast<double>(dtype_bytes(dtype));
}

/// Pools of keys and values, one for each layer walked through.
struct Pools {
  std::vector<Elements> memory;
  std::vector<kernels::KvPool> pools;

  Pools(DType dtype, const ModelShape& model, int64_t blocks, int64_t copies) {
    const size_t bytes = kernels::kv_pool_bytes({}, dtype, blocks, model.kv_heads, model.head_dim);
    for (int64_t i = 0; i < copies; ++i) {
      memory.emplace_back(dtype, static_cast<int64_t>(bytes / dtype_bytes(dtype)),
                          static_cast<uint32_t>(i));
      pools.push_back(kernels::make_kv_pool({}, dtype, blocks, model.kv_heads, model.head_dim,
                                            memory.back().memory.data()));
    }
  }
};

float scale_of(const ModelShape& model) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(model.head_dim)));
}

/// `kv_tokens`: keys and values that are there, shared ones once.
void run_forward(benchmark::State& state, const Machine& machine, const ModelShape& model,
                 DType dtype, const Paged& batch, int64_t kv_tokens, bool cold, bool lse) {
  int64_t rows = 0;
  for (const kernels::KvSegment& s : batch.segments) rows += s.rows;
  Cost cost;
  cost.flops = 4.0 * pairs_of(batch.segments) * static_cast<double>(model.q_size());
  const double kv_bytes = bytes_of(dtype, kv_tokens * 2 * model.kv_size()),
               q_bytes = bytes_of(dtype, rows * model.q_size());
  cost.read = kv_bytes + q_bytes;
  cost.written = q_bytes + (lse ? as_bytes(rows * model.heads) : 0.0);
  const int64_t copies = cold ? cold_copies(model, kv_bytes) : 1;
  cost.working_set = kv_bytes * static_cast<double>(copies) + q_bytes + cost.written;

  const Context ctx = context_of(machine);
  const Pools pools(dtype, model, batch.blocks, copies);
  const Elements qkv(dtype, rows * model.qkv_size(), 1), out(dtype, rows * model.q_size(), 2);
  const Buffer lse_memory = random_buffer(rows * model.heads, 3);
  const ActMat qkv_mat = qkv.mat(rows, model.qkv_size()), out_mat = out.mat(rows, model.q_size());
  const Mat<float> lse_mat =
      lse ? Mat<float>(lse_memory.span<float>().data(), rows, model.heads) : Mat<float>();
  Arena arena;
  const kernels::AttentionPlan plan = kernels::make_attention_plan(
      ctx, attention_shape(model), rows, batch.blocks, batch.segments, arena);
  size_t turn = 0;
  measure(state, machine, cost, [&] {
    kernels::attention_forward(ctx, {.out = out_mat,
                                     .lse = lse_mat,
                                     .q = qkv_mat.col_range(0, model.q_size()),
                                     .pool = pools.pools[turn++ % pools.pools.size()],
                                     .plan = plan,
                                     .scale = scale_of(model)});
  });
}

/// Random elements of T.
template <class T>
Buffer random_elements(int64_t count, uint32_t seed) {
  Buffer values = random_buffer(count, seed);
  if constexpr (std::is_same_v<T, float>) {
    return values;
  } else {
    Buffer rounded(Device{}, static_cast<size_t>(count) * sizeof(T));
    std::ranges::transform(values.span<float>(), rounded.span<T>().begin(), to_bf16);
    return rounded;
  }
}

/// Of elements of T.
template <class T>
void run_backward(benchmark::State& state, const Machine& machine, const ModelShape& model,
                  const AttentionBatchCase& groups) {
  const Paged batch = training_batch(groups);
  std::vector<kernels::AttentionSegment> segments;
  int32_t prompt = -1;
  for (const kernels::KvSegment& s : batch.segments) {
    if (s.position == 0) prompt = static_cast<int32_t>(segments.size());
    segments.push_back({s.row_begin, s.rows, s.position, s.position == 0 ? -1 : prompt});
  }
  const int64_t rows = groups.tokens();
  const Buffer qkv = random_elements<T>(rows * model.qkv_size(), 1),
               dqkv = random_elements<T>(rows * model.qkv_size(), 2);
  const Buffer out = random_elements<T>(rows * model.q_size(), 3),
               dout = random_elements<T>(rows * model.q_size(), 4);
  const Buffer lse(Device{}, static_cast<size_t>(rows * model.heads) * sizeof(float));
  // As after about a hundred keys.
  std::fill(lse.span<float>().begin(), lse.span<float>().end(), 5.0f);
  const auto part = [&](const Buffer& buffer, int64_t column, int64_t columns) {
    const Mat<T> all(buffer.span<T>().data(), rows, model.qkv_size());
    return all.col_range(column, column + columns);
  };
  const auto whole = [&](const Buffer& buffer) {
    return Mat<T>(buffer.span<T>().data(), rows, model.q_size());
  };
  Cost cost;
  cost.flops = 10.0 * pairs_of(batch.segments) * static_cast<double>(model.q_size());
  constexpr double kShare = static_cast<double>(sizeof(T)) / sizeof(float);
  cost.read = as_bytes(rows * (model.qkv_size() + 2 * model.q_size())) * kShare +
              as_bytes(rows * model.heads);
  cost.written = as_bytes(rows * model.qkv_size()) * kShare;
  const int64_t k_at = model.q_size(), v_at = model.q_size() + model.kv_size();
  const Context ctx = context_of(machine);
  Arena arena;
  const kernels::AttentionBackwardPlan plan =
      kernels::make_attention_backward_plan(ctx, attention_shape(model), rows, segments, arena);
  measure(state, machine, cost, [&] {
    kernels::attention_backward(
        ctx, {.dq = part(dqkv, 0, model.q_size()),
              .dk = part(dqkv, k_at, model.kv_size()),
              .dv = part(dqkv, v_at, model.kv_size()),
              .dout = whole(dout),
              .out = whole(out),
              .q = part(qkv, 0, model.q_size()),
              .k = part(qkv, k_at, model.kv_size()),
              .v = part(qkv, v_at, model.kv_size()),
              .lse = Mat<const float>(lse.span<float>().data(), rows, model.heads),
              .plan = plan,
              .scale = scale_of(model)});
  });
}

void run_kv_write(benchmark::State& state, const Machine& machine, const ModelShape& model,
                  DType dtype, const Paged& batch) {
  int64_t rows = 0;
  for (const kernels::KvSegment& s : batch.segments) rows += s.rows;
  const Context ctx = context_of(machine);
  const Pools pools(dtype, model, batch.blocks, 1);
  const Elements qkv(dtype, rows * model.qkv_size(), 1);
  const ActMat all = qkv.mat(rows, model.qkv_size());
  const double bytes = bytes_of(dtype, rows * 2 * model.kv_size());
  const int64_t k_at = model.q_size(), v_at = k_at + model.kv_size();
  Arena arena;
  const kernels::AttentionPlan plan = kernels::make_attention_plan(
      ctx, attention_shape(model), rows, batch.blocks, batch.segments, arena);
  measure(state, machine, {.read = bytes, .written = bytes}, [&] {
    kernels::kv_write(ctx, {.pool = pools.pools[0],
                            .k = all.col_range(k_at, v_at),
                            .v = all.col_range(v_at, v_at + model.kv_size()),
                            .plan = plan});
  });
}

/// The same keys and values, which are rotated first, as the queries beside them are.
void run_rope_kv_write(benchmark::State& state, const Machine& machine, const ModelShape& model,
                       DType dtype, const Paged& batch) {
  std::vector<int32_t> positions;
  for (const kernels::KvSegment& s : batch.segments) {
    for (int64_t i = 0; i < s.rows; ++i) positions.push_back(static_cast<int32_t>(s.position + i));
  }
  const int64_t rows = std::ssize(positions);
  const Context ctx = context_of(machine);
  const Pools pools(dtype, model, batch.blocks, 1);
  const Elements qkv(dtype, rows * model.qkv_size(), 1);
  const kernels::RopeTable table =
      kernels::build_rope_table({}, {.head_dim = model.head_dim, .scaling = {}}, 2048);
  const double rotated = bytes_of(dtype, rows * (model.q_size() + model.kv_size())),
               values = bytes_of(dtype, rows * model.kv_size());
  const kernels::Rotation rotation{
      .positions = {positions.data(), rows}, .cos = table.cos, .sin = table.sin};
  Arena arena;
  const kernels::AttentionPlan plan = kernels::make_attention_plan(
      ctx, attention_shape(model), rows, batch.blocks, batch.segments, arena);
  const Cost cost{.flops = 3.0 * static_cast<double>(rows * (model.q_size() + model.kv_size())),
                  .read = rotated + values + as_bytes(rows * model.head_dim),
                  .written = rotated + 2 * values};
  measure(state, machine, cost, [&] {
    kernels::rope_kv_write(ctx, {.pool = pools.pools[0],
                                 .qkv = qkv.mat(rows, model.qkv_size()),
                                 .rotation = rotation,
                                 .plan = plan});
  });
}

void run_kv_copy(benchmark::State& state, const Machine& machine, const KvCopyCase& c) {
  const Context ctx = context_of(machine);
  const Pools pools(DType::kF32, *c.model, 2, 1);
  const double bytes = as_bytes(c.slots * 2 * c.model->kv_size());
  Arena arena;
  const std::vector<kernels::BlockCopy> copies{{0, 1, c.slots}};
  const kernels::CopyPlan plan = kernels::make_copy_plan(ctx, 2, copies, arena);
  measure(state, machine, {.read = bytes, .written = bytes},
          [&] { kernels::kv_copy(ctx, {.pool = pools.pools[0], .plan = plan}); });
}

void run_kv_clear(benchmark::State& state, const Machine& machine, const KvClearCase& c) {
  const Pools pools(DType::kF32, *c.model, c.blocks, 1);
  measure(state, machine, {.written = static_cast<double>(pools.memory[0].memory.bytes())},
          [&] { kernels::kv_clear(context_of(machine), {.pool = pools.pools[0]}); });
}

std::string describe_runs(const AttentionBatchCase& c) {
  return c.prompt > 0 ? fmt::format("{}x({}+{}x{})", c.groups, c.prompt, c.samples, c.rows)
                      : fmt::format("{}x{}", c.sequences(), c.rows);
}

/// What follows a case's name where its element type is not f32.
std::string type_of(const AttentionBatchCase& c) {
  return c.dtype == DType::kF32 ? "" : fmt::format("/{}", dtype_name(c.dtype));
}

/// The op and the batch.
std::string describe(const AttentionBatchCase& c) {
  if (c.context > 0) {
    const std::string name = fmt::format("attention_decode/B:{}/T:{}", c.sequences(), c.context);
    if (c.prompt == 0) return name;
    return fmt::format("{}/groups:{}/shared:{}", name, c.groups, c.prompt);
  }
  const char* op = c.samples > 1 ? "attention_forward_train" : "attention_forward";
  return fmt::format("{}/{}", op, describe_runs(c));
}

/// `kv_tokens` of run_forward.
int64_t kv_tokens_of(const AttentionBatchCase& c) {
  if (c.context == 0) return c.tokens();
  return c.groups * c.prompt + c.sequences() * (c.context - c.prompt);
}

}  // namespace

void add_attention_cases(const Registry& registry) {
  for (const ModelShape* model : kModels) {
    const auto add = [&](const std::string& name, auto run) {
      registry.add(
          fmt::format("{}/{}", model->name, name),
          [=](benchmark::State& state, const Machine& machine) { run(state, machine, *model); });
    };
    using State = benchmark::State;
    for (const AttentionBatchCase& c : cases_for(kAttentionBatchCases, kBench)) {
      const bool decode = c.context > 0, training = !decode && c.samples > 1;
      add(describe(c) + type_of(c), [=](State& state, const Machine& machine,
                                        const ModelShape& shape) {
        run_forward(state, machine, shape, c.dtype, batch_of(c), kv_tokens_of(c), decode, training);
      });
      if ((c.use & kBenchBackward) == 0) continue;
      add(fmt::format("attention_backward/{}", describe_runs(c)),
          [=](State& state, const Machine& machine, const ModelShape& shape) {
            run_backward<float>(state, machine, shape, c);
          });
    }
    for (const AttentionBatchCase& c : cases_for(kAttentionPairsBatchCases, kBenchBackward)) {
      add(fmt::format("attention_backward_bf16/{}", describe_runs(c)),
          [=](State& state, const Machine& machine, const ModelShape& shape) {
            run_backward<Bf16>(state, machine, shape, c);
          });
    }
    for (const AttentionBatchCase& c : cases_for(kKvWriteCases, kBench)) {
      const std::string batch = (c.context > 0 ? fmt::format("kv_write/B:{}", c.sequences())
                                               : fmt::format("kv_write/T:{}", c.tokens())) +
                                type_of(c);
      add(batch, [=](State& state, const Machine& machine, const ModelShape& shape) {
        run_kv_write(state, machine, shape, c.dtype, batch_of(c));
      });
      add("rope_" + batch, [=](State& state, const Machine& machine, const ModelShape& shape) {
        run_rope_kv_write(state, machine, shape, c.dtype, batch_of(c));
      });
    }
  }
  registry.add_table(
      kKvCopyCases, kBench, [](const KvCopyCase&) { return std::string("kv_copy"); }, run_kv_copy);
  registry.add_table(
      kKvClearCases, kBench,
      [](const KvClearCase& c) { return fmt::format("kv_clear/blocks:{}", c.blocks); },
      run_kv_clear);
}

}  // namespace orrery::bench
