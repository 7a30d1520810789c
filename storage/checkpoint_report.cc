#include "storage/checkpoint_report.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

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

/// Reads a whole tensor, which is an index in the module's list.
void read_tensor(const Checkpoint& checkpoint, const StoredModule& module, int64_t tensor,
                 int64_t kind, std::vector<float>& values) {
  const int64_t size = module.tensors[tensor].size;
  const models::HeldSlice whole{tensor, {0, size}, 0};
  values.resize(size);
  std::array<std::span<float>, 3> out;
  out[kind] = values;
  checkpoint.read(module.name, {&whole, 1}, out[0], out[1], out[2]);
}

/// A module of an open checkpoint.
struct OpenModule {
  const Checkpoint& checkpoint;
  const StoredModule& module;

  /// The tensor's index, or nothing.
  std::optional<int64_t> find(const std::string& name) const {
    for (int64_t i = 0; i < std::ssize(module.tensors); ++i) {
      if (module.tensors[i].name == name) return i;
    }
    return std::nullopt;
  }
  /// The tensor's numbers of this kind; none when the module has not the kind.
  std::vector<float> read(int64_t tensor, int64_t kind) const {
    std::vector<float> values;
    if (kind < module.kinds()) read_tensor(checkpoint, module, tensor, kind, values);
    return values;
  }
};

ArrayDiff diff_kinds(std::span<const float> a, std::span<const float> b) {
  if (a.size() == b.size()) return diff_arrays(a, b);
  constexpr double kAll = std::numeric_limits<double>::infinity();
  return {std::max(std::ssize(a), std::ssize(b)), kAll, kAll};
}

void diff_modules(const OpenModule& a, const OpenModule& b, CheckpointDiff& result) {
  const auto label = [&](const StoredTensor& t) {
    return a.module.name == models::kPolicy.name ? t.name : a.module.name + "/" + t.name;
  };
  for (const StoredTensor& t : b.module.tensors) {
    if (!a.find(t.name)) result.only_b.push_back(label(t));
  }
  for (int64_t i = 0; i < std::ssize(a.module.tensors); ++i) {
    const StoredTensor& t = a.module.tensors[i];
    const auto j = b.find(t.name);
    if (!j) {
      result.only_a.push_back(label(t));
      continue;
    }
    if (b.module.tensors[*j].shape != t.shape) {
      result.reshaped.push_back(label(t));
      continue;
    }
    TensorDiff diff{label(t), t.shape, {}, {}, {}};
    diff.weights = diff_kinds(a.read(i, 0), b.read(*j, 0));
    diff.adam_m = diff_kinds(a.read(i, 1), b.read(*j, 1));
    diff.adam_v = diff_kinds(a.read(i, 2), b.read(*j, 2));
    result.tensors.push_back(std::move(diff));
  }
}

/// The module of that name, or null.
const StoredModule* module_of(const Checkpoint& checkpoint, const std::string& name) {
  const auto modules = checkpoint.modules();
  const auto found = std::find_if(modules.begin(), modules.end(),
                                  [&](const StoredModule& m) { return m.name == name; });
  return found == modules.end() ? nullptr : &*found;
}

}  // namespace

std::vector<TensorStats> weight_stats(const Checkpoint& checkpoint) {
  std::vector<TensorStats> result;
  std::vector<float> values;
  const StoredModule& policy = checkpoint.module(models::kPolicy.name);
  for (int64_t i = 0; i < std::ssize(policy.tensors); ++i) {
    read_tensor(checkpoint, policy, i, /*kind=*/0, values);
    result.push_back(stats_of(policy.tensors[i], values));
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
  return only_a.empty() && only_b.empty() && reshaped.empty() && modules_only_a.empty() &&
         modules_only_b.empty() &&
         std::all_of(tensors.begin(), tensors.end(), [](const TensorDiff& t) { return t.equal(); });
}

CheckpointDiff diff_checkpoints(const Checkpoint& a, const Checkpoint& b) {
  CheckpointDiff result;
  for (const StoredModule& module : b.modules()) {
    if (module_of(a, module.name) == nullptr) result.modules_only_b.push_back(module.name);
  }
  for (const StoredModule& module : a.modules()) {
    const StoredModule* other = module_of(b, module.name);
    if (other == nullptr) {
      result.modules_only_a.push_back(module.name);
    } else {
      diff_modules({a, module}, {b, *other}, result);
    }
  }
  return result;
}

}  // namespace orrery::storage
