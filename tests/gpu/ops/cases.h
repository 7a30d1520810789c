// A row of each case table as a sequence of ops on a backend: run<Cpu> and run<Cuda>.
//
// How a table is added: a run() for its row. It makes operands by name from the Arrays,
// which give both backends the same contents and seeds (arrays.h); calls ops by
// B::name; and after each op calls step() with the op's name, where every array is kept
// or compared. Memory that only one backend lays out (packed weights, plans) comes from
// bytes() and upload(), and is not compared. Rows in bf16 do not come here: they go to
// a run_in_bf16() (bf16_*.h).
#pragma once

#include <cmath>

#include "kernels/elementwise.h"
#include "kernels/lm_head.h"
#include "tests/gpu/ops/arrays.h"
#include "tests/gpu/ops/backends.h"
#include "tests/kernels/cases/all_cases.h"

namespace orrery::ops_check {
using namespace kernels;         // NOLINT
using namespace kernels::cases;  // NOLINT

template <class B>
PackedWeight pack(Arrays& a, int64_t n, int64_t k, int64_t padding = 0) {
  const Mat<float> weight = a.mat("weight", n, k, 1.0f, padding);
  return B::pack_weight(a.ctx(), {.weight = weight, .memory = a.bytes(B::packed_bytes(n, k))});
}

template <class B>
void run(Arrays& a, const MatmulCase& c) {
  const PackedWeight weight = pack<B>(a, c.n, c.k, c.padding);
  const auto mat = [&](const char* name, int64_t rows, int64_t cols) {
    return a.mat(name, rows, cols, 1.0f, c.padding);
  };
  const Mat<float> x = mat("x", c.m, c.k), y = mat("y", c.m, c.n), dw = mat("dw", c.n, c.k);
  const Vec<float> bias = c.bias ? a.vec("bias", c.n) : Vec<float>();
  B::matmul_forward(a.ctx(),
                    {.y = y, .x = x, .weight = weight, .bias = bias, .accumulate = c.accumulate});
  a.step("matmul_forward");
  for (const bool accumulate : {true, false}) {
    B::matmul_backward_weight(a.ctx(), {.dw = dw, .dy = y, .x = x, .accumulate = accumulate});
    a.step("matmul_backward_weight");
  }
  B::matmul_backward_input(a.ctx(),
                           {.dx = x, .dy = y, .weight = weight, .accumulate = c.accumulate});
  a.step("matmul_backward_input");
}

/// Products of few rows whose inner index takes many slices.
inline constexpr MatmulCase kDeepProducts[] = {
    {{"deep_m1", kOracle}, 1, 77, 1100},
    {{"deep_m1_bias", kOracle}, 1, 61, 1096, DType::kF32, true},
    {{"deep_m7_accumulate", kOracle}, 7, 45, 900, DType::kF32, false, true, 4},
    {{"deep_m8", kOracle}, 8, 8450, 328},
    {{"deep_m8_wide", kOracle}, 8, 8461, 340},
    {{"deep_m50_bias", kOracle}, 50, 70, 500, DType::kF32, true},
    {{"deep_m64_accumulate", kOracle}, 64, 33, 1032, DType::kF32, false, true},
    {{"deep_m64_unaligned", kOracle}, 64, 33, 1026},
    {{"deep_m1_bf16", kOracle}, 1, 77, 1100, DType::kBF16},
    {{"deep_m5_bf16", kOracle}, 5, 8450, 328, DType::kBF16, false, true, 8},
    {{"deep_m16_bf16_bias", kOracle}, 16, 61, 1096, DType::kBF16, true},
    {{"deep_m96_bf16", kOracle}, 96, 1600, 72, DType::kBF16},
    {{"deep_m50_bf16", kOracle}, 50, 70, 504, DType::kBF16, false, false, 8},
    {{"deep_m64_bf16_unaligned", kOracle}, 64, 33, 1026, DType::kBF16, true, false, 1},
};

/// Sums of which many are -0, NaN or infinite, and k that no slice divides.
struct EdgeProduct : Case {
  int64_t m, n, k;
  bool zeros = false;  ///< operands are zeros of both signs, and many sums are -0
};
inline constexpr EdgeProduct kEdgeProducts[] = {
    {{"edges", kOracle}, 37, 53, 21},
    {{"edges_large", kOracle}, 260, 300, 45},
    {{"zeros", kOracle}, 37, 53, 21, true},
    {{"zeros_one_row", kOracle}, 1, 61, 40, true},
    {{"zeros_large", kOracle}, 260, 300, 45, true},
};

/// Zeros of both signs: of a row of `columns` all have one sign, or each its own.
inline std::vector<float> signed_zeros(int64_t rows, int64_t columns, uint64_t seed) {
  std::vector<float> values;
  Philox rng(seed, RngPurpose::kTest);
  for (int64_t r = 0; r < rows; ++r) {
    const auto kind = rng.below(4);  // 0: +0, 1: -0
    for (int64_t c = 0; c < columns; ++c)
      values.push_back(kind == 1 || (kind > 1 && rng.below(2) == 1) ? -0.0f : 0.0f);
  }
  return values;
}

inline std::vector<float> edge_values(int64_t count, uint64_t seed) {
  std::vector<float> values;
  Philox rng(seed, RngPurpose::kTest);
  for (int64_t i = 0; i < count; ++i) {
    const float x = rng.normal();
    switch (rng.below(12)) {
      case 0:
        values.push_back(-0.0f);
        break;
      case 1:
        values.push_back(0.0f);
        break;
      case 2:
        values.push_back(x * 1e-30f);
        break;
      case 3:
        values.push_back(x * 1e-42f);
        break;
      case 4:
        values.push_back(rng.below(40) == 0 ? INFINITY : x);
        break;
      case 5:
        values.push_back(rng.below(40) == 0 ? NAN : x);
        break;
      case 6:
        values.push_back(x * 1e25f);
        break;
      default:
        values.push_back(x * 1e-25f);
    }
  }
  return values;
}

template <class B>
void run(Arrays& a, const EdgeProduct& c) {
  const auto values = [&](int64_t rows, int64_t columns, uint64_t seed) {
    return c.zeros ? signed_zeros(rows, columns, seed) : edge_values(rows * columns, seed);
  };
  const Mat<float> w(a.of("weight", values(c.n, c.k, 1)).data, c.n, c.k);
  const PackedWeight weight =
      B::pack_weight(a.ctx(), {.weight = w, .memory = a.bytes(B::packed_bytes(c.n, c.k))});
  const Mat<float> x(a.of("x", values(c.m, c.k, 2)).data, c.m, c.k);
  const Mat<float> y(a.constant("y", c.m * c.n, -0.0f).data, c.m, c.n);
  const Mat<float> dw(a.constant("dw", c.n * c.k, -0.0f).data, c.n, c.k);
  const Mat<float> dx(a.constant("dx", c.m * c.k, -0.0f).data, c.m, c.k);
  const Mat<float> dy(a.of("dy", values(c.m, c.n, 3)).data, c.m, c.n);
  B::matmul_forward(a.ctx(), {.y = y, .x = x, .weight = weight, .accumulate = true});
  a.step("matmul_forward");
  for (const bool accumulate : {true, false}) {
    B::matmul_backward_weight(a.ctx(), {.dw = dw, .dy = dy, .x = x, .accumulate = accumulate});
    a.step("matmul_backward_weight");
  }
  B::matmul_backward_input(a.ctx(), {.dx = dx, .dy = dy, .weight = weight, .accumulate = true});
  a.step("matmul_backward_input");
}

template <class B>
void run(Arrays& a, const PackCase& c) {
  const PackedWeight weight = pack<B>(a, c.n, c.k);
  const Mat<float> y = a.mat("y", 2, c.n), x = a.mat("x", 2, c.k);
  B::matmul_forward(a.ctx(), {.y = y, .x = x, .weight = weight});
  a.step("pack_weight");
}

template <class B>
void run(Arrays& a, const BiasCase& c) {
  const Vec<float> db = a.vec("db", c.n);
  const Mat<float> dy = a.mat("dy", c.m, c.n, 1.0f, c.padding);
  for (const bool accumulate : {true, false}) {
    B::bias_backward(a.ctx(), {.db = db, .dy = dy, .accumulate = accumulate});
    a.step("bias_backward");
  }
}

template <class B>
void run(Arrays& a, const RmsnormCase& c) {
  const int64_t cols = c.heads * c.dim;
  const Mat<float> x = a.mat("x", c.tokens, cols), y = a.mat("y", c.tokens, cols),
                   h = a.mat("h", c.tokens, cols), delta = a.mat("delta", c.tokens, cols);
  const Vec<float> rstd = a.vec("rstd", c.tokens * c.heads), weight = a.vec("weight", c.dim),
                   dweight = a.vec("dweight", c.dim), wide = a.vec("wide", cols);
  B::rmsnorm_forward(
      a.ctx(), {.y = y, .rstd = rstd, .x = x, .weight = weight, .eps = 1e-5f, .heads = c.heads});
  a.step("rmsnorm_forward");
  for (const bool accumulate : {true, false}) {
    B::rmsnorm_backward(a.ctx(), {.dx = accumulate ? h : y,
                                  .dweight = dweight,
                                  .dy = y,
                                  .x = x,
                                  .rstd = rstd,
                                  .weight = weight,
                                  .accumulate = accumulate,
                                  .accumulate_dweight = accumulate,
                                  .heads = c.heads});
    a.step("rmsnorm_backward");
  }
  B::rmsnorm_residual_forward(
      a.ctx(), {.h = x, .y = y, .x = x, .delta = delta, .weight = wide, .eps = 1e-5f});
  a.step("rmsnorm_residual_forward");
}

/// Of a table of 300 positions, for rows that stand at any of them.
inline Rotation rotation_of(Arrays& a, int64_t rows, int64_t head_dim) {
  const int64_t half = head_dim / 2;
  const RopeTable table = build_rope_table({}, {.head_dim = head_dim, .scaling = {}}, 300);
  const float* const memory = table.memory.vec<float>().data;
  return {.positions = a.ids("positions", scattered_ids(rows, 300)),
          .cos = Mat<float>(a.upload(memory, 300 * half).data, 300, half),
          .sin = Mat<float>(a.upload(memory + 300 * half, 300 * half).data, 300, half)};
}

template <class B>
void run(Arrays& a, const RopeCase& c) {
  B::rope_backward(a.ctx(), {.dx = a.mat("x", c.tokens, c.heads * c.head_dim, 1.0f, 5),
                             .heads = c.heads,
                             .rotation = rotation_of(a, c.tokens, c.head_dim)});
  a.step("rope_backward");
}

template <class B>
void run(Arrays& a, const SwigluCase& c) {
  const Mat<float> gate_up = a.mat("gate_up", c.tokens, 2 * c.width, c.scale, 3),
                   out = a.mat("out", c.tokens, c.width), dout = a.mat("dout", c.tokens, c.width);
  B::swiglu_forward(a.ctx(), {.out = out, .gate_up = gate_up});
  a.step("swiglu_forward");
  B::swiglu_backward(a.ctx(), {.d_gate_up = gate_up, .dout = dout, .gate_up = gate_up});
  a.step("swiglu_backward");
}

template <class B>
void run(Arrays& a, const EmbeddingCase& c) {
  const Mat<float> table = a.mat("table", c.vocab, c.dim), rows = a.mat("rows", c.tokens, c.dim);
  const Vec<const int32_t> ids = a.ids("ids", c.ids());
  B::embedding_forward(a.ctx(), {.out = rows, .table = table, .ids = ids});
  a.step("embedding_forward");
  B::embedding_backward(a.ctx(), {.dtable = table, .dout = rows, .ids = ids});
  a.step("embedding_backward");
}

template <class B>
void run(Arrays& a, const RowsCase& c) {
  const Mat<float> all = a.mat("all", c.from_rows, c.dim, 1.0f, 2),
                   some = a.mat("some", c.count, c.dim), to = a.mat("to", c.from_rows, c.dim);
  const Vec<const int32_t> rows = a.ids("ids", c.rows());
  B::gather_rows(a.ctx(), {.to = some, .from = all, .rows = rows});
  a.step("gather_rows");
  B::scatter_add_rows(a.ctx(), {.to = all, .from = some, .rows = rows});
  a.step("scatter_add_rows");
  B::copy_rows(a.ctx(), {.to = to, .from = all});
  a.step("copy_rows");
}

template <class B>
void run(Arrays& a, const SpreadCase& c) {
  const Mat<float> y = a.mat("y", c.kSource.size(), c.dim);
  const Vec<const int32_t> source = a.ids("source", {c.kSource.begin(), c.kSource.end()});
  B::spread_rows(a.ctx(), {.y = y, .source = source});
  a.step("spread_rows");
  // More rows than a batch of the kernel, each to be spread twice.
  std::vector<int32_t> twice;
  for (int i = 0; i < 77; ++i) twice.push_back(5 + i / 2);
  const Mat<float> more = a.mat("more", std::ssize(twice), std::min<int64_t>(c.dim, 100));
  const Vec<const int32_t> ids = a.ids("twice", twice);
  B::spread_rows(a.ctx(), {.y = more, .source = ids});
  a.step("spread_rows");
}

template <class B>
void run(Arrays& a, const LogprobCase& c) {
  const Vec<const int32_t> targets = a.ids("targets", scattered_ids(c.rows, c.vocab));
  const Vec<float> max = a.vec("max", c.rows), log_sum = a.vec("log_sum", c.rows),
                   entropies = a.vec("entropies", c.rows), logprobs = a.vec("logprobs", c.rows),
                   dlogp = a.vec("dlogp", c.rows), dentropy = a.vec("dentropy", c.rows);
  const Vec<float> inv_temperature = a.constant("inv_temperature", c.rows, 1.25f),
                   zeros = a.constant("zeros", c.rows, 0.0f);
  const auto compute = [&](Mat<float> logits, Vec<float> dlogp_of, Vec<float> dentropy_of) {
    B::logprob_forward(a.ctx(), {.logprobs = logprobs,
                                 .entropies = entropies,
                                 .max = max,
                                 .log_sum = log_sum,
                                 .logits = logits,
                                 .targets = targets,
                                 .inv_temperature = inv_temperature});
    a.step("logprob_forward");
    const Mat<float> dlogits = a.mat("dlogits", c.rows, c.vocab, 1.0f, 3);
    for (const Mat<float>& to : {dlogits, logits}) {
      B::logprob_backward(a.ctx(), {.dlogits = to,
                                    .logits = logits,
                                    .targets = targets,
                                    .max = max,
                                    .log_sum = log_sum,
                                    .entropies = entropies,
                                    .dlogp = dlogp_of,
                                    .dentropy = dentropy_of,
                                    .inv_temperature = inv_temperature});
      a.step("logprob_backward");
    }
  };
  compute(a.mat("logits", c.rows, c.vocab, c.scale, 1), dlogp, dentropy);
  // Tokens that cannot be drawn, a target among them here and there, and logits that
  // are far from the largest or infinite.
  std::vector<float> values;
  Philox rng(c.seed + 1, RngPurpose::kTest);
  for (int64_t i = 0; i < c.rows * c.vocab; ++i) {
    const float x = rng.normal();
    const float edges[] = {-INFINITY, -3e38f, x * 1e4f, x * 100.0f, x, x, x};
    values.push_back(rng.below(1000) == 0 ? INFINITY : edges[rng.below(7)]);
  }
  compute(Mat<float>(a.of("edges", values).data, c.rows, c.vocab), dlogp, dentropy);
  compute(a.mat("masked", c.rows, c.vocab), zeros, zeros);
}

template <class B>
void run(Arrays& a, const LmHeadCase& c) {
  const PackedWeight weight = pack<B>(a, c.vocab, c.hidden);
  const Mat<float> hidden = a.mat("hidden", c.rows, c.hidden);
  const Vec<const int32_t> targets = a.ids("targets", scattered_ids(c.rows, c.vocab));
  const Vec<float> inv_temperature = a.constant("inv_temperature", c.rows, 1.25f),
                   logprobs = a.vec("logprobs", c.rows), entropies = a.vec("entropies", c.rows);
  const int64_t bytes = c.rows * c.vocab * 4;
  const Mat<float> logits(static_cast<float*>(a.bytes(bytes)), c.rows, c.vocab);
  B::matmul_forward(a.ctx(), {.y = logits, .x = hidden, .weight = weight});
  B::logprob_forward(a.ctx(), {.logprobs = logprobs,
                               .entropies = entropies,
                               .logits = logits,
                               .targets = targets,
                               .inv_temperature = inv_temperature});
  a.step("lm_head_logprob");
}

template <class B>
void run(Arrays& a, const SamplingCase& c) {
  std::vector<SamplingParams> params;
  std::vector<float> uniform;
  for (const float temperature : {0.0f, 0.7f, 1.0f}) {
    for (const int32_t top_k : {0, 1, 5, 50, 2000}) {
      for (const float top_p : {1.0f, 0.9f, 0.3f, 0.9999f, 0.0f}) {
        for (const float min_p : {0.0f, 0.05f}) {
          params.push_back({temperature, top_k, top_p, min_p});
          uniform.push_back(static_cast<float>(params.size() * 37 % 101) / 101.0f);
        }
      }
    }
  }
  const int64_t rows = std::ssize(params);
  const Vec<int32_t> ids = a.ids("ids", std::vector<int32_t>(params.size(), -5));
  const Mat<float> logits = a.mat("logits", rows, c.vocab, c.scale);
  const Vec<SamplingParams> device_params = a.upload(params.data(), rows);
  const Vec<float> device_uniform = a.of("uniform", uniform);
  const auto sample = [&](Mat<float> from) {
    B::sample_forward(
        a.ctx(), {.ids = ids, .logits = from, .params = device_params, .uniform = device_uniform});
    a.step("sample_forward");
  };
  sample(logits);
  // Zeros of both signs are equal logits, which rank by id.
  if (c.vocab <= 1009)
    sample({a.of("ties", signed_zeros(rows, c.vocab, c.seed)).data, rows, c.vocab});
}

inline int64_t pool_elements(const AttentionShape& shape, int64_t blocks) {
  return static_cast<int64_t>(
             kv_pool_bytes({}, DType::kF32, blocks, shape.kv_heads, shape.head_dim)) /
         4;
}

/// A pool of the layout that both backends share.
inline KvPool random_pool(Arrays& a, const AttentionShape& shape, int64_t blocks) {
  const Vec<float> memory = a.vec("pool", pool_elements(shape, blocks));
  return {memory.data, DType::kF32, blocks, shape.kv_heads, shape.head_dim};
}

/// One of which nothing may be read that was not written.
inline KvPool nan_pool(Arrays& a, const AttentionShape& shape, int64_t blocks) {
  const Vec<float> memory = a.constant("pool", pool_elements(shape, blocks), NAN);
  return {memory.data, DType::kF32, blocks, shape.kv_heads, shape.head_dim};
}

/// The CPU's plan, or one in device memory.
inline AttentionPlan plan_for(Arrays& a, Arena& arena, const AttentionShape& shape, int64_t rows,
                              int64_t blocks, const std::vector<KvSegment>& segments) {
  Context cpu = a.ctx();
  cpu.device = {};
  AttentionPlan plan = make_attention_plan(cpu, shape, rows, blocks, segments, arena);
  if (a.gpu()) {
    plan.segments = a.upload(plan.segments.data, plan.segments.size);
    plan.tables = a.upload(plan.tables.data, plan.tables.size);
    plan.cpu = nullptr;
  }
  return plan;
}

template <class B>
void run(Arrays& a, const RopeKvCase& c) {
  const KvWriteBatches all;
  const KvPool pool = nan_pool(a, c.shape, KvWriteBatches::kBlocks);
  const int64_t cols = (c.shape.heads + 2 * c.shape.kv_heads) * c.shape.head_dim;
  for (const KvWriteBatches::Batch& batch : all.batches) {
    Arena arena;
    const AttentionPlan plan =
        plan_for(a, arena, c.shape, batch.rows, KvWriteBatches::kBlocks, batch.segments);
    B::rope_kv_write(a.ctx(), {.pool = pool,
                               .qkv = a.mat("qkv", batch.rows, cols, 1.0f, c.padding),
                               .rotation = rotation_of(a, batch.rows, c.shape.head_dim),
                               .plan = plan});
    a.step("rope_kv_write");
  }
}

template <class B>
void run(Arrays& a, const AttentionCase& c) {
  Arena arena;
  const SpanLayout layout(c);
  const int64_t q_row = c.shape.heads * c.shape.head_dim;
  const int64_t kv_row = c.shape.kv_heads * c.shape.head_dim;
  const KvPool pool = nan_pool(a, c.shape, layout.blocks);
  const Mat<float> k = a.mat("k", layout.keys, kv_row, c.size), v = a.mat("v", layout.keys, kv_row);
  const Mat<float> out = a.mat("out", layout.queries, q_row),
                   lse = a.mat("lse", layout.queries, c.shape.heads),
                   q = a.mat("q", layout.queries, q_row, c.size);
  const AttentionPlan writes =
      plan_for(a, arena, c.shape, layout.keys, layout.blocks, layout.sequences);
  const AttentionPlan reads =
      plan_for(a, arena, c.shape, layout.queries, layout.blocks, layout.spans);
  B::kv_write(a.ctx(), {.pool = pool, .k = k, .v = v, .plan = writes});
  a.step("kv_write");
  B::attention_forward(a.ctx(), {.out = out,
                                 .lse = lse,
                                 .q = q,
                                 .pool = pool,
                                 .plan = reads,
                                 .scale = 1.0f / std::sqrt(static_cast<float>(c.shape.head_dim))});
  a.step("attention_forward");
}

/// Puts the segments of a case behind `segments`, which is empty; returns their rows.
inline int64_t tree_segments(const AttentionTreeCase& c, std::vector<AttentionSegment>& segments) {
  int64_t rows = 0;
  for (const Node& node : c.nodes) {
    const AttentionSegment* parent =
        node.parent < 0 ? nullptr : &segments[static_cast<size_t>(node.parent)];
    const int64_t position = parent == nullptr ? 0 : parent->position + parent->rows;
    segments.push_back({rows, node.rows, position, node.parent});
    rows += node.rows;
  }
  return rows;
}

template <class B>
void run(Arrays& a, const AttentionTreeCase& c) {
  Arena arena;
  std::vector<AttentionSegment> segments;
  const int64_t rows = tree_segments(c, segments);
  const int64_t q_row = c.shape.heads * c.shape.head_dim;
  const int64_t kv_row = c.shape.kv_heads * c.shape.head_dim;
  Context cpu = a.ctx();
  cpu.device = {};
  AttentionBackwardPlan plan = make_attention_backward_plan(cpu, c.shape, rows, segments, arena);
  if (a.gpu()) {
    plan.segments = a.upload(plan.segments.data, plan.segments.size);
    plan.cpu = nullptr;
  }
  const Mat<float> dq = a.mat("dq", rows, q_row), dk = a.mat("dk", rows, kv_row),
                   dv = a.mat("dv", rows, kv_row), lse = a.mat("lse", rows, c.shape.heads),
                   out = a.mat("out", rows, q_row);
  const auto backward = [&](Mat<float> dout, Mat<float> q, Mat<float> k, Mat<float> v) {
    B::attention_backward(a.ctx(),
                          {.dq = dq,
                           .dk = dk,
                           .dv = dv,
                           .dout = dout,
                           .out = out,
                           .q = q,
                           .k = k,
                           .v = v,
                           .lse = lse,
                           .plan = plan,
                           .scale = 1.0f / std::sqrt(static_cast<float>(c.shape.head_dim))});
    a.step("attention_backward");
  };
  backward(a.mat("dout", rows, q_row), a.mat("q", rows, q_row, c.size),
           a.mat("k", rows, kv_row, c.size), a.mat("v", rows, kv_row));
  // Zeros of both signs, denormals, and infinite keys and values at the end of
  // segments, which the queries before them do not see.
  const auto edges = [&](const char* name, int64_t cols, uint64_t seed, bool infinite) {
    std::vector<float> values;
    Philox rng(seed, RngPurpose::kTest);
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float x = rng.normal();
      const float scales[] = {-0.0f, 0.0f, 1e-42f, 1e-20f, 1.0f, 1.0f};
      values.push_back(x * scales[rng.below(6)]);
    }
    for (const AttentionSegment& s : segments) {
      if (infinite && s.rows > 1)
        values[static_cast<size_t>((s.row_begin + s.rows) * cols - 1)] = INFINITY;
    }
    return Mat<float>(a.of(name, values).data, rows, cols);
  };
  backward(edges("dout", q_row, 11, false), edges("q", q_row, 12, false),
           edges("k", kv_row, 13, true), edges("v", kv_row, 14, true));
}

template <class B>
void run(Arrays& a, const KvCopyCase& c) {
  Arena arena;
  const std::vector<BlockCopy> copies{{0, 1, c.slots}, {1, 2, c.slots}, {1, 1, 3}, {2, 0, 32}};
  const KvPool pool = random_pool(a, c.shape, 3);
  CopyPlan plan = make_copy_plan({}, 3, copies, arena);
  if (a.gpu()) plan.copies = a.upload(plan.copies.data, plan.copies.size);
  for (const bool clear_rest : {false, true}) {
    B::kv_copy(a.ctx(), {.pool = pool, .plan = plan, .clear_rest = clear_rest});
    a.step("kv_copy");
  }
}

template <class B>
void run(Arrays& a, const KvClearCase& c) {
  B::kv_clear(a.ctx(), {.pool = random_pool(a, c.shape, c.blocks)});
  a.step("kv_clear");
}

inline std::vector<const float*> parts_of(Arrays& a, const SumCase& c, int64_t count) {
  std::vector<const float*> parts;
  for (int64_t p = 0; p < c.parts; ++p) parts.push_back(a.vec("part", count).data);
  return parts;
}

/// Parts whose sum is -0 if nothing else is added to it.
inline std::vector<const float*> minus_zeros(Arrays& a, const SumCase& c, int64_t count) {
  return std::vector<const float*>(static_cast<size_t>(c.parts),
                                   a.constant("minus zero", count, -0.0f).data);
}

template <class B>
void run_tree_sum(Arrays& a, const SumCase& c) {
  for (const int64_t count : kSumCounts) {
    const std::vector<const float*> parts = parts_of(a, c, count);
    const Vec<float> out = a.vec("out", count);
    B::tree_sum(a.ctx(), {.out = out, .parts = parts});
    a.step("tree_sum");
    B::tree_sum(a.ctx(), {.out = out, .parts = minus_zeros(a, c, count)});
    a.step("tree_sum");
  }
}

template <class B>
void run_nested_sum(Arrays& a, const SumCase& c) {
  for (const int64_t count : kSumCounts) {
    const std::vector<const float*> parts = parts_of(a, c, count);
    const Vec<float> out = a.vec("out", count);
    B::nested_sum(a.ctx(), {.out = out, .parts = parts});
    a.step("nested_sum");
    // In place: the first part is `out`.
    std::vector<const float*> again = parts;
    again[0] = out.data;
    B::nested_sum(a.ctx(), {.out = out, .parts = again});
    a.step("nested_sum");
    B::nested_sum(a.ctx(), {.out = out, .parts = minus_zeros(a, c, count)});
    a.step("nested_sum");
  }
}

template <class B>
void run_fill(Arrays& a, const FlatCase& c) {
  B::fill(a.ctx(), {.y = a.vec("y", c.count), .value = 2.5f});
  a.step("fill");
}

template <class B>
void run_checksum(Arrays& a, const FlatCase& c) {
  const FletcherSums sums = B::checksum(a.ctx(), {.x = a.vec("x", c.count)});
  a.ids("low", {static_cast<int32_t>(sums.low), static_cast<int32_t>(sums.low >> 32)});
  a.ids("high", {static_cast<int32_t>(sums.high), static_cast<int32_t>(sums.high >> 32)});
  a.step("checksum");
}

template <class B>
void run_max_abs(Arrays& a, const FlatCase& c) {
  a.answer("max", B::max_abs(a.ctx(), {.x = a.vec("x", c.count)}));
  a.step("max_abs");
}

template <class B>
void run_adamw(Arrays& a, const FlatCase& c) {
  const Vec<float> w = a.vec("w", c.count), m = a.vec("m", c.count),
                   v = a.constant("v", c.count, 0.25f), grad = a.vec("grad", c.count);
  B::adamw_step(a.ctx(), {.w = w, .m = m, .v = v, .grad = grad, .t = 3, .grad_scale = 0.5f});
  a.step("adamw_step");
}

template <class B>
void run_sum_squares(Arrays& a, const FlatCase& c) {
  const Vec<float> sums = a.vec("sums", (c.count + kNormChunk - 1) / kNormChunk),
                   x = a.vec("x", c.count);
  B::sum_squares_chunks(a.ctx(), {.sums = sums, .x = x});
  a.step("sum_squares_chunks");
}

}  // namespace orrery::ops_check
