#include "core/dtype.h"

#include <cmath>

namespace orrery {

float f16_to_f32(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1Fu;
  const uint32_t mantissa = bits & 0x3FFu;
  if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  const float units = mantissa;  // 10 bits: exact
  const float magnitude = std::ldexp(units, -24);
  return sign ? -magnitude : magnitude;
}

}  // namespace orrery
