// What bits a build of the kernels produces, and on which instruction set it runs.
// docs/numerics.md has the contract: every op sums as a *chain* (fused multiply-adds in
// index order, starting from the value already there), in *lanes* (16 partial sums,
// element i in lane i mod 16, folded 8, 4, 2, 1) or, with bf16 operands, in *pairs* or
// in *dot16*, so results depend on neither the vector width nor threads nor how a batch
// is cut.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/context.h"
#include "core/dtype.h"

namespace orrery::kernels {

/// An arithmetic in which a model's numbers are computed. Its definition names no
/// device: wherever a class of one version runs, its bits are the same.
enum class NumericsClass : uint8_t {
  kF32Chain,  ///< f32 operands of products, summed in chains
  kPairs,     ///< bf16 operands, summed in pairs
  kDot16,     ///< bf16 operands, summed as the tensor cores of H100, H200, B200 do
};

struct NumericsClassInfo {
  NumericsClass numerics;
  const char* name;  ///< as files have it
  /// It goes up with any change of the bits of an op of the class, or of the order of
  /// the sums in learners/.
  uint32_t version;
};
inline constexpr NumericsClassInfo kNumericsClasses[] = {
    {NumericsClass::kF32Chain, "f32-chain", 2},
    {NumericsClass::kPairs, "pairs", 1},
    {NumericsClass::kDot16, "dot16-rz25", 1},
};
const NumericsClassInfo& numerics_class_info(NumericsClass numerics);

/// The class in which a model with matrices of `compute_dtype` computes on `device`.
/// Error for a device that this build has no kernels for, and for another type. Touches
/// no device, so commands ask before they do.
NumericsClass numerics_class(Device device, DType compute_dtype);

/// Asks the device whether it has numerics_class()'s arithmetic: a usage Error, naming
/// it, for bf16 on a GPU whose tensor cores are not known to sum as the class says.
void require_numerics(Device device, DType compute_dtype);

/// Number of partial sums of a lanes sum.
inline constexpr int kSumLanes = 16;

/// Throws Error naming what is missing when this CPU has none of the instruction sets
/// that the kernels are built for (x86-64: AVX2 + FMA; Arm: NEON). Call once at
/// start-up, before any op.
void require_instruction_sets();

/// Name of the instruction set that the kernels use here: "AVX-512 and AMX", "AVX-512",
/// "AVX2", "NEON".
std::string cpu_target_name();

/// Restricts dispatch to one target: "avx2", "avx512" (without AMX), "amx" (AVX-512,
/// and AMX for bf16 products), "neon", or "best" for no restriction. For tests and
/// comparisons; for tests alone there is "amx-emulated", AMX's kernels on AVX-512.
/// Throws a usage Error for a name that is unknown or not supported by this CPU. Not
/// thread-safe: call at start-up.
void set_cpu_target(const std::string& name);

/// Names that set_cpu_target accepts on this machine, without "best".
std::vector<std::string> supported_cpu_targets();

/// The same, and "amx-emulated" where it runs: the ways in which bf16 products are
/// computed.
std::vector<std::string> supported_pairs_targets();

}  // namespace orrery::kernels
