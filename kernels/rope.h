// Rotary position embedding (Su et al. 2021) in the half-split order of Hugging Face.
// With half = head_dim / 2 and i < half,
//   y[i]        = x[i] cos - x[i + half] sin
//   y[i + half] = x[i + half] cos + x[i] sin
// each written as one rounded product and one fma.
#pragma once

#include <cstdint>
#include <optional>

#include "core/context.h"
#include "core/span.h"
#include "core/tensor.h"

namespace orrery::kernels {

/// Frequency scaling, with the key names of Hugging Face's `rope_scaling`.
struct RopeScaling {
  enum class Type { kNone, kLinear, kLlama3, kYarn };
  Type type = Type::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0, high_freq_factor = 4.0;            // llama3
  int64_t original_max_position_embeddings = 0;                    // llama3, yarn
  double beta_fast = 32.0, beta_slow = 1.0;                        // yarn (Peng et al. 2023)
  std::optional<double> attention_factor, mscale, mscale_all_dim;  // yarn
  bool truncate = true;  // yarn: round the correction range to whole dimensions
};

struct RopeConfig {
  int64_t head_dim = 0;
  double theta = 10000.0;
  RopeScaling scaling;
};

/// cos and sin for positions [0, positions), computed in double and rounded once, times
/// YaRN's attention factor. Rows of head_dim / 2. build_rope_table throws Error for an
/// odd head_dim and for scaling keys that are missing or out of range.
struct RopeTable {
  int64_t positions = 0;
  int64_t half_dim = 0;
  Array<float> cos, sin;
};
RopeTable build_rope_table(const RopeConfig& config, int64_t positions);

/// Rotates x [t, heads, head_dim] in place; positions [t] must be inside the table.
void rope_forward(const Context& ctx, Heads<float> x, Span<const int32_t> positions,
                  const RopeTable& table);

/// Gradient of rope_forward, in place: the inverse rotation (times the table's scale).
void rope_backward(const Context& ctx, Heads<float> dx, Span<const int32_t> positions,
                   const RopeTable& table);

}  // namespace orrery::kernels
