// Element types. Sums are always float32 (docs/numerics.md); bf16 is what operands of
// products are rounded to where a model computes in bf16, f16 is for files alone.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/error.h"

namespace orrery {

enum class DType : uint8_t { kF32, kBF16, kF16, kI32, kI64 };

constexpr size_t dtype_bytes(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBF16:
    case DType::kF16:
      return 2;
    case DType::kI64:
      return 8;
  }
  return 0;
}

constexpr std::string_view dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "f32";
    case DType::kBF16:
      return "bf16";
    case DType::kF16:
      return "f16";
    case DType::kI32:
      return "i32";
    case DType::kI64:
      return "i64";
  }
  return "?";
}

/// bf16 bits -> float32, exact.
inline float bf16_to_f32(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

/// float32 -> bf16 bits, round to nearest even; NaN stays NaN.
inline uint16_t f32_to_bf16(float value) {
  const uint32_t u = std::bit_cast<uint32_t>(value);
  if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (u >> 16) | 0x40u;
  return (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
}

/// float32 -> bf16 bits, round to nearest, halves away from zero: weights are rounded
/// so. bf16 and the lower 16 bits of the float then give it back exactly. NaN stays
/// NaN.
inline uint16_t f32_to_bf16_half_away(float value) {
  const uint32_t u = std::bit_cast<uint32_t>(value);
  if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (u >> 16) | 0x40u;
  return (u + 0x8000u) >> 16;
}

/// An element of a bf16 matrix: a type of its own, so that no code takes its bits for a
/// number.
struct Bf16 {
  uint16_t bits;  // no initializer: arrays of scratch memory would be cleared
};
inline float to_f32(Bf16 value) { return bf16_to_f32(value.bits); }
/// Rounds to nearest even.
inline Bf16 to_bf16(float value) { return {f32_to_bf16(value)}; }

/// The DType of a C++ element type.
template <class T>
inline constexpr DType kDTypeOf = DType::kF32;
template <>
inline constexpr DType kDTypeOf<Bf16> = DType::kBF16;

/// f16 (IEEE binary16) bits -> float32, exact (subnormals included).
float f16_to_f32(uint16_t bits);

}  // namespace orrery
