// Numbers for tests that compare sums and copies bit by bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/rng.h"

namespace orrery::testing_support {

/// Normal numbers, the same ones for a `stream` on every rank.
inline std::vector<float> random_floats(size_t count, uint64_t stream) {
  Philox generator(11, RngPurpose::kTest, stream);
  std::vector<float> values(count);
  for (float& v : values) v = static_cast<float>(generator.normal());
  return values;
}

}  // namespace orrery::testing_support
