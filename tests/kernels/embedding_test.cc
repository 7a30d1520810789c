#include "kernels/embedding.h"

#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels {
namespace {
using namespace kernel_testing;

struct EmbeddingCase {
  int64_t vocab, dim;
  std::vector<int32_t> ids;
};

class EmbeddingTest : public testing::TestWithParam<EmbeddingCase> {};

TEST_P(EmbeddingTest, CopiesRowsAndAddsGradientsInTokenOrder) {
  const int64_t vocab = GetParam().vocab, dim = GetParam().dim;
  const std::vector<int32_t>& ids = GetParam().ids;
  const auto tokens = static_cast<int64_t>(ids.size());
  const Matrix table = Matrix::random(vocab, dim, 1);
  const Matrix dout = Matrix::random(tokens, dim, 2);
  const Matrix start = Matrix::random(vocab, dim, 3);
  Matrix out(tokens, dim);
  Matrix dtable = start;
  for (size_t i = 0; i < ids.size(); ++i) {
    for (int64_t j = 0; j < dim; ++j) {
      out(static_cast<int64_t>(i), j) = table(ids[i], j);
      dtable(ids[i], j) += dout(static_cast<int64_t>(i), j);
    }
  }
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

std::vector<int32_t> many_ids(int64_t count, int32_t vocab) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>((i * 37 + i * i) % vocab));
  return ids;
}

INSTANTIATE_TEST_SUITE_P(Shapes, EmbeddingTest,
                         testing::Values(EmbeddingCase{1, 1, {0}},
                                         EmbeddingCase{5, 17, {4, 4, 0, 4, 1}},
                                         EmbeddingCase{11, 64, many_ids(97, 11)},
                                         EmbeddingCase{50, 200, many_ids(700, 50)}));

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
