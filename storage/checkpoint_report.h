// What `orrery ckpt show` and `orrery ckpt diff` say about a checkpoint's tensors.
// Tensors are read one at a time, which takes memory for three of the largest.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "storage/checkpoint.h"

namespace orrery::storage {

struct TensorStats {
  std::string name;
  std::vector<int64_t> shape;
  double norm = 0;          ///< Euclidean, over the values that are not NaN
  double min = 0, max = 0;  ///< over the values that are not NaN; 0 when there is none
  int64_t nan_count = 0;
  std::string sha256;  ///< of the values' bytes
};

/// Statistics of the weights, in the table's order.
std::vector<TensorStats> weight_stats(const Checkpoint& checkpoint);

/// Two arrays of one shape.
struct ArrayDiff {
  int64_t differing = 0;  ///< elements whose bits differ
  double max_abs = 0;     ///< largest |a - b|; infinite where just one is NaN or infinite
  double max_rel = 0;     ///< largest |a - b| / max(|a|, |b|)
};

struct TensorDiff {
  std::string name;  ///< of another module than the policy with its name, "critic/b"
  std::vector<int64_t> shape;
  /// Moments that only one of them has differ in every element.
  ArrayDiff weights, adam_m, adam_v;
  bool equal() const {
    return weights.differing == 0 && adam_m.differing == 0 && adam_v.differing == 0;
  }
};

struct CheckpointDiff {
  std::vector<TensorDiff> tensors;  ///< those in both with one shape
  /// Tensors of modules that both have, named as in TensorDiff.
  std::vector<std::string> only_a, only_b, reshaped;
  std::vector<std::string> modules_only_a, modules_only_b;
  bool equal_tensors() const;  ///< the same modules and tensors with the same bits
};

CheckpointDiff diff_checkpoints(const Checkpoint& a, const Checkpoint& b);

ArrayDiff diff_arrays(std::span<const float> a, std::span<const float> b);

}  // namespace orrery::storage
