#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/product_peak.cc"
#include "kernels/cpu/targets.h"
// targets.h first.
#include "hwy/foreach_target.h"
// foreach_target.h first.
#include "kernels/cpu/simd-inl.h"
#include "kernels/peak.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

double fmas(int64_t rounds) {
  constexpr int kChains = 12;  // more than latency times throughput; fewer than registers
  const hn::ScalableTag<float> d;
  volatile float source = 0.5f;  // unknown to the compiler
  const auto x = hn::Set(d, source), y = hn::Set(d, source);
  hn::Vec<decltype(d)> acc[kChains];
  HWY_UNROLL(12)
  for (int i = 0; i < kChains; ++i) acc[i] = hn::Set(d, static_cast<float>(i));
  for (int64_t round = 0; round < rounds; ++round) {
    HWY_UNROLL(12)
    for (int i = 0; i < kChains; ++i) acc[i] = hn::MulAdd(x, y, acc[i]);
  }
  HWY_UNROLL(12)
  for (int i = 1; i < kChains; ++i) acc[0] = hn::Add(acc[0], acc[i]);
  volatile float sink = hn::GetLane(acc[0]);  // so that the loop stays
  (void)sink;
  return 2.0 * kChains * hn::Lanes(d) * rounds;
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <algorithm>
#include <ctime>
#include <numeric>

#include "core/parallel.h"
#include "core/span.h"
#include "kernels/cpu/amx.h"
#include "kernels/cpu/pairs.h"

namespace orrery::kernels {
HWY_EXPORT(fmas);

namespace {

/// CPU time of this thread, so that others that take turns on its CPU do not count.
double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return time.tv_sec + time.tv_nsec * 1e-9;
}

/// Products of AMX's tiles: four sums, each of which waits for its last product.
double tile_products(int64_t rounds) {
#if defined(__x86_64__)
  using cpu::AmxTiles;
  AmxTiles::configure();
  AmxTiles::zero<0>(), AmxTiles::zero<1>(), AmxTiles::zero<2>(), AmxTiles::zero<3>();
  AmxTiles::zero<4>(), AmxTiles::zero<5>(), AmxTiles::zero<6>(), AmxTiles::zero<7>();
  for (int64_t round = 0; round < rounds; ++round) {
    AmxTiles::multiply<0, 4, 6>();
    AmxTiles::multiply<1, 4, 7>();
    AmxTiles::multiply<2, 5, 6>();
    AmxTiles::multiply<3, 5, 7>();
  }
#endif
  return 4.0 * 2 * 16 * 16 * 32 * rounds;
}

}  // namespace

double measure_product_peak(int threads, DType dtype, int turns) {
  const bool tiles = dtype == DType::kBF16 && cpu::pairs_engine() == cpu::PairsEngine::kAmx;
  const int64_t rounds = tiles ? 2000 : 20000;
  Array<double> best(std::max(threads, 1));
  parallel_for(Context{.threads = threads}, best.size(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) {
      for (int turn = 0; turn < turns; ++turn) {
        const double start = cpu_seconds();
        const double flops = tiles ? tile_products(rounds) : HWY_DYNAMIC_DISPATCH(fmas)(rounds);
        const double rate = flops / (cpu_seconds() - start);
        best[thread] = std::max(best[thread], rate);
      }
    }
  });
  return std::accumulate(best.begin(), best.end(), 0.0);
}

}  // namespace orrery::kernels
#endif
