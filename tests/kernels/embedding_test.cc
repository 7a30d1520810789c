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
    embedding_forward(ctx, got.mat(), table.mat(), ids);
    EXPECT_TRUE(same_bits(got.values, out.values));

    Matrix dgot = start;
    embedding_backward(ctx, dgot.mat(), dout.mat(), ids);
    EXPECT_TRUE(same_bits(dgot.values, dtable.values));

    // Two calls give the bits of one.
    const int64_t cut = tokens / 3;
    Matrix twice = start;
    embedding_backward(ctx, twice.mat(), dout.mat().row_range(0, cut),
                       std::span(ids).first(static_cast<size_t>(cut)));
    embedding_backward(ctx, twice.mat(), dout.mat().row_range(cut, tokens),
                       std::span(ids).subspan(static_cast<size_t>(cut)));
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
  EXPECT_NO_THROW(embedding_forward({}, out.mat(), table.mat(), {}));
}

TEST(Embedding, BadIdsAndShapesAreErrors) {
  const Matrix table = Matrix::random(5, 4, 1);
  Matrix out(2, 4);
  const std::vector<int32_t> high = {0, 5}, negative = {-1, 0}, three = {0, 1, 2};
  expect_error([&] { embedding_forward({}, out.mat(), table.mat(), high); }, "token 1 has id 5");
  expect_error([&] { embedding_forward({}, out.mat(), table.mat(), negative); },
               "token 0 has id -1");
  expect_error([&] { embedding_forward({}, out.mat(), table.mat(), three); }, "out is [2, 4]");
  Matrix dtable(5, 4);
  const Matrix before = dtable;
  expect_error([&] { embedding_backward({}, dtable.mat(), out.mat(), high); }, "token 1 has id 5");
  EXPECT_TRUE(same_bits(dtable.values, before.values));
  Context gpu{.device = {DeviceType::kCuda, 0}, .stream = {}, .threads = 1};
  expect_error([&] { embedding_forward(gpu, out.mat(), table.mat(), high); }, "CPU kernels only");
}

}  // namespace
}  // namespace orrery::kernels
