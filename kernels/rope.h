// Rotary position embedding (Su et al. 2021) in the half-split order of Hugging Face.
// With half = head_dim / 2 and i < half,
//   y[i]        = fma(-x[i + half], sin, x[i] cos)
//   y[i + half] = fma(x[i], sin, x[i + half] cos)
// the products with cos rounded; the backward's have -sin in place of sin. Matrices are
// f32 or bf16; what is written to a bf16 matrix is rounded to nearest even. The forward
// is rope_kv_write (kernels/kv_pool.h): rotated keys go to the pool at once.
#pragma once

#include <cstdint>
#include <optional>

#include "core/buffer.h"
#include "core/context.h"
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
/// YaRN's attention factor. Device memory.
struct RopeTable {
  Mat<const float> cos, sin;  ///< [positions, head_dim / 2]
  Buffer memory;
};
/// Computes the table on the host and uploads it. Throws Error for an odd head_dim and
/// for scaling keys that are missing or out of range.
RopeTable build_rope_table(Device device, const RopeConfig& config, int64_t positions);

/// By which angles the rows of a batch are rotated.
struct Rotation {
  Vec<const int32_t> positions;  ///< [t]; not checked: each must be inside the table
  Mat<const float> cos, sin;     ///< RopeTable's
};
/// Error, naming `op`, unless it is one of `rows` rows of heads of head_dim.
void check_rotation(const char* op, const Rotation& rotation, int64_t rows, int64_t head_dim);

/// The gradient through the rotation of some heads: the inverse rotation (times the
/// table's scale), in place.
struct RopeBackward {
  ActMat dx;  ///< [t, heads * head_dim]
  int64_t heads = 1;
  Rotation rotation;
};
void rope_backward(const Context& ctx, const RopeBackward& op);

}  // namespace orrery::kernels
