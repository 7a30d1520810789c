#include "kernels/cpu/reductions.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>

#include "core/parallel.h"
#include "core/span.h"
#include "kernels/cpu/host.h"

namespace orrery::kernels::cpu {
namespace {

/// Elements of a part that is summed by itself.
constexpr int64_t kPart = int64_t{1} << 20;

/// Eight interleaved pairs of running sums break the chain of dependent additions;
/// modular sums may be regrouped freely.
FletcherSums sums_of(Span<const float> x) {
  constexpr int64_t kLanes = 8;
  const int64_t n = x.size(), rounds = n / kLanes;
  std::array<uint64_t, kLanes> sum{}, sum_of_sums{};
  for (int64_t k = 0; k < rounds; ++k) {
    std::array<uint32_t, kLanes> words;
    std::memcpy(words.data(), x.data() + k * kLanes, sizeof words);
    for (size_t j = 0; j < kLanes; ++j) {
      sum[j] += words[j];
      sum_of_sums[j] += sum[j];
    }
  }
  FletcherSums total;
  const uint64_t tail = n - rounds * kLanes;
  for (size_t j = 0; j < kLanes; ++j) {
    // Round k of lane j is word i = 8 k + j: n - i = 8 (rounds - k) + tail - j.
    total.low += sum[j];
    total.high += kLanes * sum_of_sums[j] + (tail - uint64_t{j}) * sum[j];
  }
  for (int64_t i = rounds * kLanes; i < n; ++i) {
    const uint64_t word = std::bit_cast<uint32_t>(x[i]);
    total.low += word;
    total.high += (n - i) * word;
  }
  return total;
}

}  // namespace

// The sums of a part count its elements from its own end. Those behind it add their
// number, once for every word of the part.
FletcherSums checksum(const Context& ctx, const Checksum& op) {
  const Span<const float> x = host(op.x);
  const int64_t parts = (x.size() + kPart - 1) / kPart;
  Array<FletcherSums> sums(parts);
  parallel_for(ctx, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t first = part * kPart;
      sums[part] = sums_of(x.subspan(first, std::min(kPart, x.size() - first)));
    }
  });
  FletcherSums total;
  for (int64_t part = 0; part < parts; ++part) {
    const uint64_t behind = x.size() - std::min((part + 1) * kPart, x.size());
    total.low += sums[part].low;
    total.high += sums[part].high + behind * sums[part].low;
  }
  return total;
}

float max_abs(const Context& ctx, const MaxAbs& op) {
  constexpr uint32_t kMagnitude =
      0x7FFFFFFF;  // bits of |x|, which rise with it; NaN's are above infinity's
  const Span<const float> x = host(op.x);
  std::mutex mutex;
  uint32_t most = 0;
  parallel_for(ctx, x.size(), 1 << 18, [&](int64_t begin, int64_t end) {
    uint32_t mine = 0;
    for (int64_t i = begin; i < end; ++i)
      mine = std::max(mine, std::bit_cast<uint32_t>(x[i]) & kMagnitude);
    const std::lock_guard lock(mutex);
    most = std::max(most, mine);
  });
  const float value = std::bit_cast<float>(most);
  return std::isfinite(value) ? value : std::numeric_limits<float>::infinity();
}

}  // namespace orrery::kernels::cpu
