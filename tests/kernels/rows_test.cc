#include "kernels/rows.h"

#include "tests/kernels/cases/rows_cases.h"
#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels {
namespace {
using namespace cases;
using namespace kernel_testing;

class RowsTest : public testing::TestWithParam<RowsCase> {};

TEST_P(RowsTest, GatherCopiesAndScatterAddsInOrder) {
  const int64_t from_rows = GetParam().from_rows, dim = GetParam().dim;
  const int64_t count = GetParam().count;
  const uint64_t seed = GetParam().seed;
  const std::vector<int32_t> rows = GetParam().rows();
  const Matrix table = Matrix::random(from_rows, dim, seed),
               start = Matrix::random(from_rows, dim, seed + 1);
  Matrix gathered(count, dim), sums = start;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t row = rows[static_cast<size_t>(i)];
    for (int64_t j = 0; j < dim; ++j) {
      gathered(i, j) = table(row, j);
      sums(row, j) += gathered(i, j);
    }
  }
  on_every_target([&](const Context& ctx) {
    Matrix got(count, dim), added = start;
    gather_rows(ctx, {.to = got.mat(), .from = table.mat(), .rows = vec(rows)});
    EXPECT_TRUE(same_bits(got.values, gathered.values));
    scatter_add_rows(ctx, {.to = added.mat(), .from = got.mat(), .rows = vec(rows)});
    EXPECT_TRUE(same_bits(added.values, sums.values));
    Matrix copy(from_rows, dim);
    copy_rows(ctx, {.to = copy.mat(), .from = table.mat()});
    EXPECT_TRUE(same_bits(copy.values, table.values));
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, RowsTest, testing::ValuesIn(cases_for(kRowsCases, kOracle)),
                         CaseName());

TEST(GatherRows, CopiesElementsOfTwoBytes) {
  const std::vector<uint16_t> from = {1, 2, 3, 4, 5, 6};  // [3, 2]
  std::vector<uint16_t> to(4);
  const std::vector<int32_t> rows = {2, 0};
  gather_rows({}, {.to = {to.data(), DType::kBF16, 2, 2, 2},
                   .from = {from.data(), DType::kBF16, 3, 2, 2},
                   .rows = vec(rows)});
  EXPECT_EQ(to, (std::vector<uint16_t>{5, 6, 1, 2}));
}

TEST(SpreadRows, CopiesInPlaceWhatLaterRowsStillNeed) {
  for (const SpreadCase& c : cases_for(kSpreadCases, kOracle)) {
    const std::vector<int32_t> source(c.kSource.begin(), c.kSource.end());
    const Matrix start = Matrix::random(std::ssize(source), c.dim, c.seed);
    Matrix expected = start;
    for (int64_t i = 0; i < expected.rows; ++i) {
      for (int64_t j = 0; j < c.dim; ++j)
        expected(i, j) = start(source[static_cast<size_t>(i)] - source[0], j);
    }
    on_every_target([&](const Context& ctx) {
      Matrix got = start;
      spread_rows(ctx, {.y = got.mat(), .source = vec(source)});
      EXPECT_TRUE(same_bits(got.values, expected.values));
    });
  }
}

TEST(Rows, BadShapesAndTypesAreErrors) {
  Matrix two(2, 4), three(3, 4), narrow(2, 3);
  const std::vector<int32_t> rows = {0, 1};
  expect_error([&] { copy_rows({}, {.to = two.mat(), .from = three.mat()}); }, "to is [2, 4]");
  expect_error(
      [&] {
        copy_rows({}, {.to = two.mat(), .from = {two.values.data(), DType::kBF16, 2, 4, 4}});
      },
      "to holds f32, from bf16");
  expect_error([&] { gather_rows({}, {.to = three.mat(), .from = two.mat(), .rows = vec(rows)}); },
               "to is [3, 4]");
  expect_error(
      [&] { scatter_add_rows({}, {.to = two.mat(), .from = narrow.mat(), .rows = vec(rows)}); },
      "from is [2, 3]");
  expect_error([&] { spread_rows({}, {.y = three.mat(), .source = vec(rows)}); }, "y is [3, 4]");
}

}  // namespace
}  // namespace orrery::kernels
