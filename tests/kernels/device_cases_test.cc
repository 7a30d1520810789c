// Every row of every case table that is for an oracle, on the debug device and on the
// one that ORRERY_TEST_DEVICE names: the bits are the CPU's. On the debug device an
// access by the host outside an op, an upload or a download would end the process.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/lm_head.h"
#include "kernels/logprob.h"
#include "kernels/matmul.h"
#include "kernels/reductions.h"
#include "kernels/rmsnorm.h"
#include "kernels/rope.h"
#include "kernels/rows.h"
#include "kernels/swiglu.h"
#include "tests/kernels/cases/all_cases.h"
#include "tests/kernels/device_arrays.h"

namespace orrery::kernels {
namespace {
using namespace cases;
using kernel_testing::DeviceArrays;
using kernel_testing::other_devices;
using kernel_testing::same_bits;

/// CUDA has no kernels for bf16: where ORRERY_TEST_DEVICE names it, f32 is compared
/// alone.
bool with_bf16() { return testing_support::test_dtypes().size() > 1; }

/// Numbers that ops return, and ids that they draw.
using Answers = std::vector<double>;

void run(DeviceArrays& a, const RmsnormCase& c, Answers&) {
  const int64_t cols = c.heads * c.dim;
  const bool bf16 = c.dtype == DType::kBF16;
  const Mat<float> x = a.mat(c.tokens, cols), h = a.mat(c.tokens, cols);
  const ActMat y = a.act_mat(c.dtype, c.tokens, cols);
  const Vec<float> rstd = a.vec(c.tokens * c.heads), weight = a.vec(c.dim), dweight = a.vec(c.dim);
  const RmsnormForward forward{
      .y = y, .rstd = rstd, .x = x, .weight = weight, .eps = 1e-5f, .heads = c.heads};
  rmsnorm_forward(a.ctx(), forward);
  rmsnorm_backward(a.ctx(), {.dx = h,
                             .dx_rounded = bf16 ? y : ActMat(),
                             .dweight = dweight,
                             .dy = a.mat(c.tokens, cols),
                             .x = x,
                             .rstd = rstd,
                             .weight = weight,
                             .accumulate = true,
                             .heads = c.heads});
  if (bf16) {
    RmsnormForward in_place = forward;
    in_place.x = y;
    rmsnorm_forward(a.ctx(), in_place);
    const ActMat dx = a.act_mat(c.dtype, c.tokens, cols);
    rmsnorm_backward(a.ctx(), {.dx = dx,
                               .dweight = dweight,
                               .dy = dx,
                               .x = y,
                               .rstd = rstd,
                               .weight = weight,
                               .accumulate_dweight = false,
                               .heads = c.heads});
  }
  rmsnorm_residual_forward(a.ctx(), {.h = h,
                                     .y = a.act_mat(c.dtype, c.tokens, cols),
                                     .x = x,
                                     .delta = a.mat(c.tokens, cols),
                                     .weight = a.vec(cols),
                                     .eps = 1e-5f});
}

void run(DeviceArrays& a, const RopeCase& c, Answers&) {
  const RopeTable table =
      build_rope_table(a.ctx().device, {.head_dim = c.head_dim, .scaling = {}}, 300);
  rope_backward(a.ctx(), {.dx = a.act_mat(c.dtype, c.tokens, c.heads * c.head_dim),
                          .heads = c.heads,
                          .rotation = {.positions = a.ids(scattered_ids(c.tokens, 300)),
                                       .cos = table.cos,
                                       .sin = table.sin}});
}

void run(DeviceArrays& a, const SwigluCase& c, Answers&) {
  const ActMat gate_up = a.act_mat(c.dtype, c.tokens, 2 * c.width, c.scale);
  swiglu_forward(a.ctx(), {.out = a.act_mat(c.dtype, c.tokens, c.width), .gate_up = gate_up});
  swiglu_backward(a.ctx(), {.d_gate_up = a.act_mat(c.dtype, c.tokens, 2 * c.width),
                            .dout = a.act_mat(c.dtype, c.tokens, c.width),
                            .gate_up = gate_up});
}

void run(DeviceArrays& a, const EmbeddingCase& c, Answers&) {
  const Mat<float> table = a.mat(c.vocab, c.dim), rows = a.mat(c.tokens, c.dim);
  const Vec<const int32_t> ids = a.ids(c.ids());
  embedding_forward(a.ctx(), {.out = rows, .table = table, .ids = ids});
  embedding_backward(a.ctx(), {.dtable = table, .dout = rows, .ids = ids});
}

void run(DeviceArrays& a, const RowsCase& c, Answers&) {
  const Mat<float> all = a.mat(c.from_rows, c.dim), some = a.mat(c.count, c.dim);
  const Vec<const int32_t> rows = a.ids(c.rows());
  gather_rows(a.ctx(), {.to = some, .from = all, .rows = rows});
  scatter_add_rows(a.ctx(), {.to = all, .from = some, .rows = rows});
  copy_rows(a.ctx(), {.to = a.mat(c.from_rows, c.dim), .from = all});
  if (!with_bf16()) return;
  const ActMat narrow = a.act_mat(DType::kBF16, c.from_rows, c.dim);
  round_rows(a.ctx(), {.to = narrow, .from = all});
  gather_rows(a.ctx(),
              {.to = a.act_mat(DType::kBF16, c.count, c.dim), .from = narrow, .rows = rows});
  copy_rows(a.ctx(), {.to = a.act_mat(DType::kBF16, c.from_rows, c.dim), .from = narrow});
}

void run(DeviceArrays& a, const SpreadCase& c, Answers&) {
  spread_rows(a.ctx(), {.y = a.mat(c.kSource.size(), c.dim),
                        .source = a.ids({c.kSource.begin(), c.kSource.end()})});
}

PackedWeight pack(DeviceArrays& a, int64_t n, int64_t k, DType dtype, int64_t padding = 0) {
  const auto bytes = static_cast<int64_t>(packed_weight_bytes(a.ctx().device, dtype, n, k));
  return pack_weight(a.ctx(), {.weight = a.mat(n, k, 1.0f, padding),
                               .dtype = dtype,
                               .memory = a.arena().alloc<char>(bytes)});
}

void run(DeviceArrays& a, const MatmulCase& c, Answers&) {
  const PackedWeight weight = pack(a, c.n, c.k, c.dtype, c.padding);
  const auto sums = [&](int64_t rows, int64_t cols) { return a.mat(rows, cols, 1.0f, c.padding); };
  const auto operand = [&](int64_t rows, int64_t cols) -> ActMat {
    if (c.dtype == DType::kBF16) return a.act_mat(c.dtype, rows, cols);
    return sums(rows, cols);
  };
  const ActMat x = operand(c.m, c.k), dy = operand(c.m, c.n);
  matmul_forward(a.ctx(), {.y = sums(c.m, c.n),
                           .x = x,
                           .weight = weight,
                           .bias = c.bias ? a.vec(c.n) : Vec<float>(),
                           .accumulate = c.accumulate});
  const std::vector<int64_t> run_ends(c.run_ends.begin(), c.run_ends.end());
  for (const bool accumulate : {true, false}) {
    matmul_backward_weight(
        a.ctx(),
        {.dw = sums(c.n, c.k), .dy = dy, .x = x, .run_ends = run_ends, .accumulate = accumulate});
  }
  matmul_backward_input(
      a.ctx(), {.dx = sums(c.m, c.k), .dy = dy, .weight = weight, .accumulate = c.accumulate});
}

void run(DeviceArrays& a, const PackCase& c, Answers&) {
  for (const DType dtype : testing_support::test_dtypes()) {
    const PackedWeight weight = pack(a, c.n, c.k, dtype);
    matmul_forward(a.ctx(), {.y = a.mat(2, c.n), .x = a.act_mat(dtype, 2, c.k), .weight = weight});
  }
}

void run(DeviceArrays& a, const BiasCase& c, Answers&) {
  bias_backward(a.ctx(), {.db = a.vec(c.n), .dy = a.mat(c.m, c.n, 1.0f, c.padding)});
  for (const DType dtype : testing_support::test_dtypes()) {
    bias_backward(a.ctx(),
                  {.db = a.vec(c.n), .dy = a.act_mat(dtype, c.m, c.n), .accumulate = false});
  }
}

void run(DeviceArrays& a, const LogprobCase& c, Answers&) {
  const Mat<float> logits = a.mat(c.rows, c.vocab, c.scale);
  const Vec<const int32_t> targets = a.ids(scattered_ids(c.rows, c.vocab));
  const Vec<float> max = a.vec(c.rows), log_sum = a.vec(c.rows), entropies = a.vec(c.rows);
  const Vec<float> inv_temperature = a.constant(c.rows, 1.25f);
  logprob_forward(a.ctx(), {.logprobs = a.vec(c.rows),
                            .entropies = entropies,
                            .max = max,
                            .log_sum = log_sum,
                            .logits = logits,
                            .targets = targets,
                            .inv_temperature = inv_temperature});
  logprob_backward(a.ctx(), {.dlogits = a.act_mat(c.dtype, c.rows, c.vocab),
                             .logits = logits,
                             .targets = targets,
                             .max = max,
                             .log_sum = log_sum,
                             .entropies = entropies,
                             .dlogp = a.vec(c.rows),
                             .dentropy = a.vec(c.rows),
                             .inv_temperature = inv_temperature});
}

void run(DeviceArrays& a, const LmHeadCase& c, Answers&) {
  const PackedWeight weight = pack(a, c.vocab, c.hidden, c.dtype);
  lm_head_logprob(a.ctx(),
                  {.hidden = a.act_mat(c.dtype, c.rows, c.hidden),
                   .weight = weight,
                   .targets = a.ids(scattered_ids(c.rows, c.vocab)),
                   .inv_temperature = a.constant(c.rows, 1.25f),
                   .logprobs = a.vec(c.rows),
                   .entropies = a.vec(c.rows)},
                  a.arena());
}

void run(DeviceArrays& a, const SamplingCase& c, Answers& answers) {
  std::vector<SamplingParams> params;
  std::vector<float> uniform;
  for (const Sampler& sampler : kSamplers) {
    params.push_back(sampler.params);
    uniform.push_back(static_cast<float>(uniform.size()) / std::size(kSamplers));
  }
  const int64_t rows = std::ssize(params);
  const Vec<int32_t> ids = a.upload(std::vector<int32_t>(params.size(), -5));
  sample_forward(a.ctx(), {.ids = ids,
                           .logits = a.mat(rows, c.vocab, c.scale),
                           .params = a.upload(params),
                           .uniform = a.upload(uniform)});
  for (const int32_t id : a.download(ids)) answers.push_back(id);
}

KvPool random_pool(DeviceArrays& a, const AttentionShape& shape, int64_t blocks, DType dtype) {
  const auto bytes = static_cast<int64_t>(
      kv_pool_bytes(a.ctx().device, dtype, blocks, shape.kv_heads, shape.head_dim));
  const ActMat memory = a.act_mat(dtype, 1, bytes / static_cast<int64_t>(dtype_bytes(dtype)));
  return make_kv_pool(a.ctx().device, dtype, blocks, shape.kv_heads, shape.head_dim, memory.data);
}

/// What was written is read by attention, too.
void run(DeviceArrays& a, const RopeKvCase& c, Answers&) {
  const RopeTable table =
      build_rope_table(a.ctx().device, {.head_dim = c.shape.head_dim, .scaling = {}}, 300);
  const int64_t q = c.shape.heads * c.shape.head_dim, kv = c.shape.kv_heads * c.shape.head_dim;
  const KvWriteBatches all;
  const KvPool pool = random_pool(a, c.shape, KvWriteBatches::kBlocks, c.dtype);
  kv_clear(a.ctx(), {.pool = pool});
  for (const KvWriteBatches::Batch& batch : all.batches) {
    const ActMat qkv = a.act_mat(c.dtype, batch.rows, q + 2 * kv);
    const AttentionPlan plan = make_attention_plan(
        a.ctx(), c.shape, batch.rows, KvWriteBatches::kBlocks, batch.segments, a.arena());
    rope_kv_write(a.ctx(), {.pool = pool,
                            .qkv = qkv,
                            .rotation = {.positions = a.ids(scattered_ids(batch.rows, 300)),
                                         .cos = table.cos,
                                         .sin = table.sin},
                            .plan = plan});
    attention_forward(a.ctx(), {.out = a.act_mat(c.dtype, batch.rows, q),
                                .lse = a.mat(batch.rows, c.shape.heads),
                                .q = qkv.col_range(0, q),
                                .pool = pool,
                                .plan = plan,
                                .scale = 0.25f});
  }
}

/// Writes the keys and values of whole sequences, then computes their spans.
template <DType kType>
void run_attention(DeviceArrays& a, const AttentionCase& c, Answers&) {
  const SpanLayout layout(c);
  const auto plan_of = [&](int64_t rows, const std::vector<KvSegment>& segments) {
    return make_attention_plan(a.ctx(), c.shape, rows, layout.blocks, segments, a.arena());
  };
  const int64_t q_row = c.shape.heads * c.shape.head_dim;
  const int64_t kv_row = c.shape.kv_heads * c.shape.head_dim;
  const KvPool pool = random_pool(a, c.shape, layout.blocks, kType);
  kv_write(a.ctx(), {.pool = pool,
                     .k = a.act_mat(kType, layout.keys, kv_row, c.size),
                     .v = a.act_mat(kType, layout.keys, kv_row),
                     .plan = plan_of(layout.keys, layout.sequences)});
  attention_forward(a.ctx(), {.out = a.act_mat(kType, layout.queries, q_row),
                              .lse = a.mat(layout.queries, c.shape.heads),
                              .q = a.act_mat(kType, layout.queries, q_row, c.size),
                              .pool = pool,
                              .plan = plan_of(layout.queries, layout.spans),
                              .scale = 1.0f / std::sqrt(static_cast<float>(c.shape.head_dim))});
}

template <DType kType>
void run_attention_tree(DeviceArrays& a, const AttentionTreeCase& c, Answers&) {
  std::vector<AttentionSegment> segments;
  int64_t rows = 0;
  for (const Node& node : c.nodes) {
    const AttentionSegment* parent = node.parent < 0 ? nullptr : &segments[node.parent];
    const int64_t position = parent == nullptr ? 0 : parent->position + parent->rows;
    segments.push_back({rows, node.rows, position, node.parent});
    rows += node.rows;
  }
  const int64_t q_row = c.shape.heads * c.shape.head_dim;
  const int64_t kv_row = c.shape.kv_heads * c.shape.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(c.shape.head_dim));
  attention_backward(
      a.ctx(), {.dq = a.act_mat(kType, rows, q_row),
                .dk = a.act_mat(kType, rows, kv_row),
                .dv = a.act_mat(kType, rows, kv_row),
                .dout = a.act_mat(kType, rows, q_row),
                .out = a.act_mat(kType, rows, q_row),
                .q = a.act_mat(kType, rows, q_row, c.size),
                .k = a.act_mat(kType, rows, kv_row, c.size),
                .v = a.act_mat(kType, rows, kv_row),
                .lse = a.mat(rows, c.shape.heads),
                .plan = make_attention_backward_plan(a.ctx(), c.shape, rows, segments, a.arena()),
                .scale = scale});
}

void run(DeviceArrays& a, const KvCopyCase& c, Answers&) {
  const std::vector<BlockCopy> copies{{0, 1, c.slots}};
  for (const DType dtype : testing_support::test_dtypes()) {
    for (const bool clear_rest : {false, true}) {
      kv_copy(a.ctx(), {.pool = random_pool(a, c.shape, 2, dtype),
                        .plan = make_copy_plan(a.ctx(), 2, copies, a.arena()),
                        .clear_rest = clear_rest});
    }
  }
}

void run(DeviceArrays& a, const KvClearCase& c, Answers&) {
  for (const DType dtype : testing_support::test_dtypes())
    kv_clear(a.ctx(), {.pool = random_pool(a, c.shape, c.blocks, dtype)});
}

std::vector<const float*> parts_of(DeviceArrays& a, const SumCase& c, int64_t count) {
  std::vector<const float*> parts;
  for (int64_t p = 0; p < c.parts; ++p) parts.push_back(a.vec(count).data);
  return parts;
}

void run_nested_sum(DeviceArrays& a, const SumCase& c, Answers&) {
  for (const int64_t count : kSumCounts) {
    const std::vector<const float*> parts = parts_of(a, c, count);
    nested_sum(a.ctx(), {.out = a.vec(count), .parts = parts});
  }
}

void run_tree_sum(DeviceArrays& a, const SumCase& c, Answers&) {
  for (const int64_t count : kSumCounts) {
    const std::vector<const float*> parts = parts_of(a, c, count);
    tree_sum(a.ctx(), {.out = a.vec(count), .parts = parts});
  }
}

void run_fill(DeviceArrays& a, const FlatCase& c, Answers&) {
  fill(a.ctx(), {.y = a.vec(c.count), .value = 2.5f});
}

void run_checksum(DeviceArrays& a, const FlatCase& c, Answers& answers) {
  const FletcherSums sums = checksum(a.ctx(), {.x = a.vec(c.count)});
  answers.push_back(static_cast<double>(sums.low));
  answers.push_back(static_cast<double>(sums.high));
}

void run_max_abs(DeviceArrays& a, const FlatCase& c, Answers& answers) {
  answers.push_back(max_abs(a.ctx(), {.x = a.vec(c.count)}));
}

void run_adamw(DeviceArrays& a, const FlatCase& c, Answers&) {
  adamw_step(a.ctx(), {.w = a.vec(c.count),
                       .m = a.vec(c.count),
                       .v = a.constant(c.count, 0.25f),
                       .grad = a.vec(c.count),
                       .t = 3,
                       .grad_scale = 0.5f});
}

void run_sum_squares(DeviceArrays& a, const FlatCase& c, Answers&) {
  const int64_t chunks = (c.count + kNormChunk - 1) / kNormChunk;
  sum_squares_chunks(a.ctx(), {.sums = a.vec(chunks), .x = a.vec(c.count)});
}

template <class Row>
bool in_bf16(const Row& row) {
  if constexpr (requires { row.dtype; }) return row.dtype == DType::kBF16;
  return false;
}

/// Runs every row of the table that is for an oracle on the CPU and on each other
/// device.
template <class Row, size_t kRows>
void walk(const Row (&table)[kRows], void (*run_row)(DeviceArrays&, const Row&, Answers&)) {
  for (const Row& row : cases_for(table, kOracle)) {
    if (in_bf16(row) && !with_bf16()) continue;
    SCOPED_TRACE(row.name);
    Answers expected;
    DeviceArrays cpu(Context{}, row.seed);
    run_row(cpu, row, expected);
    for (const Device device : other_devices()) {
      SCOPED_TRACE(device_name(device));
      Answers answers;
      DeviceArrays other({.device = device, .threads = 2}, row.seed);
      run_row(other, row, answers);
      EXPECT_TRUE(same_bits(other.values(), cpu.values()));
      EXPECT_EQ(answers, expected);
    }
  }
}

TEST(DeviceCases, Rows) {
  walk(kRmsnormCases, run);
  walk(kRopeCases, run);
  walk(kSwigluCases, run);
  walk(kEmbeddingCases, run);
  walk(kRowsCases, run);
  walk(kSpreadCases, run);
}

TEST(DeviceCases, Products) {
  walk(kMatmulCases, run);
  walk(kPairsMatmulCases, run);
  walk(kPackCases, run);
  walk(kBiasCases, run);
}

TEST(DeviceCases, Vocabulary) {
  walk(kLogprobCases, run);
  walk(kLmHeadCases, run);
  walk(kSamplingCases, run);
}

TEST(DeviceCases, Attention) {
  walk(kAttentionCases, run_attention<DType::kF32>);
  walk(kAttentionTreeCases, run_attention_tree<DType::kF32>);
  walk(kRopeKvCases, run);
  walk(kKvCopyCases, run);
  walk(kKvClearCases, run);
  if (!with_bf16()) return;
  walk(kAttentionCases, run_attention<DType::kBF16>);
  walk(kAttentionTreeCases, run_attention_tree<DType::kBF16>);
  walk(kAttentionPairsTreeCases, run_attention_tree<DType::kBF16>);
}

TEST(DeviceCases, FlatArrays) {
  walk(kNestedSumCases, run_nested_sum);
  walk(kTreeSumCases, run_tree_sum);
  walk(kFillCases, run_fill);
  walk(kChecksumCases, run_checksum);
  walk(kMaxAbsCases, run_max_abs);
  walk(kAdamwCases, run_adamw);
  walk(kSumSquaresCases, run_sum_squares);
}

}  // namespace
}  // namespace orrery::kernels
