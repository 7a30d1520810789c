// What one bf16 step of a tensor core computes, as a model of integers: it defines the
// results of products of bf16 on GPUs (docs/numerics.md, "Dot16"), and the self-test
// (tests/gpu/selftest.cu) holds it against the hardware. It is for tests and for the
// emulator; kernels/cpu/dot16.h is the fast one.
// Sources: Khattak and Mikaitis, "Accurate Models of NVIDIA Tensor Cores", 2025; the
// published outputs beside it; docs/numerics.md.
//
// A step takes n products a_i b_i of bf16 numbers and an accumulator c (f32).
// Any operand not finite: the IEEE result of the sum, with NaN as 0x7fffffff.
// Otherwise:
//   1. Products and accumulators of zero take no part.
//   2. The exponent of a product is the sum of its factors' exponents, not
//      renormalised; subnormal numbers count with exponent -126 and no hidden bit.
//   3. E is the largest exponent of the terms, at least -133.
//   4. Each term is cut toward zero to a multiple of 2^(E - F); the cut terms are added
//      exactly, so their order is irrelevant.
//   5. The sum is cut toward zero to f32, subnormals included; past the largest number
//      it is infinite; whatever becomes zero is +0.
// A chain over k takes c from the step before.
#pragma once

#include <cstdint>

#include "core/device_fn.h"

namespace orrery::kernels {

/// A class of tensor cores that compute the same bits.
struct DotClass {
  int products;       ///< n of a step
  int fraction_bits;  ///< F
};
/// H100, H200 and B200.
inline constexpr DotClass kDot16Rz25{16, 25};
/// A100.
inline constexpr DotClass kDot8Rz24{8, 24};

inline constexpr uint32_t kDotNan = 0x7fffffffu;
inline constexpr uint32_t kInfinityBits = 0x7f800000u;

/// A finite number as significand * 2^exponent * 2^-(bits of its fraction).
struct Unpacked {
  int exponent;
  uint32_t significand;
};

ORRERY_DEVICE_FN inline Unpacked unpack_bf16(uint16_t bits) {
  const int field = bits >> 7 & 0xff;
  const uint32_t fraction = bits & 0x7fu;
  return field == 0 ? Unpacked{-126, fraction} : Unpacked{field - 127, fraction | 0x80u};
}

ORRERY_DEVICE_FN inline Unpacked unpack_f32(uint32_t bits) {
  const int field = static_cast<int>(bits >> 23 & 0xffu);
  const uint32_t fraction = bits & 0x7fffffu;
  return field == 0 ? Unpacked{-126, fraction} : Unpacked{field - 127, fraction | 0x800000u};
}

/// The step's result where an operand is not finite.
ORRERY_DEVICE_FN inline uint32_t dot_not_finite(const uint16_t* a, const uint16_t* b, uint32_t c,
                                                int products) {
  constexpr uint32_t kBf16Infinity = 0x7f80u;
  bool is_nan = (c & 0x7fffffffu) > kInfinityBits;
  bool plus = c == kInfinityBits;
  bool minus = c == (kInfinityBits | 0x80000000u);
  for (int i = 0; i < products; ++i) {
    const uint32_t x = a[i] & 0x7fffu, y = b[i] & 0x7fffu;
    if (x < kBf16Infinity && y < kBf16Infinity) continue;
    if (x > kBf16Infinity || y > kBf16Infinity || x == 0 || y == 0) is_nan = true;
    (((a[i] ^ b[i]) & 0x8000u) != 0 ? minus : plus) = true;
  }
  if (is_nan || (plus && minus)) return kDotNan;
  return plus ? kInfinityBits : kInfinityBits | 0x80000000u;
}

/// value * 2^unit cut toward zero to f32.
ORRERY_DEVICE_FN inline uint32_t cut_to_f32(int64_t value, int unit) {
  if (value == 0) return 0;
  const uint32_t sign = value < 0 ? 0x80000000u : 0;
  const auto magnitude = static_cast<uint64_t>(value < 0 ? -value : value);
  int top = 0;
  while (magnitude >> top > 1) ++top;
  const int exponent = top + unit;
  if (exponent > 127) return sign | kInfinityBits;
  const bool is_subnormal = exponent < -126;
  const int shift = is_subnormal ? -149 - unit : top - 23;
  const auto significand =
      static_cast<uint32_t>(shift >= 0 ? magnitude >> shift : magnitude << -shift);
  if (significand == 0) return 0;
  if (is_subnormal) return sign | significand;
  return sign | static_cast<uint32_t>(exponent + 127) << 23 | (significand & 0x7fffffu);
}

/// One step: a and b hold `tensor_core.products` bf16 numbers each, c the bits of an
/// f32.
ORRERY_DEVICE_FN inline uint32_t dot_step(const uint16_t* a, const uint16_t* b, uint32_t c,
                                          DotClass tensor_core) {
  bool finite = (c & kInfinityBits) != kInfinityBits;
  for (int i = 0; i < tensor_core.products; ++i)
    finite = finite && (a[i] & 0x7f80) != 0x7f80 && (b[i] & 0x7f80) != 0x7f80;
  if (!finite) return dot_not_finite(a, b, c, tensor_core.products);

  constexpr int kLeastExponent = -133;
  const Unpacked start = unpack_f32(c);
  int largest = kLeastExponent;
  if (start.significand != 0 && start.exponent > largest) largest = start.exponent;
  for (int i = 0; i < tensor_core.products; ++i) {
    const Unpacked x = unpack_bf16(a[i]), y = unpack_bf16(b[i]);
    const bool is_zero = x.significand == 0 || y.significand == 0;
    if (!is_zero && x.exponent + y.exponent > largest) largest = x.exponent + y.exponent;
  }

  const int unit = largest - tensor_core.fraction_bits;
  int64_t sum = 0;
  // significand * 2^exponent, where the exponent counts its last place, in whole units.
  const auto add = [&](uint64_t significand, int exponent, bool is_negative) {
    const int shift = exponent - unit;
    const uint64_t cut = shift >= 0     ? significand << shift
                         : shift <= -64 ? 0
                                        : significand >> -shift;
    sum += is_negative ? -static_cast<int64_t>(cut) : static_cast<int64_t>(cut);
  };
  if (start.significand != 0) add(start.significand, start.exponent - 23, c >> 31 != 0);
  for (int i = 0; i < tensor_core.products; ++i) {
    const Unpacked x = unpack_bf16(a[i]), y = unpack_bf16(b[i]);
    const uint64_t product = uint64_t{x.significand} * y.significand;
    if (product != 0) add(product, x.exponent + y.exponent - 14, ((a[i] ^ b[i]) & 0x8000) != 0);
  }
  return cut_to_f32(sum, unit);
}

/// A chain of steps over k products, a multiple of the step's.
ORRERY_DEVICE_FN inline uint32_t dot_chain(const uint16_t* a, const uint16_t* b, int k, uint32_t c,
                                           DotClass tensor_core) {
  for (int i = 0; i < k; i += tensor_core.products) c = dot_step(a + i, b + i, c, tensor_core);
  return c;
}

}  // namespace orrery::kernels
