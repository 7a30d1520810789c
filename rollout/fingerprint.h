// Which arithmetic a log-prob was computed in, and how files name it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/context.h"
#include "core/dtype.h"
#include "kernels/numerics.h"

namespace orrery::rollout {

/// How a log-prob was computed; equal fingerprints mean equal bits (docs/numerics.md).
/// The device is no part of it: a class has the same bits wherever it runs.
struct Fingerprint {
  /// The class's name, in static memory: one of kernels::kNumericsClasses, or one that
  /// earlier programs had and files may still name.
  std::string_view numerics = kernels::kNumericsClasses[0].name;
  uint32_t version = 0;  ///< of the class
  bool operator==(const Fingerprint&) const = default;
};

/// The fingerprint of what a model with matrices of `compute_dtype` computes in this
/// build on this device. Error as of kernels::numerics_class.
Fingerprint fingerprint_of(Device device, DType compute_dtype);

/// "f32-chain/1"
std::string fingerprint_text(const Fingerprint& fingerprint);
/// Of such a text; nothing where it is none, or the class is neither this build's nor
/// an earlier one's ("bf16-storage": rounded weights under f32 activations).
std::optional<Fingerprint> fingerprint_from_text(std::string_view text);
/// Of this build: "f32-chain or pairs".
std::string numerics_class_names();

/// What programs wrote before classes had names, "cpu/1/f32": the device, the version
/// and the type of the matrices, which told the class.
struct OldFingerprint {
  Fingerprint fingerprint;
  std::string device;
};
std::optional<OldFingerprint> old_fingerprint_from_text(std::string_view text);

}  // namespace orrery::rollout
