#include "kernels/embedding.h"

#include "tests/kernels/cases/embedding_cases.h"
#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels {
namespace {
using namespace cases;
using namespace kernel_testing;

class EmbeddingTest : public testing::TestWithParam<EmbeddingCase> {};

TEST_P(EmbeddingTest, CopiesRowsAndAddsGradientsInTokenOrder) {
  const int64_t vocab = GetParam().vocab, dim = GetParam().dim;
  const int64_t tokens = GetParam().tokens;
  const uint64_t seed = GetParam().seed;
  const std::vector<int32_t> ids = GetParam().ids();
  const Matrix table = Matrix::random(vocab, dim, seed);
  const Matrix dout = Matrix::random(tokens, dim, seed + 1);
  const Matrix start = Matrix::random(vocab, dim, seed + 2);
  double forward_dot = 0.0, backward_dot = 0.0;
  Matrix out(tokens, dim);
  Matrix dtable = start;
  for (size_t i = 0; i < ids.size(); ++i) {
    for (int64_t j = 0; j < dim; ++j) {
      out(static_cast<int64_t>(i), j) = table(ids[i], j);
      dtable(ids[i], j) += dout(static_cast<int64_t>(i), j);
      forward_dot += double{out(static_cast<int64_t>(i), j)} * dout(static_cast<int64_t>(i), j);
    }
  }
  for (int64_t id = 0; id < vocab; ++id) {
    for (int64_t j = 0; j < dim; ++j)
      backward_dot += (double{dtable(id, j)} - start(id, j)) * table(id, j);
  }
  // The lookup is linear in the table, so a difference of any size is its gradient.
  EXPECT_NEAR(forward_dot, backward_dot, 2e-3);
  on_every_target([&](const Context& ctx) {
    Matrix got(tokens, dim);
    embedding_forward(ctx, {.out = got.mat(), .table = table.mat(), .ids = vec(ids)});
    EXPECT_TRUE(same_bits(got.values, out.values));

    Matrix dgot = start;
    embedding_backward(ctx, {.dtable = dgot.mat(), .dout = dout.mat(), .ids = vec(ids)});
    EXPECT_TRUE(same_bits(dgot.values, dtable.values));

    // Two calls give the bits of one.
    const int64_t cut = tokens / 3;
    Matrix twice = start;
    for (const auto& [begin, end] : {std::pair{int64_t{0}, cut}, {cut, tokens}}) {
      embedding_backward(ctx, {.dtable = twice.mat(),
                               .dout = dout.mat().row_range(begin, end),
                               .ids = vec(ids).part(begin, end - begin)});
    }
    EXPECT_TRUE(same_bits(twice.values, dtable.values));
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, EmbeddingTest,
                         testing::ValuesIn(cases_for(kEmbeddingCases, kTest)), CaseName());

TEST(Embedding, NoTokensIsNothing) {
  const Matrix table = Matrix::random(3, 4, 1);
  Matrix out(0, 4);
  EXPECT_NO_THROW(embedding_forward({}, {.out = out.mat(), .table = table.mat()}));
}

TEST(Embedding, BadShapesAreErrors) {
  const Matrix table = Matrix::random(5, 4, 1);
  Matrix out(2, 4), dtable(5, 3);
  const std::vector<int32_t> two = {0, 4}, three = {0, 1, 2};
  expect_error(
      [&] { embedding_forward({}, {.out = out.mat(), .table = table.mat(), .ids = vec(three)}); },
      "out is [2, 4]");
  expect_error(
      [&] { embedding_backward({}, {.dtable = dtable.mat(), .dout = out.mat(), .ids = vec(two)}); },
      "dout is [2, 4]; it must be [2, 3]");
}

}  // namespace
}  // namespace orrery::kernels
