// Rotary positions in scalar code, and their table in host memory.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "core/transfer.h"
#include "kernels/rope.h"
#include "tests/kernels/bf16_testing.h"
#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels::rope_test {

/// A table on the CPU and its copy.
struct HostTable {
  HostTable(const RopeConfig& config, int64_t positions)
      : device(build_rope_table({}, config, positions)),
        cos(device.cos.size()),
        sin(device.sin.size()) {
    download({}, Span<float>(cos), as_vec(device.cos));
    download({}, Span<float>(sin), as_vec(device.sin));
  }
  Rotation rotation(const std::vector<int32_t>& positions) const {
    return {.positions = kernel_testing::vec(positions), .cos = device.cos, .sin = device.sin};
  }

  RopeTable device;
  Array<float> cos, sin;
};

struct RotateHow {
  bool back = false;
  bool rounds = false;  ///< to bf16
};

/// Rotates the first `heads` heads of each row.
inline void rotate(kernel_testing::Matrix& x, int64_t heads, const HostTable& table,
                   const std::vector<int32_t>& positions, const RotateHow& how = {}) {
  const int64_t half = table.device.cos.cols;
  const auto stored = [&](float value) {
    return how.rounds ? kernel_testing::rounded(value) : value;
  };
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < half; ++i) {
        const int64_t angle = positions[static_cast<size_t>(t)] * half + i;
        const float c = table.cos[angle], s = how.back ? -table.sin[angle] : table.sin[angle];
        float& low = x(t, h * 2 * half + i);
        float& high = x(t, h * 2 * half + half + i);
        const float a = low, b = high;
        low = stored(std::fma(-b, s, a * c));
        high = stored(std::fma(a, s, b * c));
      }
    }
  }
}

}  // namespace orrery::kernels::rope_test
