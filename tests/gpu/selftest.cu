// What this GPU computes, against what Orrery's bf16 and f32 results are defined to be
// (docs/numerics.md): tensor cores by every instruction and layout that kernels use,
// the instructions that bring tiles to them, and f32 functions shared with the CPU.
//
//   nvcc -std=c++20 -O2 -fmad=false --expt-relaxed-constexpr -I.
//        -gencode=arch=compute_90a,code=sm_90a -Xcompiler -ffp-contract=off,-pthread
//        tests/gpu/selftest.cu -o selftest && ./selftest [--outputs 10000000]
//
// from the repository's root. Prints a table in Markdown; the first differing results
// go to stderr with their operands. Exit code 0: all as defined; 1: something differs;
// 77: no
// device, or not one with wgmma (compute capability 9.0).

#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/gpu/copy_checks.cuh"
#include "tests/gpu/float_checks.cuh"
#include "tests/gpu/tile_case.cuh"

namespace orrery::selftest {
namespace {

// --- wgmma ---

TileLayout layout_of(bool mn_major, int width, int rows) {
  const int padded = mn_major ? (rows + 63) / 64 * 64 : rows;
  return {mn_major ? Major::kMn : Major::kK, width, padded, kMaxK};
}

template <int N, bool kFromRegisters, int kTransA, int kTransB, int kSteps = kMaxK / 16,
          bool kWaits = false>
void run_wgmma(TileCase& tiles, int width_a, int width_b, bool from_zero = false) {
  const auto kernel = wgmma_tiles<N, kFromRegisters, kTransA, kTransB, kSteps, kWaits>;
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kTileShared),
          "shared memory");
  kernel<<<tiles.tiles(), 128, kTileShared>>>(tiles.actual(),
                                              layout_of(kTransA, width_a, kTileRows),
                                              layout_of(kTransB, width_b, N), from_zero);
}

std::string layout_name(int trans, int width) {
  return std::string(trans != 0 ? "MN" : "K") + (width == 16 ? "" : "/" + std::to_string(width));
}

/// Every width of both operands in this pair of major-nesses; A from shared memory, and
/// with
/// A K-major from registers.
template <int N, int kTransA, int kTransB>
void check_layouts(Report& report, TileCase& tiles) {
  const std::string shape = "wgmma m64n" + std::to_string(N) + "k16, ";
  for (const int width_b : kWidths) {
    for (const int width_a : kWidths) {
      run_wgmma<N, false, kTransA, kTransB>(tiles, width_a, width_b);
      tiles.check(report, shape + "A " + layout_name(kTransA, width_a) + ", B " +
                              layout_name(kTransB, width_b));
    }
    if constexpr (kTransA == 0) {
      run_wgmma<N, true, 0, kTransB>(tiles, 16, width_b);
      tiles.check(report, shape + "A registers, B " + layout_name(kTransB, width_b));
    }
  }
}

template <int N>
void check_all_layouts(Report& report, int64_t outputs) {
  TileCase tiles(N, kMaxK, outputs);
  check_layouts<N, 0, 0>(report, tiles);
  check_layouts<N, 0, 1>(report, tiles);
  check_layouts<N, 1, 0>(report, tiles);
  check_layouts<N, 1, 1>(report, tiles);
}

/// One shape by its four usual forms, a chain of four steps.
template <int N>
void check_shape(Report& report, int64_t outputs) {
  TileCase tiles(N, kMaxK, outputs);
  const std::string shape = "m64n" + std::to_string(N) + "k16 ";
  run_wgmma<N, false, 0, 0>(tiles, 128, 128);
  tiles.check(report, shape + "shared, K-major");
  run_wgmma<N, true, 0, 0>(tiles, 128, 128);
  tiles.check(report, shape + "registers, K-major");
  run_wgmma<N, false, 1, 1>(tiles, 128, 128);
  tiles.check(report, shape + "shared, MN-major");
}

template <int N>
void check_shapes_from(Report& report, int64_t outputs) {
  check_shape<N>(report, outputs);
  if constexpr (N < kMaxN) check_shapes_from<N + 8>(report, outputs);
}

// --- one step, and the ways to chain ---

void check_steps(Report& report, int64_t outputs) {
  report.heading("One step and chains of four: random and edge operands, any accumulator");
  TileCase one(kMaxN, 16, outputs), chain(kMaxN, kMaxK, outputs);
  report.row("the model on the device against the host's",
             static_cast<uint64_t>((one.count() + 96) / 97 + (chain.count() + 96) / 97),
             one.host_differences(97) + chain.host_differences(97));
  mma_tiles<false><<<one.tiles(), 128>>>(one.actual());
  one.check(report, "mma.sync m16n8k16, one step");
  mma_tiles<false><<<chain.tiles(), 128>>>(chain.actual());
  chain.check(report, "mma.sync m16n8k16, a chain");
  run_wgmma<256, false, 0, 0, 1>(one, 128, 128);
  one.check(report, "wgmma m64n256k16, A in shared memory, one step");
  run_wgmma<256, true, 0, 0, 1>(one, 128, 128);
  one.check(report, "wgmma m64n256k16, A in registers, one step");
  run_wgmma<256, false, 0, 0>(chain, 128, 128);
  chain.check(report, "wgmma, a chain in one group");
  run_wgmma<256, false, 0, 0, 4, true>(chain, 128, 128);
  chain.check(report, "wgmma, a chain with a wait after each step");
  const auto kinds = chain.kinds();
  Report::note("results of the chains: " + std::to_string(kinds[0]) + " zeros, " +
               std::to_string(kinds[1]) + " subnormal, " + std::to_string(kinds[2]) +
               " infinite, " + std::to_string(kinds[3]) + " NaN, of " +
               std::to_string(chain.count()));
  chain.start_from_zero();
  mma_tiles<false><<<chain.tiles(), 128>>>(chain.actual());
  chain.check(report, "mma.sync, a chain from zero");
  run_wgmma<256, false, 0, 0>(chain, 128, 128, true);
  chain.check(report, "wgmma, a chain from zero by scale-d = 0");
}

/// Whether m16n8k8 would do: it is no part of the contract, so it does not fail.
void note_half_steps(int64_t outputs) {
  Report seen;
  seen.heading("For information: mma.sync m16n8k8, in chains of two");
  TileCase one(kMaxN, 16, outputs);
  mma_tiles<true><<<one.tiles(), 128>>>(one.actual());
  one.compare_with_expected(seen, "against steps of 16 products");
  one.define({8, 25});
  mma_tiles<true><<<one.tiles(), 128>>>(one.actual());
  one.compare_with_expected(seen, "against steps of 8 products, 25 bits");
}

int run(int64_t outputs) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::fprintf(stderr,
                 "skipped: no CUDA device (nvidia-smi tells whether the driver sees one)\n");
    return 77;
  }
  cudaDeviceProp device{};
  require(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  int driver = 0, runtime = 0;
  require(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  require(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  if (device.major != 9) {
    std::fprintf(stderr, "skipped: %s has compute capability %d.%d; wgmma needs 9.0\n", device.name,
                 device.major, device.minor);
    return 77;
  }
  std::printf("%s, compute capability %d.%d, CUDA driver %d, runtime %d\n", device.name,
              device.major, device.minor, driver, runtime);
  Report report;
  check_steps(report, outputs);
  report.heading("wgmma: every N, chains of four steps, operands swizzled by 128 bytes");
  check_shapes_from<8>(report, outputs);
  report.heading(
      "wgmma: every layout of shared memory (MN and K: which index is contiguous; "
      "the swizzle's bytes), chains of four steps");
  check_all_layouts<8>(report, outputs);
  check_all_layouts<64>(report, outputs);
  check_all_layouts<256>(report, outputs);
  check_floats(report, outputs);
  check_copies(report);
  note_half_steps(outputs);
  std::printf("\n%d checks, %d with differences.\n", report.checks(), report.failed());
  return report.failed() == 0 ? 0 : 1;
}

}  // namespace
}  // namespace orrery::selftest

int main(int argc, char** argv) {
  int64_t outputs = 10'000'000;
  if (argc == 3 && std::strcmp(argv[1], "--outputs") == 0) outputs = std::atoll(argv[2]);
  if ((argc != 1 && argc != 3) || outputs < 1) {
    std::fprintf(stderr, "usage: selftest [--outputs N], N results a check (default 10000000)\n");
    return 2;
  }
  return orrery::selftest::run(outputs);
}
