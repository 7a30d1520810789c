// f32 arithmetic that host and device must agree on to the bit, and conversions: one
// inline function for both, summed up in a checksum a block of inputs, so that all 2^32
// inputs of a function can be compared.
#pragma once

#include <cuda_bf16.h>

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/scalar_math.h"
#include "learners/losses/gspo.h"
#include "learners/losses/ppo.h"
#include "tests/gpu/operands.h"

namespace orrery::selftest {

/// Those before kAdd take one number.
enum class FloatOp {
  kExp,
  kLog,
  kToBf16,
  kReciprocal,
  kSqrt,
  kAdd,
  kMultiply,
  kFma,
  kDivide,
  kLoss
};

ORRERY_DEVICE_FN inline float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }

/// NaNs have other bits on a GPU than on a CPU: they count as equal.
ORRERY_DEVICE_FN inline uint32_t canonical(float x) { return x != x ? kDotNan : bits_of(x); }

/// Round to nearest even, NaN to 0x7fff: the contract of bf16 stores.
ORRERY_DEVICE_FN inline uint16_t to_bf16(float x) {
#ifdef __CUDA_ARCH__
  return __bfloat16_as_ushort(__float2bfloat16_rn(x));
#else
  const uint32_t bits = bits_of(x);
  if (x != x) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
#endif
}

/// One of three operands: any bits, or numbers of near exponents, so that adds round.
ORRERY_DEVICE_FN inline float float_operand(uint64_t place, int which) {
  const uint64_t bits = random_bits(77 + static_cast<uint64_t>(which), place);
  if (place % 4 == 0) return float_of(static_cast<uint32_t>(bits));
  if (place % 4 == 1) return float_of(f32_bits(bits >> 40, static_cast<int>(bits >> 32 & 3), bits));
  const auto field = static_cast<int>(random_bits(5, place) % 200 + bits / 3 % 50);
  return float_of(f32_bits(bits >> 40, field, bits));
}

ORRERY_DEVICE_FN inline learners::LossToken random_token(uint64_t place) {
  learners::LossToken token;
  token.logp = -float_of(f32_bits(0, 110 + static_cast<int>(place % 20), random_bits(1, place)));
  token.old_logp = token.logp + normal_f32(random_bits(2, place)) * 0.3f;
  token.advantage = normal_f32(random_bits(3, place));
  token.coefficient = normal_f32(random_bits(4, place)) * 0.001f;
  return token;
}

ORRERY_DEVICE_FN inline uint32_t loss_result(uint64_t i) {
  const learners::LossToken token = random_token(i);
  const learners::PolicyTerm ppo = learners::Ppo{}(token);
  const learners::PolicyTerm gspo = learners::Gspo{3e-4f, 4e-4f}(token);
  uint32_t sum = canonical(ppo.loss) + canonical(ppo.dlogp) * 3 + canonical(gspo.loss) * 5 +
                 canonical(gspo.dlogp) * 7;
  for (int term = 0; term < 3; ++term)
    sum = sum * 31 + canonical(ppo.terms[term]) + 17 * canonical(gspo.terms[term]);
  return sum;
}

/// The op's result for input i: the f32 with these bits where it takes one number.
template <FloatOp kOp>
ORRERY_DEVICE_FN inline uint32_t float_result(uint64_t i) {
  if constexpr (kOp < FloatOp::kAdd) {
    const float x = float_of(static_cast<uint32_t>(i));
    if constexpr (kOp == FloatOp::kExp) return canonical(kernels::exp_f32(x));
    if constexpr (kOp == FloatOp::kLog) return canonical(kernels::log_f32(x));
    if constexpr (kOp == FloatOp::kToBf16) return to_bf16(x);
    if constexpr (kOp == FloatOp::kReciprocal) return canonical(1.0f / x);
    return canonical(std::sqrt(x));
  }
  if constexpr (kOp == FloatOp::kLoss) return loss_result(i);
  const float x = float_operand(i, 0), y = float_operand(i, 1);
  if constexpr (kOp == FloatOp::kAdd) return canonical(x + y);
  if constexpr (kOp == FloatOp::kMultiply) return canonical(x * y);
  if constexpr (kOp == FloatOp::kFma) return canonical(std::fma(x, y, float_operand(i, 2)));
  return canonical(x / y);
}

ORRERY_DEVICE_FN inline uint64_t checksum_of(uint64_t i, uint32_t result) {
  return random_bits(result, i);
}

/// Adds up the checksums of results [first, first + count) into *out.
template <FloatOp kOp>
__global__ void float_checksum(uint64_t first, uint64_t count, unsigned long long* out) {
  uint64_t sum = 0;
  const uint64_t stride = uint64_t{gridDim.x} * blockDim.x;
  for (uint64_t i = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride)
    sum += checksum_of(first + i, float_result<kOp>(first + i));
  atomicAdd(out, static_cast<unsigned long long>(sum));
}

template <FloatOp kOp>
__global__ void float_results(uint64_t first, uint64_t count, uint32_t* out) {
  const uint64_t i = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) out[i] = float_result<kOp>(first + i);
}

}  // namespace orrery::selftest
