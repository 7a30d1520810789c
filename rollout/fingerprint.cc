#include "rollout/fingerprint.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace orrery::rollout {
namespace {

/// bf16 weights under f32 activations, before there was the class pairs.
constexpr std::string_view kBf16Storage = "bf16-storage";

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
  const kernels::NumericsClassInfo& info =
      kernels::numerics_class_info(kernels::numerics_class(device, compute_dtype));
  return {info.name, info.version};
}

std::string fingerprint_text(const Fingerprint& fingerprint) {
  return fmt::format("{}/{}", fingerprint.numerics, fingerprint.version);
}

std::optional<Fingerprint> fingerprint_from_text(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const auto version = version_from_text(text.substr(slash + 1));
  if (!version) return std::nullopt;
  const std::string_view name = text.substr(0, slash);
  if (name == kBf16Storage) return Fingerprint{kBf16Storage, *version};
  for (const kernels::NumericsClassInfo& info : kernels::kNumericsClasses) {
    if (name == info.name) return Fingerprint{info.name, *version};
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
  const std::string_view name =
      f32 ? kernels::numerics_class_info(kernels::NumericsClass::kF32Chain).name : kBf16Storage;
  return OldFingerprint{{name, *version}, std::string(text.substr(0, first))};
}

}  // namespace orrery::rollout
