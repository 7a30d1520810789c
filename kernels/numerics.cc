#include "kernels/numerics.h"

#include "core/cuda_api.h"
#include "core/error.h"
#include "kernels/cpu/targets.h"

// After targets.h.
#include "hwy/targets.h"

namespace orrery::kernels {
namespace {

struct CpuTarget {
  int64_t bit;
  const char* key;      ///< as set_cpu_target takes it
  const char* display;  ///< as cpu_target_name prints it
};

constexpr CpuTarget kCpuTargets[] = {
// best last
#if defined(__x86_64__)
    {HWY_AVX2, "avx2", "AVX2"},
    {HWY_AVX3, "avx512", "AVX-512"},
#else
    {HWY_NEON, "neon", "NEON"},
#endif
};

/// Those of the targets we build for that this CPU has, whatever set_cpu_target did.
int64_t hardware_targets() {
  static const int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;
  return targets;
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
  if (device.type == DeviceType::kCuda) {
    if (!kCudaBuilt) fail("this build has no kernels for device {}: use cpu", device_name(device));
    if (compute_dtype == DType::kBF16) {
      fail_usage("device {} computes in f32 alone so far: use f32 instead of bf16, or device cpu",
                 device_name(device));
    }
  }
  switch (compute_dtype) {
    case DType::kF32:
      return NumericsClass::kF32Chain;
    case DType::kBF16:
      return NumericsClass::kBf16Storage;
    default:
      fail("matrices of {}: a model computes with f32 or bf16", dtype_name(compute_dtype));
  }
}

void require_instruction_sets() {
  if (hardware_targets() == 0) fail_unsupported_cpu();
}

std::string cpu_target_name() {
  const int64_t enabled = hwy::SupportedTargets();
  const char* name = "unsupported";
  for (const CpuTarget& target : kCpuTargets) {
    if (enabled & target.bit) name = target.display;
  }
  return name;
}

void set_cpu_target(const std::string& name) {
  const int64_t hardware = hardware_targets();
  if (name == "best") {
    hwy::SetSupportedTargetsForTest(0);
    return;
  }
  for (const CpuTarget& target : kCpuTargets) {
    if (name == target.key && (hardware & target.bit)) {
      hwy::SetSupportedTargetsForTest(target.bit);
      return;
    }
  }
  std::string known = "best";
  for (const std::string& key : supported_cpu_targets()) known += ", " + key;
  fail_usage("CPU target '{}' is unknown or not supported by this CPU; choose one of: {}", name,
             known);
}

std::vector<std::string> supported_cpu_targets() {
  std::vector<std::string> keys;
  for (const CpuTarget& target : kCpuTargets) {
    if (hardware_targets() & target.bit) keys.emplace_back(target.key);
  }
  return keys;
}

}  // namespace orrery::kernels
