// Numbers that stand for a whole array. They depend on neither threads nor the device,
// and are there when the op returns; each runs at about the speed of memory.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "core/tensor.h"

namespace orrery::kernels {

/// A checksum of the bits of floats: two 64-bit sums over 32-bit words, as Fletcher's.
/// With w_i the bits of element i of n, both sums mod 2^64:
struct FletcherSums {
  uint64_t low = 0;   ///< sum of w_i
  uint64_t high = 0;  ///< sum of (n - i) w_i
  bool operator==(const FletcherSums&) const = default;
};
struct Checksum {
  Vec<const float> x;
};
FletcherSums checksum(const Context& ctx, const Checksum& op);

/// The largest absolute value: infinity when a value is not finite, 0 when there are no
/// values.
struct MaxAbs {
  Vec<const float> x;
};
float max_abs(const Context& ctx, const MaxAbs& op);

}  // namespace orrery::kernels
