#include "storage/checkpoint_report.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/sha256.h"

namespace orrery::storage {
namespace {

TensorStats stats_of(const models::Parameter& parameter, std::span<const float> values) {
  TensorStats stats;
  stats.name = parameter.name;
  stats.shape = parameter.shape;
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

}  // namespace

std::vector<TensorStats> weight_stats(const Checkpoint& checkpoint) {
  std::vector<TensorStats> result;
  std::vector<float> values;
  for (const models::Parameter& p : checkpoint.table().parameters()) {
    values.resize(p.size);
    checkpoint.read(p.offset, p.offset + p.size, values, {}, {});
    result.push_back(stats_of(p, values));
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
    std::vector<float> x(p.size), y(p.size);
    const auto compare = [&](size_t kind) {
      const auto read = [&](const Checkpoint& c, const models::Parameter& at,
                            std::vector<float>& out) {
        std::array<std::span<float>, 3> spans;
        spans[kind] = out;
        c.read(at.offset, at.offset + at.size, spans[0], spans[1], spans[2]);
      };
      read(a, p, x);
      read(b, *q, y);
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
