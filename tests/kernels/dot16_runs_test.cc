// Sums over rows in runs, of biases and of the embedding, against scalar code. Those of
// norm weights are in dot16_sums_test.cc.
#include <map>

#include "kernels/embedding.h"
#include "kernels/matmul.h"
#include "tests/kernels/bf16_testing.h"
#include "tests/kernels/dot16_sums_oracle.h"
#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels {
namespace {
using namespace kernel_testing;

std::vector<float> bias_gradient(std::vector<float> start, const Matrix& dy,
                                 const std::vector<int64_t>& run_ends) {
  for (int64_t j = 0; j < dy.cols; ++j) {
    add_runs(start[static_cast<size_t>(j)], run_ends, dy.rows,
             [&](int64_t r, float sum) { return sum + dy(r, j); });
  }
  return start;
}

TEST(Dot16SumsOverRuns, Biases) {
  for (const auto& [rows, cols] :
       {std::pair<int64_t, int64_t>{1, 1}, {5, 17}, {40, 300}, {23, 1100}}) {
    const Matrix f32 = Matrix::random(rows, cols, 1), bf16 = rounded(f32);
    const Bf16Matrix dy(f32);
    const std::vector<float> there = random_vector(cols, 2), zeros(there.size());
    for (const std::vector<int64_t>& run_ends : runs_of(rows)) {
      SCOPED_TRACE(std::to_string(cols) + " columns, runs " + std::to_string(run_ends.size()));
      for (const bool accumulate : {true, false}) {
        const std::vector<float>& start = accumulate ? there : zeros;
        const std::vector<float> of_f32 = bias_gradient(start, f32, run_ends),
                                 of_bf16 = bias_gradient(start, bf16, run_ends);
        on_every_target([&](const Context& ctx) {
          std::vector<float> db = there;
          BiasBackward op{
              .db = vec(db), .dy = f32.mat(), .accumulate = accumulate, .run_ends = run_ends};
          bias_backward(ctx, op);
          EXPECT_TRUE(same_bits(db, of_f32));
          db = there;
          op.dy = dy.mat();
          bias_backward(ctx, op);
          EXPECT_TRUE(same_bits(db, of_bf16));
        });
      }
    }
  }
}

/// For each run and token in it a sum from 0, added to the token's row.
Matrix embedding_gradient(Matrix table, const Matrix& dout, const std::vector<int32_t>& ids,
                          const std::vector<int64_t>& run_ends) {
  int64_t begin = 0;
  for (const int64_t end : run_ends) {
    std::map<int32_t, std::vector<float>> sums;
    for (int64_t r = begin; r < end; ++r) {
      std::vector<float>& sum = sums[ids[static_cast<size_t>(r)]];
      sum.resize(static_cast<size_t>(dout.cols));
      for (int64_t j = 0; j < dout.cols; ++j) sum[static_cast<size_t>(j)] += dout(r, j);
    }
    for (const auto& [id, sum] : sums) {
      for (int64_t j = 0; j < dout.cols; ++j) table(id, j) += sum[static_cast<size_t>(j)];
    }
    begin = end;
  }
  return table;
}

std::vector<int32_t> random_ids(int64_t count, int32_t vocab) {
  Philox rng(3, RngPurpose::kTest);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) {
    // Low numbers are frequent, as in texts.
    const float u = std::fabs(rng.normal()) / 4.0f;
    ids.push_back(std::min(static_cast<int32_t>(u * static_cast<float>(vocab)), vocab - 1));
  }
  return ids;
}

TEST(Dot16SumsOverRuns, Embeddings) {
  for (const auto& shape : {std::tuple{1, 1, 1}, {9, 3, 7}, {200, 11, 100}, {64, 40, 1100}}) {
    // Named: lambdas may not capture a structured binding in clang 14.
    const int tokens = std::get<0>(shape), vocab = std::get<1>(shape), dim = std::get<2>(shape);
    const Matrix dout = Matrix::random(tokens, dim, 4), start = Matrix::random(vocab, dim, 5);
    const std::vector<int32_t> ids = random_ids(tokens, vocab);
    for (const std::vector<int64_t>& run_ends : runs_of(tokens)) {
      if (run_ends.empty()) continue;
      const Matrix expected = embedding_gradient(start, dout, ids, run_ends);
      on_every_target([&](const Context& ctx) {
        Matrix dtable = start;
        embedding_backward(
            ctx,
            {.dtable = dtable.mat(), .dout = dout.mat(), .ids = vec(ids), .run_ends = run_ends});
        EXPECT_TRUE(same_bits(dtable.values, expected.values)) << dim;
      });
    }
  }
}

TEST(Dot16SumsOverRuns, ARunIsNotItsRowsOneByOne) {
  const Matrix dout = Matrix::random(300, 8, 6), start = Matrix::random(1, 8, 7);
  const std::vector<int32_t> ids(300);
  const std::vector<int64_t> one_run = {300};
  Matrix rows = start, run = start;
  embedding_backward({}, {.dtable = rows.mat(), .dout = dout.mat(), .ids = vec(ids)});
  embedding_backward(
      {}, {.dtable = run.mat(), .dout = dout.mat(), .ids = vec(ids), .run_ends = one_run});
  EXPECT_FALSE(same_bits(run.values, rows.values));
}

TEST(Dot16SumsOverRuns, ABatchCutAtARunGivesTheSameBits) {
  const int64_t rows = 90, cols = 300;
  const std::vector<int64_t> all = {11, 40, 40, 90}, first = {11, 40}, last = {0, 50};
  const Matrix dy = Matrix::random(rows, cols, 8), start = Matrix::random(6, cols, 9);
  const std::vector<int32_t> ids = random_ids(rows, 6);
  const std::vector<float> there = random_vector(cols, 10);
  on_every_target([&](const Context& ctx) {
    std::vector<float> once = there, twice = there;
    bias_backward(ctx, {.db = vec(once), .dy = dy.mat(), .run_ends = all});
    Matrix table = start, table_cut = start;
    embedding_backward(ctx,
                       {.dtable = table.mat(), .dout = dy.mat(), .ids = vec(ids), .run_ends = all});
    for (const auto& [begin, end, run_ends] : {std::tuple{0, 40, first}, {40, 90, last}}) {
      const Mat<const float> part = dy.mat().row_range(begin, end);
      bias_backward(ctx, {.db = vec(twice), .dy = part, .run_ends = run_ends});
      embedding_backward(ctx, {.dtable = table_cut.mat(),
                               .dout = part,
                               .ids = vec(ids).part(begin, end - begin),
                               .run_ends = run_ends});
    }
    EXPECT_TRUE(same_bits(twice, once));
    EXPECT_TRUE(same_bits(table_cut.values, table.values));
  });
}

TEST(Dot16SumsOverRuns, ARunOfRowsMakesMinusZeroPlusAndNoRowsLeaveIt) {
  Matrix zeros(1, 20), none(0, 20), table(2, 20);
  for (int64_t j = 0; j < 20; ++j) zeros(0, j) = table(0, j) = table(1, j) = -0.0f;
  const std::vector<int32_t> ids = {0};
  const std::vector<int64_t> one = {1}, empty = {0, 0};
  on_every_target([&](const Context& ctx) {
    std::vector<float> db(20, -0.0f), untouched(20, -0.0f);
    bias_backward(ctx, {.db = vec(db), .dy = zeros.mat(), .run_ends = one});
    EXPECT_TRUE(same_bits(db, std::vector<float>(20, 0.0f)));
    bias_backward(ctx, {.db = vec(untouched), .dy = none.mat(), .run_ends = empty});
    EXPECT_TRUE(same_bits(untouched, std::vector<float>(20, -0.0f)));
    Matrix got = table;
    embedding_backward(
        ctx, {.dtable = got.mat(), .dout = zeros.mat(), .ids = vec(ids), .run_ends = one});
    for (int64_t j = 0; j < 20; ++j) {
      EXPECT_FALSE(std::signbit(got(0, j)));
      EXPECT_TRUE(std::signbit(got(1, j)));
    }
  });
}

}  // namespace
}  // namespace orrery::kernels
