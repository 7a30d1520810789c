// exp and log of one float, with the bits that math-inl.h gives a vector: made of add,
// multiply, fma and integer ops only, each rounded once, so that every instruction set
// and the scalar references in tests agree (docs/numerics.md).
//
// exp: n = round(x / ln 2); r = x - n ln 2 in two fmas (Cody and Waite 1980); a
// polynomial of degree 6 in r (minimax, found by Lawson's algorithm, constant and
// linear terms fixed at 1); then times 2^n, which is exact. At most 1 ulp off. exp(0) =
// 1 and exp(x) <= 1 for x <= 0. Below kExpUnderflow (result under the smallest normal
// number) it is 0, so that no denormal is ever made; above kExpOverflow (result over
// 2.4e38) it is +inf. NaN gives NaN.
//
// exp2: likewise with n = round(x) and r = x - n, which is exact; the polynomial is of
// degree 5 (minimax by Lawson's algorithm, the constant term fixed at 1), at most 2.1
// ulp off. Below -125 it is 0, from 127 on +inf. It is attention's in the class
// dot16-rz25, where a GPU evaluates it for every key.
//
// log: x = 2^e m with m in [sqrt(1/2), sqrt(2)); log m = f - f^2/2 + f^3 P(f) with
// f = m - 1 and P of degree 7 (minimax as above). At most 2 ulp off. 0 and denormals
// give -inf, negative numbers NaN, +inf +inf, NaN NaN.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/device_fn.h"

namespace orrery::kernels {

inline constexpr float kExpUnderflow = -87.33654f;
inline constexpr float kExpOverflow = 88.37626f;
inline constexpr float kLog2E = 0x1.715476p+0f;
inline constexpr float kLn2High = 0x1.62e43p-1f;
inline constexpr float kLn2Low = -0x1.05c61p-29f;
inline constexpr float kExp2Underflow = -125.0f;
inline constexpr float kExp2Overflow = 127.0f;
/// Adding it rounds to an integer, found in the low bits of the sum (|x| < 2^22).
inline constexpr float kRoundMagic = 0x1.8p+23f;

// Functions rather than arrays: device code cannot name an array of the namespace.
/// exp(r) = 1 + r + exp_poly(0) r^2 + ... + exp_poly(4) r^6.
ORRERY_DEVICE_FN constexpr float exp_poly(int i) {
  constexpr float kPoly[5] = {0x1.fffffcp-2f, 0x1.55549p-3f, 0x1.5558f8p-5f, 0x1.123b02p-7f,
                              0x1.6a2256p-10f};
  return kPoly[i];
}
/// exp2(r) = 1 + exp2_poly(0) r + ... + exp2_poly(4) r^5.
ORRERY_DEVICE_FN constexpr float exp2_poly(int i) {
  constexpr float kPoly[5] = {0x1.62e42ap-1f, 0x1.ebf9bcp-3f, 0x1.c6b754p-5f, 0x1.3cea88p-7f,
                              0x1.5bb9fep-10f};
  return kPoly[i];
}
/// log(1 + f) = f - f^2 / 2 + f^3 (log_poly(0) + ... + log_poly(7) f^7).
ORRERY_DEVICE_FN constexpr float log_poly(int i) {
  constexpr float kPoly[8] = {0x1.555554p-2f, -0x1.00022ap-2f, 0x1.99a028p-3f, -0x1.54712cp-3f,
                              0x1.22d64ep-3f, -0x1.0d8cacp-3f, 0x1.057bep-3f,  -0x1.38e07cp-4f};
  return kPoly[i];
}
/// Bits of the float below which m would leave [sqrt(1/2), sqrt(2)).
inline constexpr int32_t kSqrtHalfBits = 0x3f3504f3;

ORRERY_DEVICE_FN inline float exp_f32(float x) {
  if (x != x) return x;
  if (x < kExpUnderflow) return 0.0f;
  if (x > kExpOverflow) return std::numeric_limits<float>::infinity();
  const float t = std::fma(x, kLog2E, kRoundMagic);
  const float n = t - kRoundMagic;
  float r = std::fma(n, -kLn2High, x);
  r = std::fma(n, -kLn2Low, r);
  float p = exp_poly(4);
  for (int i = 3; i >= 0; --i) p = std::fma(p, r, exp_poly(i));
  p = std::fma(p, r, 1.0f);
  p = std::fma(p, r, 1.0f);
  const uint32_t exponent =
      (std::bit_cast<uint32_t>(t) - std::bit_cast<uint32_t>(kRoundMagic) + 127u) << 23;
  return p * std::bit_cast<float>(exponent);
}

ORRERY_DEVICE_FN inline float exp2_f32(float x) {
  if (x != x) return x;
  if (x < kExp2Underflow) return 0.0f;
  if (x >= kExp2Overflow) return std::numeric_limits<float>::infinity();
  const float t = x + kRoundMagic;
  const float r = x - (t - kRoundMagic);
  float p = exp2_poly(4);
  for (int i = 3; i >= 0; --i) p = std::fma(p, r, exp2_poly(i));
  p = std::fma(p, r, 1.0f);
  const uint32_t exponent =
      (std::bit_cast<uint32_t>(t) - std::bit_cast<uint32_t>(kRoundMagic) + 127u) << 23;
  return p * std::bit_cast<float>(exponent);
}

ORRERY_DEVICE_FN inline float log_f32(float x) {
  if (x != x) return x;
  if (x < 0.0f) return std::numeric_limits<float>::quiet_NaN();
  if (x < std::numeric_limits<float>::min()) return -std::numeric_limits<float>::infinity();
  if (x == std::numeric_limits<float>::infinity()) return x;
  const int32_t offset = std::bit_cast<int32_t>(x) - kSqrtHalfBits;
  const float e = static_cast<float>(offset >> 23);
  const float f = std::bit_cast<float>((offset & 0x7fffff) + kSqrtHalfBits) - 1.0f;
  float p = log_poly(7);
  for (int i = 6; i >= 0; --i) p = std::fma(p, f, log_poly(i));
  p = std::fma(p, f, -0.5f);
  const float tail = std::fma(e, kLn2Low, p * (f * f));
  return std::fma(e, kLn2High, f + tail);
}

}  // namespace orrery::kernels
