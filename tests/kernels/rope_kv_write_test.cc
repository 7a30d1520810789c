// rope_kv_write against rotation in scalar code and kv_write, whose own oracle is
// attention's.
#include "core/buffer.h"
#include "kernels/kv_pool.h"
#include "tests/kernels/bf16_testing.h"
#include "tests/kernels/cases/attention_cases.h"
#include "tests/kernels/cases/rope_cases.h"
#include "tests/kernels/kernel_testing.h"
#include "tests/kernels/rope_oracle.h"

namespace orrery::kernels {
namespace {
using namespace cases;
using namespace kernel_testing;
using rope_test::HostTable;
using rope_test::rotate;

/// A pool whose memory was all ones: NaN in both types.
struct Pool {
  Buffer memory;
  KvPool view;

  Pool(DType dtype, const AttentionShape& shape)
      : memory(Device{},
               kv_pool_bytes({}, dtype, KvWriteBatches::kBlocks, shape.kv_heads, shape.head_dim)),
        view(make_kv_pool({}, dtype, KvWriteBatches::kBlocks, shape.kv_heads, shape.head_dim,
                          memory.data())) {
    std::ranges::fill(memory.span<uint8_t>(), uint8_t{0xff});
  }
  std::vector<uint8_t> contents() const {
    const auto all = memory.span<uint8_t>();
    return {all.begin(), all.end()};
  }
};

class RopeKvWriteTest : public testing::TestWithParam<RopeKvCase> {
 protected:
  /// All batches of the case, of rows that are kept in a `Rows`.
  template <class Rows>
  void check(const Context& ctx) {
    const AttentionShape& shape = GetParam().shape;
    const DType dtype = GetParam().dtype;
    const int64_t rotated = shape.heads + shape.kv_heads, q = shape.heads * shape.head_dim,
                  kv = shape.kv_heads * shape.head_dim;
    const HostTable table({.head_dim = shape.head_dim, .theta = 10000.0, .scaling = {}}, 300);
    const Pool expected(dtype, shape), pool(dtype, shape);
    const KvWriteBatches all;
    uint64_t seed = GetParam().seed;
    for (const KvWriteBatches::Batch& batch : all.batches) {
      Matrix qkv = Matrix::random(batch.rows, q + 2 * kv, seed++);
      if (dtype == DType::kBF16) qkv = rounded(qkv);
      // Not the positions of the segments: the op takes them as they are given.
      const std::vector<int32_t> at = scattered_ids(batch.rows, 300);
      Arena arena;
      const AttentionPlan plan = make_attention_plan(
          ctx, shape, batch.rows, KvWriteBatches::kBlocks, batch.segments, arena);
      Matrix wanted = qkv;
      rotate(wanted, rotated, table, at, {.rounds = dtype == DType::kBF16});
      Rows keys(wanted), got(qkv);
      const ActMat written = keys.mat();
      kv_write({}, {.pool = expected.view,
                    .k = written.col_range(q, q + kv),
                    .v = written.col_range(q + kv, q + 2 * kv),
                    .plan = plan});
      rope_kv_write(
          ctx, {.pool = pool.view, .qkv = got.mat(), .rotation = table.rotation(at), .plan = plan});
      EXPECT_TRUE(same_bits(values_of(got), wanted.values));
      EXPECT_EQ(pool.contents(), expected.contents());
    }
  }

 private:
  static std::vector<float> values_of(const Matrix& m) { return m.values; }
  static std::vector<float> values_of(const Bf16Matrix& m) { return m.values(); }
};

TEST_P(RopeKvWriteTest, HasTheBitsOfScalarRotationAndKvWrite) {
  on_every_target([&](const Context& ctx) {
    GetParam().dtype == DType::kBF16 ? check<Bf16Matrix>(ctx) : check<Matrix>(ctx);
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, RopeKvWriteTest,
                         testing::ValuesIn(cases_for(kRopeKvCases, kOracle)), CaseName());

TEST(RopeKvWrite, BadShapesAndTypesAreErrors) {
  const AttentionShape shape{2, 1, 4};
  const HostTable table({.head_dim = 4, .theta = 10000.0, .scaling = {}}, 6),
      wide({.head_dim = 8, .theta = 10000.0, .scaling = {}}, 6);
  const Pool pool(DType::kF32, shape), other(DType::kBF16, shape);
  const std::vector<int32_t> block{0}, two{0, 1}, three{0, 1, 2};
  const std::vector<KvSegment> segments{{0, 2, 0, block}};
  Arena arena;
  const AttentionPlan plan =
      make_attention_plan({}, shape, 2, KvWriteBatches::kBlocks, segments, arena);
  Matrix qkv = Matrix::random(2, 16, 1), narrow = Matrix::random(2, 12, 1);
  const Matrix before = qkv;
  const auto run = [&](const Pool& to, Matrix& rows, const Rotation& rotation) {
    return [&to, &rows, rotation, &plan] {
      rope_kv_write({}, {.pool = to.view, .qkv = rows.mat(), .rotation = rotation, .plan = plan});
    };
  };
  expect_error(run(pool, narrow, table.rotation(two)), "qkv is [2, 12]; it must be [2, 16]");
  expect_error(run(other, qkv, table.rotation(two)), "qkv holds f32; it must hold bf16");
  expect_error(run(pool, qkv, table.rotation(three)), "positions has 3 elements");
  expect_error(run(pool, qkv, wide.rotation(two)), "cos has 4 columns");
  EXPECT_TRUE(same_bits(qkv.values, before.values));
  EXPECT_EQ(pool.contents(), Pool(DType::kF32, shape).contents());
}

}  // namespace
}  // namespace orrery::kernels
