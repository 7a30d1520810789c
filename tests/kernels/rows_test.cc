#include "kernels/rows.h"

#include "tests/kernels/bf16_testing.h"
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

TEST_P(RowsTest, RoundsGathersAndCopiesBf16) {
  const int64_t from_rows = GetParam().from_rows, dim = GetParam().dim;
  const int64_t count = GetParam().count;
  const std::vector<int32_t> rows = GetParam().rows();
  const Matrix table = Matrix::random(from_rows, dim, GetParam().seed);
  Matrix gathered(count, dim);
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = 0; j < dim; ++j) gathered(i, j) = table(rows[static_cast<size_t>(i)], j);
  }
  on_every_target([&](const Context& ctx) {
    Bf16Matrix narrow(from_rows, dim), got(count, dim), copy(from_rows, dim);
    round_rows(ctx, {.to = narrow.mat(), .from = table.mat()});
    EXPECT_TRUE(same_bits(narrow.values(), rounded(table).values));
    gather_rows(ctx, {.to = got.mat(), .from = narrow.mat(), .rows = vec(rows)});
    EXPECT_TRUE(same_bits(got.values(), rounded(gathered).values));
    copy_rows(ctx, {.to = copy.mat(), .from = narrow.mat()});
    EXPECT_TRUE(same_bits(copy.values(), narrow.values()));
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, RowsTest, testing::ValuesIn(cases_for(kRowsCases, kOracle)),
                         CaseName());

/// Floats whose rounding is special: halves between neighbours of either parity,
/// subnormals, the largest ones, infinities, and NaN of which the upper bits alone
/// would be an infinity.
std::vector<uint32_t> special_bits() {
  std::vector<uint32_t> bits;
  for (const uint32_t high : {0x0000u, 0x0001u, 0x007Fu, 0x0080u, 0x3F80u, 0x3F81u, 0x7F7Fu}) {
    for (const uint32_t low : {0x0000u, 0x0001u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu})
      bits.push_back(high << 16 | low);
  }
  for (const uint32_t of_inf :
       {0x7F800000u, 0x7F800001u, 0x7F80FFFFu, 0x7FC00000u, 0x7FFFFFFFu, 0x7FFF8000u, 0x7FA01234u})
    bits.push_back(of_inf);
  const size_t positive = bits.size();
  for (size_t i = 0; i < positive; ++i) bits.push_back(bits[i] | 0x80000000u);
  Philox random(1, RngPurpose::kTest);
  while (bits.size() < 1019) bits.push_back(random());
  return bits;
}

TEST(RoundRows, RoundsEveryKindOfNumberToNearestEven) {
  std::vector<float> from;
  std::vector<uint16_t> expected;
  for (const uint32_t bits : special_bits()) {
    from.push_back(std::bit_cast<float>(bits));
    const uint32_t high = bits >> 16, low = bits & 0xFFFFu;
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) {
      expected.push_back(static_cast<uint16_t>(high | 0x40u));
    } else {
      const bool up = low > 0x8000u || (low == 0x8000u && (high & 1u) != 0);
      expected.push_back(static_cast<uint16_t>(high + (up ? 1 : 0)));
    }
  }
  // Seventeen starts, so that the last values are in parts of blocks of every length.
  const auto count = std::ssize(from);
  on_every_target([&](const Context& ctx) {
    for (int64_t begin = 0; begin < 17; ++begin) {
      std::vector<Bf16> got(from.size() + 1, Bf16{0x1234});
      round_rows(ctx, {.to = Mat<Bf16>(got.data(), 1, count - begin),
                       .from = Mat<const float>(from.data() + begin, 1, count - begin)});
      for (int64_t i = begin; i < count; ++i) {
        const auto u = static_cast<size_t>(i);
        ASSERT_EQ(got[u - static_cast<size_t>(begin)].bits, expected[u]) << i;
        ASSERT_EQ(to_bf16(from[u]).bits, expected[u]) << i;
      }
      ASSERT_EQ(got[from.size() - static_cast<size_t>(begin)].bits, 0x1234);
    }
  });
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
  expect_error([&] { round_rows({}, {.to = two.mat(), .from = two.mat()}); },
               "to holds f32; it must hold bf16");
  expect_error([&] { spread_rows({}, {.y = three.mat(), .source = vec(rows)}); }, "y is [3, 4]");
}

}  // namespace
}  // namespace orrery::kernels
