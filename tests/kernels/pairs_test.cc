// The engines of kernels/cpu/pairs-inl.h, on every target, against the recipe of
// docs/numerics.md in scalar code; and what lays operands out for them.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/kernels/pairs_test.cc"
#include "kernels/cpu/targets.h"
// Once for each of the other targets.
#include "hwy/foreach_target.h"
#include "kernels/cpu/pairs-inl.h"
#include "kernels/cpu/pairs_engines-inl.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "core/rng.h"
#include "kernels/cpu/flush.h"
#include "kernels/numerics.h"

#ifndef ORRERY_PAIRS_TEST_ONCE
#define ORRERY_PAIRS_TEST_ONCE
namespace orrery::kernels {
/// c [rows, cols] of a product; a [rows, 32 blocks], b [32 blocks, cols], row-major.
struct PairsProduct {
  int64_t rows = 0, cols = 0, blocks = 0;
  bool accumulate = false;
  std::vector<Bf16> a, b;
  std::vector<float> c;
};
}  // namespace orrery::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

/// Lays the operands out with padding that an engine must not read into results, and
/// multiplies.
template <class Engine>
void multiply_with(PairsProduct& product) {
  using Left = typename Engine::Left;
  constexpr int64_t kStep = Engine::kRowStep;
  const int64_t rows = (product.rows + kStep - 1) / kStep * kStep;
  const int64_t cols = (product.cols + 15) / 16 * 16;
  const int64_t c_stride = cols + 16, pair_stride = 2 * cols + 32, k = product.blocks * 32;
  std::vector<Left> a(rows * k + 64, Engine::left(7.0f));
  std::vector<Bf16> b(k / 2 * pair_stride + 64, to_bf16(9.0f));
  std::vector<float> c((rows + 1) * c_stride, 11.0f);
  for (int64_t i = 0; i < product.rows; ++i) {
    for (int64_t p = 0; p < k; ++p)
      a[p / 32 * rows * 32 + i * 32 + p % 32] = Engine::left(to_f32(product.a[i * k + p]));
    std::copy_n(&product.c[i * product.cols], product.cols, &c[i * c_stride]);
  }
  for (int64_t p = 0; p < k; p += 2) {
    pairs::zip_rows(&product.b[p * product.cols], &product.b[(p + 1) * product.cols], product.cols,
                    &b[p / 2 * pair_stride]);
  }
  pairs::Multiply<Left> op;
  op.c = c.data(), op.c_stride = c_stride, op.accumulate = product.accumulate;
  op.a = a.data(), op.a_block_stride = rows * 32;
  op.b = b.data(), op.b_pair_stride = pair_stride;
  op.blocks = product.blocks, op.rows = rows, op.cols = cols;
  op.streams_b = product.rows % 2 == 0;
  {
    const cpu::FlushScope flush;
    Engine::multiply(op);
  }
  for (int64_t i = 0; i < product.rows; ++i)
    std::copy_n(&c[i * c_stride], product.cols, &product.c[i * product.cols]);
  EXPECT_EQ(c.back(), 11.0f) << "a row past the last";
}

HWY_NOINLINE void multiply_pairs(PairsProduct& product) {
  pairs::with_engine([&](auto engine) { multiply_with<decltype(engine)>(product); });
}

void transpose_words(const std::vector<std::vector<uint32_t>>& rows, std::vector<uint32_t>& to) {
  std::vector<const uint32_t*> from;
  for (const auto& row : rows) from.push_back(row.data());
  pairs::transpose_words(from.data(), std::ssize(from), std::ssize(rows[0]), to.data(),
                         std::ssize(from));
}

void round_and_expand(const std::vector<float>& from, std::vector<Bf16>& rounded,
                      std::vector<float>& expanded) {
  pairs::round(from.data(), std::ssize(from), rounded.data());
  pairs::expand(rounded.data(), std::ssize(from), expanded.data());
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery::kernels {
HWY_EXPORT(multiply_pairs);
HWY_EXPORT(transpose_words);
HWY_EXPORT(round_and_expand);

namespace {

bool same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

/// The recipe.
float recipe(const PairsProduct& product, int64_t i, int64_t j) {
  float c = product.accumulate ? product.c[i * product.cols + j] : 0.0f;
  for (int64_t block = 0; block < product.blocks; ++block) {
    float even = 0.0f, odd = 0.0f;
    for (int64_t p = block * 32; p < block * 32 + 32; p += 2) {
      const Bf16* a = &product.a[i * product.blocks * 32 + p];
      const Bf16* b = &product.b[p * product.cols + j];
      even = cpu::flushed_fma(to_f32(a[0]), to_f32(b[0]), even);
      odd = cpu::flushed_fma(to_f32(a[1]), to_f32(b[product.cols]), odd);
    }
    c = cpu::flushed_add(c, cpu::flushed_add(even, odd));
  }
  return c;
}

/// Numbers of one kind: 0 ordinary; 1 so small that products flush; 2 any bits at all.
float any_number(Philox& rng, int kind) {
  const uint32_t bits = rng();
  if (kind == 2) return std::bit_cast<float>(bits);
  const uint32_t exponent = kind == 0 ? 120 + (bits >> 8) % 12 : 58 + (bits >> 8) % 10;
  return std::bit_cast<float>((bits & 0x807FFFFFu) | exponent << 23);
}

PairsProduct make_product(int64_t rows, int64_t cols, int64_t blocks, bool accumulate, int kind) {
  Philox rng(static_cast<uint64_t>(rows * 1000 + cols * 10 + blocks + kind), RngPurpose::kTest);
  PairsProduct product{rows, cols, blocks, accumulate, {}, {}, {}};
  for (int64_t i = 0; i < rows * blocks * 32; ++i)
    product.a.push_back(to_bf16(any_number(rng, kind)));
  for (int64_t i = 0; i < cols * blocks * 32; ++i)
    product.b.push_back(to_bf16(any_number(rng, kind)));
  for (int64_t i = 0; i < rows * cols; ++i) {
    // With small products, accumulators about the smallest normal number.
    const float c = any_number(rng, kind == 1 ? 0 : kind);
    product.c.push_back(kind == 1 ? c * 0x1p-126f : c);
  }
  return product;
}

TEST(Pairs, EnginesGiveTheRecipe) {
  for (const std::string& target : supported_pairs_targets()) {
    set_cpu_target(target);
    for (const int64_t rows : {1, 2, 3, 5, 6, 7, 13, 16, 33, 48}) {
      for (const int64_t cols : {16, 32, 48, 80}) {
        for (const int64_t blocks : {1, 3}) {
          for (const int kind : {0, 1, 2}) {
            const bool accumulate = (rows + blocks) % 2 == 0;
            PairsProduct product = make_product(rows, cols, blocks, accumulate, kind);
            const PairsProduct before = product;
            HWY_DYNAMIC_DISPATCH(multiply_pairs)(product);
            for (int64_t i = 0; i < rows; ++i) {
              for (int64_t j = 0; j < cols; ++j) {
                const float expected = recipe(before, i, j), got = product.c[i * cols + j];
                ASSERT_TRUE(same(got, expected))
                    << target << " " << rows << "x" << cols << ", " << blocks << " blocks, kind "
                    << kind << ": (" << i << ", " << j << ") is " << got << ", not " << expected;
              }
            }
          }
        }
      }
    }
  }
  set_cpu_target("best");
}

TEST(Pairs, NoBlocksGiveTheStart) {
  for (const std::string& target : supported_pairs_targets()) {
    set_cpu_target(target);
    for (const bool accumulate : {false, true}) {
      PairsProduct product = make_product(3, 16, 0, accumulate, 0);
      const PairsProduct before = product;
      HWY_DYNAMIC_DISPATCH(multiply_pairs)(product);
      for (size_t i = 0; i < product.c.size(); ++i)
        EXPECT_EQ(product.c[i], accumulate ? before.c[i] : 0.0f);
    }
  }
  set_cpu_target("best");
}

/// What is tiny is decided after rounding: x86 and AMX do so, Arm does not.
TEST(Pairs, TinyIsDecidedAfterRounding) {
  const float a = 0x1p-63f;
  const float below = -0x1p-76f * 0x1p-76f;  // 0 in f32
  EXPECT_EQ(below, -0.0f);
  // 2^-126 - 2^-152 rounds to 2^-126, which is normal.
  EXPECT_EQ(cpu::flushed_fma(-0x1p-76f, 0x1p-76f, 0x1p-126f), 0x1p-126f);
  PairsProduct product{
      1, 16, 1, false, std::vector<Bf16>(32), std::vector<Bf16>(512), std::vector<float>(16)};
  product.a[0] = product.b[0] = to_bf16(a);
  product.a[2] = to_bf16(-0x1p-76f), product.b[2 * 16] = to_bf16(0x1p-76f);
  for (const std::string& target : supported_pairs_targets()) {
    set_cpu_target(target);
    PairsProduct got = product;
    HWY_DYNAMIC_DISPATCH(multiply_pairs)(got);
    EXPECT_EQ(got.c[0], 0x1p-126f) << target;
  }
  set_cpu_target("best");
}

TEST(Pairs, FlushedOperations) {
  const float tiny = std::numeric_limits<float>::denorm_min();
  EXPECT_TRUE(same(cpu::flushed_fma(1.0f, 1.0f, -tiny), 1.0f));
  EXPECT_TRUE(same(cpu::flushed_fma(-0x1p-70f, 0x1p-60f, 0.0f), -0.0f));
  EXPECT_TRUE(same(cpu::flushed_fma(-0x1p-70f, 0x1p-100f, -0.0f), -0.0f));
  EXPECT_TRUE(same(cpu::flushed_fma(0x1p100f, 0x1p-100f, -1.0f), 0.0f));
  EXPECT_TRUE(same(cpu::flushed_add(0x1.8p-126f, -0x1p-126f), 0.0f));
  EXPECT_TRUE(same(cpu::flushed_mul(-0x1p-63f, 0x1.fp-64f), -0.0f));
  EXPECT_TRUE(same(cpu::flushed_mul(0x1p-63f, 0x1p-63f), 0x1p-126f));
#if defined(__x86_64__)
  Philox rng(5, RngPurpose::kTest);
  for (int i = 0; i < 200000; ++i) {
    const float a = to_f32(to_bf16(any_number(rng, i % 3)));
    const float b = to_f32(to_bf16(any_number(rng, i % 3)));
    const float c = any_number(rng, i % 3) * (i % 2 == 0 ? 0x1p-100f : 1.0f);
    volatile float x = a, y = b, z = c;
    volatile float fma = 0, sum = 0, product = 0;
    {
      const cpu::FlushScope flush;
      fma = std::fma(x, y, z);
      sum = x + z;
      product = x * y;
    }
    ASSERT_TRUE(same(cpu::flushed_fma(a, b, c), fma)) << a << " " << b << " " << c;
    ASSERT_TRUE(same(cpu::flushed_add(a, c), sum)) << a << " " << c;
    ASSERT_TRUE(same(cpu::flushed_mul(a, b), product)) << a << " " << b;
  }
#endif
}

TEST(Pairs, FlushEndsWithItsScope) {
  volatile float tiny = 0x1p-126f;
  {
    const cpu::FlushScope flush;
    EXPECT_EQ(tiny * 0.5f, 0.0f);
  }
  EXPECT_EQ(tiny * 0.5f, 0x1p-127f);
}

TEST(Pairs, Layouts) {
  for (const std::string& target : supported_cpu_targets()) {
    set_cpu_target(target);
    for (const size_t rows : {1, 4, 7, 32}) {
      for (const size_t words : {1, 3, 16, 33}) {
        std::vector<std::vector<uint32_t>> from(rows, std::vector<uint32_t>(words));
        for (size_t i = 0; i < rows; ++i)
          for (size_t p = 0; p < words; ++p) from[i][p] = static_cast<uint32_t>(i * 100 + p);
        std::vector<uint32_t> to(rows * words);
        HWY_DYNAMIC_DISPATCH(transpose_words)(from, to);
        for (size_t i = 0; i < rows; ++i)
          for (size_t p = 0; p < words; ++p) EXPECT_EQ(to[p * rows + i], from[i][p]);
      }
    }
    Philox rng(3, RngPurpose::kTest);
    std::vector<float> values(1003), expanded(1003);
    std::vector<Bf16> rounded(1003);
    for (float& value : values) value = std::bit_cast<float>(rng());
    values[0] = std::bit_cast<float>(0x3F808000u), values[1] = std::bit_cast<float>(0x3F818000u);
    values[2] = std::bit_cast<float>(0x7F800001u), values[3] = std::bit_cast<float>(0x7F7FFFFFu);
    HWY_DYNAMIC_DISPATCH(round_and_expand)(values, rounded, expanded);
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_EQ(rounded[i].bits, to_bf16(values[i]).bits) << target << " " << i;
      EXPECT_TRUE(same(expanded[i], to_f32(rounded[i])));
    }
  }
  set_cpu_target("best");
}

}  // namespace
}  // namespace orrery::kernels
#endif
