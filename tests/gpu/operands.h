// Operands of the self-test: random numbers of every kind that a tensor core may treat
// in its own way, each a pure function of a seed and its place, so that a row of the
// table can be made again anywhere.
#pragma once

#include <cstdint>

#include "core/device_fn.h"
#include "kernels/dot16.h"

namespace orrery::selftest {

using kernels::dot_chain;
using kernels::dot_step;
using kernels::DotClass;
using kernels::kDot16Rz25;
using kernels::kDot8Rz24;
using kernels::kDotNan;
using kernels::kInfinityBits;

/// Kinds of a row of A or a column of B.
enum class Kind {
  kNormal,     ///< about N(0, 1)
  kMiddle,     ///< exponents -20..20
  kWide,       ///< every exponent of a finite number
  kAnyBits,    ///< NaN and infinities too
  kTiny,       ///< zeros, subnormals and the smallest numbers
  kHuge,       ///< exponents from 112 up
  kSparse,     ///< zeros of both signs but for a few
  kEdges,      ///< fractions of all ones or zeros, exponents within +-13: truncation
  kCancelled,  ///< pairs that cancel or nearly do, where both rows are of this kind
};
inline constexpr int kKinds = 9;

/// Kinds of an accumulator.
enum class StartKind {
  kZero,
  kMinusZero,
  kNormal,
  kWide,
  kAnyBits,
  kOpposite,  ///< minus the sum of the first products, give or take a few last places
  kAligned,   ///< near the bits where a term is cut away, or cuts the others away
  kSubnormal,
  kHuge,
};
inline constexpr int kStartKinds = 9;

/// 64 random bits of one place (the finaliser of splitmix64: Steele et al. 2014).
ORRERY_DEVICE_FN inline uint64_t random_bits(uint64_t seed, uint64_t place) {
  uint64_t x = seed * 0x9e3779b97f4a7c15ull + place + 0x632be59bd9b4e019ull;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ x >> 27) * 0x94d049bb133111ebull;
  return x ^ x >> 31;
}

ORRERY_DEVICE_FN inline uint16_t bf16_bits(uint64_t sign, int exponent_field, uint64_t fraction) {
  return static_cast<uint16_t>((sign & 1) << 15 | static_cast<uint64_t>(exponent_field) << 7 |
                               (fraction & 0x7f));
}

ORRERY_DEVICE_FN inline uint32_t f32_bits(uint64_t sign, int exponent_field, uint64_t fraction) {
  return static_cast<uint32_t>((sign & 1) << 31 | static_cast<uint64_t>(exponent_field) << 23 |
                               (fraction & 0x7fffff));
}

/// About N(0, 1), of four uniform numbers: 18 bits, so that 16 of them are the f32's
/// and
/// the upper ones the bf16's.
ORRERY_DEVICE_FN inline float normal_f32(uint64_t bits) {
  const int sum = static_cast<int>((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) +
                                   (bits >> 48));
  return static_cast<float>(sum - 131070) / 37837.0f;
}

ORRERY_DEVICE_FN inline Kind row_kind(uint64_t seed, int row) {
  return static_cast<Kind>(random_bits(seed, ~static_cast<uint64_t>(row)) % kKinds);
}

/// The bits of an f32; a union-free cast that both compilers know.
ORRERY_DEVICE_FN inline uint32_t bits_of(float x) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(x);
#else
  return __builtin_bit_cast(uint32_t, x);
#endif
}

ORRERY_DEVICE_FN inline uint16_t normal_bf16(uint64_t bits) {
  return static_cast<uint16_t>(bits_of(normal_f32(bits)) >> 16);
}

/// Element (row, k) of the operand with this seed.
ORRERY_DEVICE_FN inline uint16_t operand(uint64_t seed, int row, int k, bool is_b) {
  const uint64_t base = static_cast<uint64_t>(row) * 4096;
  const uint64_t bits = random_bits(seed, base + static_cast<uint64_t>(k));
  const uint64_t more = bits >> 40;
  const uint64_t sign = bits >> 20;
  switch (row_kind(seed, row)) {
    case Kind::kNormal:
      return normal_bf16(bits);
    case Kind::kMiddle:
      return bf16_bits(sign, 107 + static_cast<int>(more % 41), bits);
    case Kind::kWide:
      return bf16_bits(sign, static_cast<int>(more % 255), bits);
    case Kind::kAnyBits:
      return static_cast<uint16_t>(bits);
    case Kind::kTiny:
      return bf16_bits(sign, static_cast<int>(more % 3), more % 5 == 0 ? 0 : bits);
    case Kind::kHuge:
      return bf16_bits(sign, 239 + static_cast<int>(more % 16), bits);
    case Kind::kSparse:
      return more % 8 != 0 ? bf16_bits(sign, 0, 0)
                           : bf16_bits(sign, 97 + static_cast<int>(more % 61), bits);
    case Kind::kEdges: {
      const uint64_t fraction = more % 3 == 0 ? 0x7f : more % 3 == 1 ? 0 : 1;
      return bf16_bits(sign, 114 + static_cast<int>(more / 3 % 27), fraction);
    }
    case Kind::kCancelled:
      break;
  }
  const uint64_t pair = random_bits(seed, base + static_cast<uint64_t>(k & ~1));
  const uint16_t first = bf16_bits(pair >> 20, 117 + static_cast<int>((pair >> 40) % 21), pair);
  if ((k & 1) == 0 || is_b) return first;
  return static_cast<uint16_t>((first ^ 0x8000) + ((pair >> 50) % 4 == 0 ? 1 : 0));
}

/// Accumulator (row, column) of the tile with this seed, over a row of A and a column
/// of B.
ORRERY_DEVICE_FN inline uint32_t start_value(uint64_t seed, int row, int column, const uint16_t* a,
                                             const uint16_t* b) {
  const uint64_t bits =
      random_bits(seed ^ 0x5bd1e9955bd1e995ull,
                  static_cast<uint64_t>(row) * 65536 + static_cast<uint64_t>(column));
  const uint64_t more = bits >> 40;
  const uint64_t sign = bits >> 24;
  const auto kind = static_cast<StartKind>((bits >> 32) % kStartKinds);
  switch (kind) {
    case StartKind::kZero:
      return 0;
    case StartKind::kMinusZero:
      return 0x80000000u;
    case StartKind::kNormal:
      return bits_of(normal_f32(bits));
    case StartKind::kWide:
      return f32_bits(sign, static_cast<int>(more % 255), bits);
    case StartKind::kAnyBits:
      return static_cast<uint32_t>(bits);
    case StartKind::kOpposite: {
      const uint32_t sum = dot_step(a, b, 0, kDot16Rz25);
      return (sum ^ 0x80000000u) + static_cast<uint32_t>(more % 5) - 2;
    }
    case StartKind::kAligned: {
      const int field = static_cast<int>(dot_step(a, b, 0, kDot16Rz25) >> 23 & 0xff);
      const int shifted = field + static_cast<int>(more % 61) - 30;
      return f32_bits(sign, shifted < 0 ? 0 : shifted > 254 ? 254 : shifted, bits);
    }
    case StartKind::kSubnormal:
      return f32_bits(sign, 0, bits >> more % 23);
    case StartKind::kHuge:
      return f32_bits(sign, 250 + static_cast<int>(more % 5), bits);
  }
  return 0;
}

}  // namespace orrery::selftest
