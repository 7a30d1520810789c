// A checksum of the bits of floats: two 64-bit sums over 32-bit words, as Fletcher's.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "core/tensor.h"

namespace orrery::kernels {

/// With w_i the bits of element i of n, both sums mod 2^64. They depend on neither
/// threads nor the device.
struct FletcherSums {
  uint64_t low = 0;   ///< sum of w_i
  uint64_t high = 0;  ///< sum of (n - i) w_i
  bool operator==(const FletcherSums&) const = default;
};

struct Checksum {
  Vec<const float> x;
};
/// Runs at about the speed of memory. The sums are there when it returns.
FletcherSums checksum(const Context& ctx, const Checksum& op);

}  // namespace orrery::kernels
