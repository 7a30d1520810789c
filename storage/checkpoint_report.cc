#include "storage/checkpoint_report.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/sha256.h"

namespace orrery::storage {
namespace {

TensorStats stats_of(const StoredTensor& tensor, std::span<const float> values) {
  TensorStats stats;
  stats.name = tensor.name;
  stats.shape = tensor.shape;
  stats.sha256 = sha256_hex(std::as_bytes(values));
  double squares = 0, low = std::numeric_limits<double>::infinity(), high = -low;
  for (const float value : values) {
    if (std::isnan(value)) {
      ++stats.nan_count;
      continue;
    }
    const double v = value;
    squares += v * v;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  stats.norm = std::sqrt(squares);
  if (low <= high) {
    stats.min = low;
    stats.max = high;
  }
  return stats;
}

/// Reads a whole tensor of the policy.
void read_tensor(const Checkpoint& checkpoint, const std::string& name, size_t kind,
                 std::vector<float>& values) {
  const std::vector<StoredTensor>& tensors = checkpoint.module(models::kPolicy.name).tensors;
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const StoredTensor& t) { return t.name == name; });
  const models::HeldSlice whole{found - tensors.begin(), {0, found->size}, 0};
  values.resize(found->size);
  std::array<std::span<float>, 3> out;
  out[kind] = values;
  checkpoint.read(models::kPolicy.name, {&whole, 1}, out[0], out[1], out[2]);
}

}  // namespace

std::vector<TensorStats> weight_stats(const Checkpoint& checkpoint) {
  std::vector<TensorStats> result;
  std::vector<float> values;
  for (const StoredTensor& t : checkpoint.module(models::kPolicy.name).tensors) {
    read_tensor(checkpoint, t.name, /*kind=*/0, values);
    result.push_back(stats_of(t, values));
  }
  return result;
}

ArrayDiff diff_arrays(std::span<const float> a, std::span<const float> b) {
  ORRERY_CHECK(a.size() == b.size(), "{} and {} elements", a.size(), b.size());
  ArrayDiff diff;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::bit_cast<uint32_t>(a[i]) == std::bit_cast<uint32_t>(b[i])) continue;
    ++diff.differing;
    // Zeros and NaNs may differ in their bits alone.
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    const double x = a[i], y = b[i];
    const double distance = std::abs(x - y);
    const bool finite = std::isfinite(distance);
    diff.max_abs =
        std::max(diff.max_abs, finite ? distance : std::numeric_limits<double>::infinity());
    diff.max_rel = std::max(diff.max_rel, finite ? distance / std::max(std::abs(x), std::abs(y))
                                                 : std::numeric_limits<double>::infinity());
  }
  return diff;
}

bool CheckpointDiff::equal_tensors() const {
  return only_a.empty() && only_b.empty() && reshaped.empty() &&
         std::all_of(tensors.begin(), tensors.end(), [](const TensorDiff& t) { return t.equal(); });
}

CheckpointDiff diff_checkpoints(const Checkpoint& a, const Checkpoint& b) {
  CheckpointDiff result;
  for (const models::Parameter& p : b.table().parameters()) {
    if (a.table().find(p.name) == nullptr) result.only_b.push_back(p.name);
  }
  for (const models::Parameter& p : a.table().parameters()) {
    const models::Parameter* q = b.table().find(p.name);
    if (q == nullptr) {
      result.only_a.push_back(p.name);
      continue;
    }
    if (q->shape != p.shape) {
      result.reshaped.push_back(p.name);
      continue;
    }
    TensorDiff diff{p.name, p.shape, {}, {}, {}};
    std::vector<float> x, y;
    const auto compare = [&](size_t kind) {
      read_tensor(a, p.name, kind, x);
      read_tensor(b, p.name, kind, y);
      return diff_arrays(x, y);
    };
    diff.weights = compare(0);
    diff.adam_m = compare(1);
    diff.adam_v = compare(2);
    result.tensors.push_back(std::move(diff));
  }
  return result;
}

}  // namespace orrery::storage
