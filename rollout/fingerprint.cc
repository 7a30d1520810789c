#include "rollout/fingerprint.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace orrery::rollout {
namespace {

using kernels::NumericsClass;

std::optional<uint32_t> version_from_text(std::string_view text) {
  const bool digits =
      !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
  uint32_t version = 0;
  if (!digits || std::from_chars(text.begin(), text.end(), version).ec != std::errc())
    return std::nullopt;
  return version;
}

}  // namespace

Fingerprint fingerprint_of(Device device, DType compute_dtype) {
  const NumericsClass numerics = kernels::numerics_class(device, compute_dtype);
  return {numerics, kernels::numerics_class_info(numerics).version};
}

std::string fingerprint_text(const Fingerprint& fingerprint) {
  return fmt::format("{}/{}", kernels::numerics_class_info(fingerprint.numerics).name,
                     fingerprint.version);
}

std::optional<Fingerprint> fingerprint_from_text(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const auto version = version_from_text(text.substr(slash + 1));
  if (!version) return std::nullopt;
  for (const kernels::NumericsClassInfo& info : kernels::kNumericsClasses) {
    if (text.substr(0, slash) == info.name) return Fingerprint{info.numerics, *version};
  }
  return std::nullopt;
}

std::string numerics_class_names() {
  std::string names;
  for (const kernels::NumericsClassInfo& info : kernels::kNumericsClasses)
    names += fmt::format("{}{}", names.empty() ? "" : " or ", info.name);
  return names;
}

std::optional<OldFingerprint> old_fingerprint_from_text(std::string_view text) {
  const size_t first = text.find('/'), last = text.rfind('/');
  if (first == std::string_view::npos || first == last) return std::nullopt;
  const auto version = version_from_text(text.substr(first + 1, last - first - 1));
  const std::string_view dtype = text.substr(last + 1);
  const bool f32 = dtype == dtype_name(DType::kF32), bf16 = dtype == dtype_name(DType::kBF16);
  if (!version || (!f32 && !bf16)) return std::nullopt;
  return OldFingerprint{{f32 ? NumericsClass::kF32Chain : NumericsClass::kBf16Storage, *version},
                        std::string(text.substr(0, first))};
}

}  // namespace orrery::rollout
