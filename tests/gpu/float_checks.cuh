// f32 functions of the device against the host's.
#pragma once

#include <algorithm>
#include <cinttypes>
#include <string>
#include <thread>
#include <vector>

#include "tests/gpu/float_kernels.cuh"
#include "tests/gpu/tile_case.cuh"

namespace orrery::selftest {

/// Host and device over inputs [0, count); a block of inputs whose checksums differ is
/// looked through one by one.
template <FloatOp kOp>
void check_float(Report& report, const std::string& name, uint64_t count) {
  constexpr uint64_t kPiece = uint64_t{1} << 22;
  const auto pieces = static_cast<size_t>((count + kPiece - 1) / kPiece);
  const DeviceArray<unsigned long long> sums(static_cast<int64_t>(pieces));
  for (size_t i = 0; i < pieces; ++i)
    float_checksum<kOp>
        <<<512, kBlock>>>(i * kPiece, std::min(kPiece, count - i * kPiece), sums.data() + i);
  std::vector<uint64_t> expected(pieces);
  const auto threads = std::max(1u, std::thread::hardware_concurrency());
  {
    std::vector<std::jthread> team;
    for (unsigned t = 0; t < threads; ++t)
      team.emplace_back([&, t] {
        for (size_t i = t; i < pieces; i += threads)
          for (uint64_t j = i * kPiece; j < std::min(count, (i + 1) * kPiece); ++j)
            expected[i] += checksum_of(j, float_result<kOp>(j));
      });
  }
  finish(name.c_str());
  const auto actual = sums.host();
  uint64_t differing = 0;
  for (size_t i = 0; i < pieces; ++i) {
    if (actual[i] == expected[i]) continue;
    const uint64_t first = i * kPiece, size = std::min(kPiece, count - first);
    const DeviceArray<uint32_t> out(static_cast<int64_t>(size));
    float_results<kOp><<<blocks_for(static_cast<int64_t>(size)), kBlock>>>(first, size, out.data());
    finish(name.c_str());
    const auto results = out.host();
    for (uint64_t j = 0; j < size; ++j) {
      if (results[j] == float_result<kOp>(first + j)) continue;
      if (++differing > 5) continue;
      char line[120];
      std::snprintf(line, sizeof line, "%s: input %" PRIu64 " host %08x device %08x", name.c_str(),
                    first + j, float_result<kOp>(first + j), results[j]);
      Report::note(line);
    }
  }
  report.row(name, count, differing);
}

inline void check_floats(Report& report, int64_t outputs) {
  report.heading("f32: host and device");
  constexpr uint64_t kAll = uint64_t{1} << 32;
  const auto random = static_cast<uint64_t>(outputs);
  check_float<FloatOp::kExp>(report, "exp_f32 of every f32", kAll);
  check_float<FloatOp::kLog>(report, "log_f32 of every f32", kAll);
  check_float<FloatOp::kToBf16>(report, "f32 to bf16 of every f32", kAll);
  check_float<FloatOp::kReciprocal>(report, "1 / x of every f32", kAll);
  check_float<FloatOp::kSqrt>(report, "sqrt of every f32", kAll);
  check_float<FloatOp::kAdd>(report, "x + y", random);
  check_float<FloatOp::kMultiply>(report, "x y", random);
  check_float<FloatOp::kFma>(report, "fma(x, y, z)", random);
  check_float<FloatOp::kDivide>(report, "x / y", random);
  check_float<FloatOp::kLoss>(report, "PPO's and GSPO's token losses", random);
}

}  // namespace orrery::selftest
