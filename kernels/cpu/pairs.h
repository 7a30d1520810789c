// Who multiplies bf16 operands (docs/numerics.md, "Pairs"): vectors, AMX's tiles, or
// their emulation. All give the same bits.
#pragma once

#include <cstdint>

namespace orrery::kernels::cpu {

/// Inner indices of a block of pairs.
inline constexpr int64_t kPairsBlock = 32;

enum class PairsEngine : uint8_t {
  kVectors,      ///< of the instruction set that is dispatched to
  kAmx,          ///< the machine's tiles
  kAmxEmulated,  ///< for tests: the kernels for tiles, on a CPU that has AVX-512 alone
};

/// The one that kernels take: set by set_cpu_target (kernels/numerics.h), at first AMX
/// where the CPU has it.
PairsEngine pairs_engine();
void set_pairs_engine(PairsEngine engine);

/// One fma of the recipe: subnormal operands count as zeros, a result that is tiny
/// after rounding becomes zero; on any machine, in any mode. a and b hold bf16 values.
float flushed_fma(float a, float b, float c);
/// One add, likewise.
float flushed_add(float a, float b);
/// One product, likewise.
float flushed_mul(float a, float b);

}  // namespace orrery::kernels::cpu
