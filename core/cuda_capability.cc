#include "core/cuda_capability.h"

#include <charconv>

#include "core/error.h"

namespace orrery {
namespace {

constexpr std::string_view kSeparators = " ;";

bool word_runs_on(std::string_view word, CudaCapability device) {
  int number = 0;
  const auto [end, error] = std::from_chars(word.begin(), word.end(), number);
  std::string_view rest(end, word.end());
  const CudaCapability built{number / 10, number % 10};
  const bool alone = rest.starts_with("a");
  if (alone) rest.remove_prefix(1);
  const bool code = rest.empty() || rest == "-real", ptx = rest.empty() || rest == "-virtual";
  ORRERY_CHECK(error == std::errc() && number >= 10 && (code || ptx), "'{}' is no architecture",
               word);
  const bool same = device.major == built.major && device.minor == built.minor;
  if (alone || same) return same;
  const bool later_minor = device.major == built.major && device.minor > built.minor;
  return (code && later_minor) || (ptx && (later_minor || device.major > built.major));
}

std::string version(int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }

}  // namespace

bool runs_on(std::string_view architectures, CudaCapability device) {
  while (!architectures.empty()) {
    const size_t begin = architectures.find_first_not_of(kSeparators);
    if (begin == std::string_view::npos) break;
    architectures.remove_prefix(begin);
    const std::string_view word = architectures.substr(0, architectures.find_first_of(kSeparators));
    if (word_runs_on(word, device)) return true;
    architectures.remove_prefix(word.size());
  }
  return false;
}

std::string not_built_for(std::string_view architectures, std::string_view model,
                          CudaCapability capability) {
  return fmt::format(
      "has compute capability {}.{} ({}), and this build's kernels are for {} (the CMake option "
      "ORRERY_CUDA_ARCHITECTURES)",
      capability.major, capability.minor, model, architectures);
}

bool sums_dot16(CudaCapability capability) {
  return capability.major == 9 || capability.major == 10;
}

std::string other_bf16(std::string_view model, CudaCapability capability) {
  return fmt::format(
      "has compute capability {}.{} ({}), whose tensor cores are not known to sum as those of 9.x "
      "and 10.x (H100, H200, B200)",
      capability.major, capability.minor, model);
}

std::string no_cuda_device(std::string_view device, std::string_view reason, int driver,
                           int runtime) {
  if (driver == 0) {
    return fmt::format("device {}: there is no NVIDIA driver on this machine: use cpu", device);
  }
  if (driver / 1000 < runtime / 1000) {
    return fmt::format(
        "device {}: its driver is for CUDA {}, and this program needs one for CUDA {} or later: "
        "install a newer driver, or use cpu",
        device, version(driver), version(runtime / 1000 * 1000));
  }
  return fmt::format("device {}: {}: use another device", device, reason);
}

}  // namespace orrery
