// The CPU's dot16 products on vectors have the bits of the model's steps, on every
// instruction set.
#include "kernels/cpu/dot16.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/dot16.h"
#include "kernels/numerics.h"
#include "tests/gpu/operands.h"

namespace orrery::kernels {
namespace {
using cpu::Dot16Product;
using cpu::kDot16;

uint32_t bits_of(float x) { return std::bit_cast<uint32_t>(x); }
float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }
Bf16 bf16_of(float x) { return {static_cast<uint16_t>(bits_of(x) >> 16)}; }

/// How an operand lies in memory.
enum class Order { kInner, kOuter, kApart };  // next to each other: k; i or j; neither

/// A product's operands and the sums it starts from.
struct Problem {
  std::vector<Bf16> a, b;
  std::vector<float> c;
  Dot16Product op;

  Problem(int64_t m, int64_t n, int64_t k, Order a_order = Order::kInner,
          Order b_order = Order::kInner)
      : a(static_cast<size_t>(3 * m * k + 1)), b(static_cast<size_t>(3 * n * k + 1)) {
    op.m = m, op.n = n, op.k = k;
    lay_out(a_order, m, k, op.a_row, op.a_inner);
    lay_out(b_order, n, k, op.b_column, op.b_inner);
    op.c_stride = n + 3;
    c.assign(static_cast<size_t>(m * op.c_stride), 7.0f);
  }
  Bf16& at_a(int64_t i, int64_t k) { return a[static_cast<size_t>(i * op.a_row + k * op.a_inner)]; }
  Bf16& at_b(int64_t k, int64_t j) {
    return b[static_cast<size_t>(k * op.b_inner + j * op.b_column)];
  }
  float& at_c(int64_t i, int64_t j) { return c[static_cast<size_t>(i * op.c_stride + j)]; }

  /// 16 elements of both for group k of sum (i, j), zeros past the last.
  void group(int64_t i, int64_t j, int64_t k, uint16_t* x, uint16_t* y) {
    for (int64_t p = 0; p < kDot16; ++p) {
      x[p] = k + p < op.k ? at_a(i, k + p).bits : 0;
      y[p] = k + p < op.k ? at_b(k + p, j).bits : 0;
    }
  }
  std::vector<uint32_t> expected(bool accumulate) {
    std::vector<uint32_t> result;
    for (const float x : c) result.push_back(bits_of(x));
    for (int64_t i = 0; i < op.m; ++i)
      for (int64_t j = 0; j < op.n; ++j) {
        uint32_t sum = accumulate ? bits_of(at_c(i, j)) : 0;
        uint16_t x[kDot16], y[kDot16];
        for (int64_t k = 0; k < op.k; k += kDot16) {
          group(i, j, k, x, y);
          sum = dot_step(x, y, sum, kDot16Rz25);
        }
        result[static_cast<size_t>(i * op.c_stride + j)] = sum;
      }
    return result;
  }
  std::vector<uint32_t> computed(bool accumulate) const {
    std::vector<float> sums = c;
    Dot16Product product = op;
    product.a = a.data(), product.b = b.data(), product.c = sums.data();
    product.accumulate = accumulate;
    cpu::dot16_product(product);
    std::vector<uint32_t> result;
    for (const float x : sums) result.push_back(bits_of(x));
    return result;
  }
  void check() {
    for (const bool accumulate : {false, true}) {
      const std::vector<uint32_t> want = expected(accumulate);
      for (const std::string& target : supported_cpu_targets()) {
        set_cpu_target(target);
        EXPECT_EQ(computed(accumulate), want)
            << target << ", accumulate " << accumulate << ": " << op.m << " x " << op.n << " x "
            << op.k << ", strides " << op.a_row << ", " << op.a_inner << "; " << op.b_inner << ", "
            << op.b_column;
      }
      set_cpu_target("best");
    }
  }

 private:
  static void lay_out(Order order, int64_t outer, int64_t inner, int64_t& outer_stride,
                      int64_t& inner_stride) {
    outer_stride = order == Order::kInner ? inner : order == Order::kOuter ? 1 : 3;
    inner_stride = order == Order::kInner ? 1 : order == Order::kOuter ? outer : 3 * outer;
  }
};

/// Reproducible numbers.
class Random {
 public:
  explicit Random(uint64_t seed) : seed_(seed) {}
  uint64_t bits() { return selftest::random_bits(seed_, place_++); }
  /// In [low, high].
  int between(int low, int high) {
    return low + static_cast<int>(bits() % static_cast<uint64_t>(high - low + 1));
  }
  float normal() { return selftest::normal_f32(bits()); }

 private:
  uint64_t seed_, place_ = 0;
};

Order order_of(Random& random) {
  const int i = random.between(0, 6);
  return i < 3 ? Order::kInner : i < 6 ? Order::kOuter : Order::kApart;
}

/// The self-test's rows, columns and accumulators.
void fill_with_edges(Problem& p, uint64_t seed) {
  for (int64_t k = 0; k < p.op.k; ++k) {
    const int at = static_cast<int>(k);
    for (int64_t i = 0; i < p.op.m; ++i)
      p.at_a(i, k) = {selftest::operand(seed, static_cast<int>(i), at, false)};
    for (int64_t j = 0; j < p.op.n; ++j)
      p.at_b(k, j) = {selftest::operand(seed + 1, static_cast<int>(j), at, true)};
  }
  for (int64_t i = 0; i < p.op.m; ++i)
    for (int64_t j = 0; j < p.op.n; ++j) {
      uint16_t x[kDot16], y[kDot16];
      p.group(i, j, 0, x, y);
      p.at_c(i, j) =
          float_of(selftest::start_value(seed + 2, static_cast<int>(i), static_cast<int>(j), x, y));
    }
}

/// Numbers about N(0, 1) times a power of two of up to `range`.
void fill_with_normal(Problem& p, Random& random, int range) {
  const auto number = [&] { return std::ldexp(random.normal(), random.between(-range, range)); };
  for (int64_t k = 0; k < p.op.k; ++k) {
    for (int64_t i = 0; i < p.op.m; ++i) p.at_a(i, k) = bf16_of(number());
    for (int64_t j = 0; j < p.op.n; ++j) p.at_b(k, j) = bf16_of(number());
  }
  for (int64_t i = 0; i < p.op.m; ++i)
    for (int64_t j = 0; j < p.op.n; ++j) p.at_c(i, j) = number();
}

TEST(Dot16Product, HasTheModelsBitsOnEdges) {
  Random random(1);
  for (uint64_t round = 0; round < 150; ++round) {
    Problem p(random.between(1, 5), random.between(1, 70), random.between(1, 40), order_of(random),
              order_of(random));
    fill_with_edges(p, 100 * round);
    p.check();
  }
}

TEST(Dot16Product, HasTheModelsBitsOnOrdinaryNumbers) {
  Random random(2);
  for (int round = 0; round < 150; ++round) {
    Problem p(random.between(1, 5), random.between(1, 140), random.between(1, 80), order_of(random),
              order_of(random));
    fill_with_normal(p, random, round % 20);
    p.check();
  }
}

TEST(Dot16Product, EveryShape) {
  Random random(3);
  for (int64_t k = 1; k <= 40; ++k) {
    Problem p(3, 1 + 5 * k % 70, k, Order::kInner, Order::kOuter);
    fill_with_normal(p, random, 3);
    p.check();
  }
  for (int64_t n = 1; n <= 70; ++n) {
    Problem p(2, n, 17, Order::kOuter, Order::kInner);
    fill_with_normal(p, random, 3);
    p.check();
  }
  for (const int64_t m : {63, 64, 65, 130}) {
    Problem p(m, 66, 20);
    fill_with_normal(p, random, 3);
    p.check();
  }
  Problem long_one(70, 65, 16 * 40);  // more than is packed at once
  fill_with_normal(long_one, random, 3);
  long_one.check();
}

/// Rows and columns whose exponents lie about the vectors' limits: there is no number
/// at which the way of computing changes that changes a bit.
TEST(Dot16Product, LimitsOfTheVectors) {
  Random random(4);
  const int edges[] = {1, 20, 28, 32, 60, 100, 127, 154, 180, 226, 252, 253, 254};
  for (const int a_edge : edges) {
    for (const int b_edge : edges) {
      Problem p(6, 64, 32);
      const auto number = [&](int edge, int spread) {
        const int field = std::clamp(edge + random.between(-spread, 1), 0, 254);
        const bool is_zero = random.between(0, 9) == 0;
        return Bf16{
            selftest::bf16_bits(random.bits(), is_zero ? 0 : field, is_zero ? 0 : random.bits())};
      };
      for (int64_t k = 0; k < p.op.k; ++k) {
        for (int64_t i = 0; i < p.op.m; ++i)
          p.at_a(i, k) = number(a_edge, i % 3 == 0 ? 2 : i % 3 == 1 ? 30 : 110);
        for (int64_t j = 0; j < p.op.n; ++j)
          p.at_b(k, j) = number(b_edge, j % 3 == 0 ? 2 : j % 3 == 1 ? 30 : 110);
      }
      const int product = a_edge + b_edge - 127;
      for (int64_t i = 0; i < p.op.m; ++i)
        for (int64_t j = 0; j < p.op.n; ++j)
          p.at_c(i, j) = float_of(selftest::f32_bits(
              random.bits(), std::clamp(product + random.between(-30, 30), 0, 255),
              random.between(0, 2) == 0 ? 0x7fffff : random.bits()));
      p.check();
    }
  }
}

/// A product of the smallest factor of a row and the largest of a column counts as much
/// as, or up to 2^30 times less than, that of the largest and the smallest.
TEST(Dot16Product, SmallFactorsOfLargeOnes) {
  Problem p(100, 64, 16);
  for (int64_t i = 0; i < 100; ++i) {
    const int small = static_cast<int>(i) + 26;
    p.at_a(i, 0) = bf16_of(1.25f);
    p.at_a(i, 1) = bf16_of(std::ldexp(1.75f, -small));
  }
  for (int64_t j = 0; j < 64; ++j) {
    const int column = static_cast<int>(j);
    p.at_b(0, j) = bf16_of(std::ldexp(1.5f, 2 - column % 32));
    p.at_b(1, j) = bf16_of(std::ldexp(1.9921875f, 62 - column / 32 * 20));
  }
  p.check();
}

/// A step's terms, all of the largest size and one sign, exceed an int32.
TEST(Dot16Product, SumsThatExceedAWord) {
  for (const float sign : {1.0f, -1.0f}) {
    for (const float last : {1.9921875f, 1.984375f, 1.9765625f, 1.5f}) {
      Problem p(1, 64, 16);
      for (int64_t k = 0; k < 16; ++k) {
        p.at_a(0, k) = bf16_of(k == 0 ? last : 1.9921875f);
        for (int64_t j = 0; j < 64; ++j) p.at_b(k, j) = bf16_of(sign * 1.9921875f);
      }
      // From -1.99 to 1.99, where the largest exponent is the products'.
      for (int64_t j = 0; j < 64; ++j)
        p.at_c(0, j) = std::nextafter(static_cast<float>(j - 32) / 16.0f, 0.0f);
      p.check();
    }
  }
}

TEST(Dot16Product, ZerosLeaveASumAsItIs) {
  Problem p(4, 67, 48);
  for (int64_t k = 0; k < 48; ++k) {
    for (int64_t i = 0; i < 4; ++i) p.at_a(i, k) = bf16_of(k / 16 == i % 4 ? -0.0f : 0x1.3p-20f);
    for (int64_t j = 0; j < 67; ++j) p.at_b(k, j) = bf16_of(k % 2 == j % 2 ? 0.0f : 0x1.8p5f);
  }
  for (int64_t k = 0; k < 48; k += 2) p.at_a(3, k) = bf16_of(0.0f);  // meets zeros of B
  for (int64_t j = 0; j < 67; ++j) {
    p.at_c(0, j) = -0.0f;
    p.at_c(1, j) = float_of(0x7fc00001u);
    p.at_c(2, j) = -std::numeric_limits<float>::infinity();
    p.at_c(3, j) = float_of(static_cast<uint32_t>(j));  // subnormal
  }
  p.check();
}

TEST(Dot16Product, NothingToSum) {
  for (const bool accumulate : {false, true}) {
    Problem p(2, 5, 0);
    p.at_c(0, 1) = -0.0f;
    EXPECT_EQ(p.computed(accumulate), p.expected(accumulate));
  }
  Problem no_rows(0, 5, 3), no_columns(2, 0, 3);
  EXPECT_EQ(no_rows.computed(false), no_rows.expected(false));
  EXPECT_EQ(no_columns.computed(false), no_columns.expected(false));
}

}  // namespace
}  // namespace orrery::kernels
