#include "kernels/numerics.h"

#include "core/cuda_api.h"
#include "core/error.h"
#include "kernels/cpu/amx.h"
#include "kernels/cpu/pairs.h"
#include "kernels/cpu/targets.h"

// After targets.h.
#include "hwy/targets.h"

namespace orrery::kernels {
namespace {

using cpu::PairsEngine;

struct CpuTarget {
  int64_t bit;
  const char* key;      ///< as set_cpu_target takes it
  const char* display;  ///< as cpu_target_name prints it
  PairsEngine pairs = PairsEngine::kVectors;
};

constexpr CpuTarget kCpuTargets[] = {
// best last
#if defined(__x86_64__)
    {HWY_AVX2, "avx2", "AVX2"},
    {HWY_AVX3, "avx512", "AVX-512"},
    {HWY_AVX3, "amx", "AVX-512 and AMX", PairsEngine::kAmx},
#else
    {HWY_NEON, "neon", "NEON"},
#endif
};

/// The kernels for AMX's tiles on a CPU without them.
[[maybe_unused]] constexpr const char* kEmulatedAmx = "amx-emulated";

/// Those of the targets we build for that this CPU has, whatever set_cpu_target did.
int64_t hardware_targets() {
  static const int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;
  return targets;
}

bool is_supported(const CpuTarget& target) {
  return (hardware_targets() & target.bit) && (target.pairs != PairsEngine::kAmx || cpu::has_amx());
}

}  // namespace

void fail_unsupported_cpu() {
#if defined(__x86_64__)
  fail(
      "this CPU cannot run Orrery's kernels: it lacks AVX2 with FMA, BMI2 and F16C; "
      "use an x86-64 CPU of 2013 (Intel Haswell), 2015 (AMD Excavator) or later, "
      "or let the virtual machine pass those flags on");
#else
  fail(
      "this CPU cannot run Orrery's kernels: it lacks NEON with the AES extension; "
      "use an ARMv8-A CPU that has both");
#endif
}

const NumericsClassInfo& numerics_class_info(NumericsClass numerics) {
  for (const NumericsClassInfo& info : kNumericsClasses) {
    if (info.numerics == numerics) return info;
  }
  fail("numerics class {} is not one of this build", static_cast<int>(numerics));
}

NumericsClass numerics_class(Device device, DType compute_dtype) {
  if (device.type == DeviceType::kCuda && !kCudaBuilt)
    fail("this build has no kernels for device {}: use cpu", device_name(device));
  switch (compute_dtype) {
    case DType::kF32:
      return NumericsClass::kF32Chain;
    case DType::kBF16:
      return device.dot16() ? NumericsClass::kDot16 : NumericsClass::kPairs;
    default:
      fail("matrices of {}: a model computes with f32 or bf16", dtype_name(compute_dtype));
  }
}

void require_numerics(Device device, DType compute_dtype) {
  if (numerics_class(device, compute_dtype) != NumericsClass::kDot16) return;
  if constexpr (kCudaBuilt) {
    if (device.type != DeviceType::kCuda) return;
    cuda_api::use(device);
    if (const std::string why = cuda_api::bf16_misfit(device); !why.empty())
      fail_usage("device {} {}: use f32 instead of bf16, or another device", device_name(device),
                 why);
  }
}

void require_instruction_sets() {
  if (hardware_targets() == 0) fail_unsupported_cpu();
}

std::string cpu_target_name() {
  const int64_t enabled = hwy::SupportedTargets();
  const bool amx = cpu::pairs_engine() == PairsEngine::kAmx;
  const char* name = "unsupported";
  for (const CpuTarget& target : kCpuTargets) {
    if ((enabled & target.bit) && (target.pairs != PairsEngine::kAmx || amx)) name = target.display;
  }
  return name;
}

void set_cpu_target(const std::string& name) {
  if (name == "best") {
    hwy::SetSupportedTargetsForTest(0);
    cpu::set_pairs_engine(cpu::has_amx() ? PairsEngine::kAmx : PairsEngine::kVectors);
    return;
  }
#if defined(__x86_64__)
  if (name == kEmulatedAmx && (hardware_targets() & HWY_AVX3)) {
    hwy::SetSupportedTargetsForTest(HWY_AVX3);
    cpu::set_pairs_engine(PairsEngine::kAmxEmulated);
    return;
  }
#endif
  for (const CpuTarget& target : kCpuTargets) {
    if (name == target.key && is_supported(target)) {
      hwy::SetSupportedTargetsForTest(target.bit);
      cpu::set_pairs_engine(target.pairs);
      return;
    }
  }
  std::string known = "best";
  for (const std::string& key : supported_pairs_targets()) known += ", " + key;
  fail_usage("CPU target '{}' is unknown or not supported by this CPU; choose one of: {}", name,
             known);
}

std::vector<std::string> supported_cpu_targets() {
  std::vector<std::string> keys;
  for (const CpuTarget& target : kCpuTargets) {
    if (is_supported(target)) keys.emplace_back(target.key);
  }
  return keys;
}

std::vector<std::string> supported_pairs_targets() {
  std::vector<std::string> keys = supported_cpu_targets();
#if defined(__x86_64__)
  if (hardware_targets() & HWY_AVX3) keys.emplace_back(kEmulatedAmx);
#endif
  return keys;
}

}  // namespace orrery::kernels
