// Tiles with their operands, what the model makes of them, and what a kernel made.
#pragma once

#include <cinttypes>
#include <cstdio>
#include <string>
#include <vector>

#include "tests/gpu/device.cuh"
#include "tests/gpu/report.h"
#include "tests/gpu/tile_kernels.cuh"

namespace orrery::selftest {

inline constexpr uint64_t kSeed = 20261126;
inline constexpr int kBlock = 256;

inline unsigned blocks_for(int64_t count) {
  return static_cast<unsigned>((count + kBlock - 1) / kBlock);
}

/// Operands of enough tiles for `outputs` results, and what the model makes of them.
class TileCase {
 public:
  TileCase(int n, int k, int64_t outputs, DotClass tensor_core = kDot16Rz25)
      : n_(n),
        k_(k),
        tiles_((outputs + kTileRows * n - 1) / (kTileRows * n)),
        a_(tiles_ * kTileRows * k),
        b_(tiles_ * n * k),
        c_(count()),
        expected_(count()),
        actual_(count()),
        difference_(1) {
    const uint64_t seed = kSeed + static_cast<uint64_t>(1000 * n + k);
    make_operands<<<blocks_for(a_.size()), kBlock>>>(a_.data(), a_.size(), k, seed, false);
    make_operands<<<blocks_for(b_.size()), kBlock>>>(b_.data(), b_.size(), k, seed + 1, true);
    make_starts<<<blocks_for(count()), kBlock>>>(c_.data(), count(), view(nullptr), seed + 2);
    define(tensor_core);
  }

  int64_t count() const { return tiles_ * kTileRows * n_; }
  unsigned tiles() const { return static_cast<unsigned>(tiles_); }
  Tiles actual() { return view(actual_.data()); }
  /// Takes this class's results as the ones expected.
  void define(DotClass tensor_core) {
    model_tiles<<<blocks_for(count()), kBlock>>>(view(expected_.data()), count(), tensor_core);
    finish("model");
  }
  /// All accumulators are zero from now on.
  void start_from_zero() {
    require(cudaMemset(c_.data(), 0, static_cast<size_t>(count()) * 4), "cudaMemset");
    define(kDot16Rz25);
  }

  /// Compares what the kernels launched since have left in actual(), and prints the row
  /// and
  /// what differs.
  void check(Report& report, const std::string& name) {
    if (compare_with_expected(report, name) != 0) explain(name);
    require(cudaMemset(actual_.data(), 0xcc, static_cast<size_t>(count()) * 4), "cudaMemset");
  }

  /// The same without what differs: returns how many results do.
  uint64_t compare_with_expected(Report& report, const std::string& name) {
    finish(name.c_str());
    const Difference none{0, ~0ull};
    require(cudaMemcpy(difference_.data(), &none, sizeof none, cudaMemcpyHostToDevice),
            "cudaMemcpy");
    compare<<<blocks_for(count()), kBlock>>>(expected_.data(), actual_.data(), count(),
                                             difference_.data());
    finish("compare");
    const Difference found = difference_.host()[0];
    report.row(name, static_cast<uint64_t>(count()), found.count);
    return found.count;
  }

  /// The model computed by the host, over every `step`-th result.
  uint64_t host_differences(int64_t step) {
    const auto a = a_.host(), b = b_.host();
    const auto c = c_.host(), expected = expected_.host();
    uint64_t differing = 0;
    for (int64_t i = 0; i < count(); i += step)
      if (dot_chain(&a[static_cast<size_t>(a_begin(i))], &b[static_cast<size_t>(b_begin(i))], k_,
                    c[static_cast<size_t>(i)], kDot16Rz25) != expected[static_cast<size_t>(i)])
        ++differing;
    return differing;
  }

  /// Zeros, subnormal numbers, infinities and NaNs among the expected results.
  std::vector<unsigned long long> kinds() {
    DeviceArray<unsigned long long> out(4);
    count_kinds<<<blocks_for(count()), kBlock>>>(expected_.data(), count(), out.data());
    finish("count_kinds");
    return out.host();
  }

 private:
  Tiles view(uint32_t* d) { return {a_.data(), b_.data(), c_.data(), d, n_, k_}; }
  int64_t a_begin(int64_t i) const { return i / n_ * k_; }
  int64_t b_begin(int64_t i) const { return (i / n_ / kTileRows * n_ + i % n_) * k_; }

  /// The first results that differ, with their operands.
  void explain(const std::string& name) {
    constexpr int kShown = 6;
    const auto c = c_.host(), expected = expected_.host(), actual = actual_.host();
    int shown = 0;
    for (int64_t i = 0; i < count() && shown < kShown; ++i) {
      const auto at = static_cast<size_t>(i);
      if (expected[at] == actual[at]) continue;
      ++shown;
      char line[160];
      std::snprintf(line, sizeof line,
                    "%s: result %" PRId64 " c %08x expected %08x actual %08x\n  a", name.c_str(), i,
                    c[at], expected[at], actual[at]);
      std::string text = line;
      const auto append = [&](const std::vector<uint16_t>& bits) {
        for (const uint16_t value : bits) {
          std::snprintf(line, sizeof line, " %04x", value);
          text += line;
        }
      };
      append(a_.host(a_begin(i), k_));
      text += "\n  b";
      append(b_.host(b_begin(i), k_));
      Report::note(text);
    }
  }

  int n_, k_;
  int64_t tiles_;
  DeviceArray<uint16_t> a_, b_;
  DeviceArray<uint32_t> c_, expected_, actual_;
  DeviceArray<Difference> difference_;
};

}  // namespace orrery::selftest
