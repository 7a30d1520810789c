#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/bandwidth.cc"
#include "kernels/cpu/targets.h"
// targets.h first.
#include "hwy/foreach_target.h"
// foreach_target.h first.
#include "hwy/cache_control.h"
#include "kernels/cpu/simd-inl.h"

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace orrery::bench::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Vectors an iteration: enough independent ones to hide the latency of an add.
constexpr int kUnroll = 8;

void read_stream(const float* p, int64_t count) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  hn::Vec<decltype(d)> acc[kUnroll];
  HWY_UNROLL(8)
  for (int u = 0; u < kUnroll; ++u) acc[u] = hn::Zero(d);
  for (int64_t i = 0; i < count; i += kUnroll * lanes) {
    HWY_UNROLL(8)
    for (int u = 0; u < kUnroll; ++u) acc[u] = hn::Add(acc[u], hn::Load(d, p + i + u * lanes));
  }
  HWY_UNROLL(8)
  for (int u = 1; u < kUnroll; ++u) acc[0] = hn::Add(acc[0], acc[u]);
  volatile float sink = hn::GetLane(acc[0]);  // so that the loop stays
  (void)sink;
}

void write_stream(float* p, int64_t count) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto value = hn::Set(d, 1.0f);
  for (int64_t i = 0; i < count; i += kUnroll * lanes) {
    HWY_UNROLL(8)
    for (int u = 0; u < kUnroll; ++u) hn::Store(value, d, p + i + u * lanes);
  }
}

void write_past_caches(float* p, int64_t count) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto value = hn::Set(d, 1.0f);
  for (int64_t i = 0; i < count; i += kUnroll * lanes) {
    HWY_UNROLL(8)
    for (int u = 0; u < kUnroll; ++u) hn::Stream(value, d, p + i + u * lanes);
  }
  hwy::FlushStream();
}

void update_stream(float* p, int64_t count) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto value = hn::Set(d, 1.0f);
  for (int64_t i = 0; i < count; i += kUnroll * lanes) {
    HWY_UNROLL(8)
    for (int u = 0; u < kUnroll; ++u) {
      hn::Store(hn::Add(value, hn::Load(d, p + i + u * lanes)), d, p + i + u * lanes);
    }
  }
}

}  // namespace orrery::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <algorithm>
#include <barrier>
#include <cmath>
#include <thread>
#include <utility>

#include "bench/bandwidth.h"
#include "bench/turns.h"

namespace orrery::bench {
HWY_EXPORT(read_stream);
HWY_EXPORT(write_stream);
HWY_EXPORT(write_past_caches);
HWY_EXPORT(update_stream);

namespace {

// Within the first-level cache of one core, to several times any third-level cache.
constexpr size_t kSmallest = size_t{16} << 10, kLargest = size_t{256} << 20;
constexpr int64_t kPiece = 1024;         // floats: a thread's part is a multiple
constexpr size_t kTurnBytes = 32 << 20;  // moved in a turn, at least
constexpr int kTurns = 7;

/// The least seconds of a turn in which every thread calls pass(part, count) `passes`
/// times for its own part.
template <class Pass>
double best_turn(float* data, int64_t count, int threads, int64_t passes, const Pass& pass) {
  double best = INFINITY;
  const int64_t pieces = count / kPiece;
  std::barrier together(threads);  // all at once, which the parts of core/parallel.h need not be
  const auto work = [&](int64_t self) {
    const int64_t begin = pieces * self / threads * kPiece,
                  end = pieces * (self + 1) / threads * kPiece;
    pass(data + begin, end - begin);
    for (int turn = 0; turn < kTurns; ++turn) {
      together.arrive_and_wait();
      const double start = now(threads);
      for (int64_t i = 0; i < passes; ++i) pass(data + begin, end - begin);
      together.arrive_and_wait();
      const double time = now(threads) - start;
      if (self == 0) best = std::min(best, time);
    }
  };
  std::vector<std::jthread> others;
  for (int64_t self = 1; self < threads; ++self) others.emplace_back(work, self);
  work(0);
  return best;
}

double bandwidth_of(Traffic traffic, float* data, size_t bytes, int threads) {
  const auto count = static_cast<int64_t>(bytes / sizeof(float));
  const auto passes = static_cast<int64_t>(std::max<size_t>(1, kTurnBytes / bytes));
  const double moved = static_cast<double>(bytes) * static_cast<double>(passes);
  const auto rate = [&](const auto& pass) {
    return moved / best_turn(data, count, threads, passes, pass);
  };
  switch (traffic) {
    case Traffic::kRead:
      return rate(HWY_DYNAMIC_DISPATCH(read_stream));
    case Traffic::kWrite:
      return std::max(rate(HWY_DYNAMIC_DISPATCH(write_stream)),
                      rate(HWY_DYNAMIC_DISPATCH(write_past_caches)));
    case Traffic::kReadWrite:
      return 2 * rate(HWY_DYNAMIC_DISPATCH(update_stream));
  }
  return 0;
}

}  // namespace

BandwidthCurve::BandwidthCurve(int threads) {
  const Buffer buffer(Device{}, kLargest);
  // Pages never written to are all one page of zeros.
  std::fill(buffer.span<float>().begin(), buffer.span<float>().end(), 0.0f);
  for (const Traffic traffic : {Traffic::kRead, Traffic::kWrite, Traffic::kReadWrite}) {
    std::vector<double>& rates = rates_[static_cast<size_t>(traffic)];
    for (size_t bytes = kSmallest; bytes <= kLargest; bytes *= 2) {
      rates.push_back(bandwidth_of(traffic, buffer.span<float>().data(), bytes, threads));
    }
    for (size_t i = rates.size() - 1; i-- > 0;) rates[i] = std::max(rates[i], rates[i + 1]);
  }
}

double BandwidthCurve::at(Traffic traffic, double bytes) const {
  const std::vector<double>& rates = rates_[static_cast<size_t>(traffic)];
  const double place = std::clamp(std::log2(std::max(bytes, 1.0) / static_cast<double>(kSmallest)),
                                  0.0, static_cast<double>(rates.size() - 1));
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, rates.size() - 1);
  return rates[below] + (rates[above] - rates[below]) * (place - static_cast<double>(below));
}

double BandwidthCurve::seconds(double read, double written, double working_set) const {
  const double both = std::min(read, written);
  return 2 * both / at(Traffic::kReadWrite, working_set) +
         (read - both) / at(Traffic::kRead, working_set) +
         (written - both) / at(Traffic::kWrite, working_set);
}

}  // namespace orrery::bench
#endif
