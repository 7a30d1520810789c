// matmul_forward, matmul_backward_input, matmul_backward_weight, pack_weight and
// bias_backward.
#pragma once

#include "core/dtype.h"
#include "tests/kernels/cases/case_table.h"

namespace orrery::kernels::cases {

/// y [m, n] = x [m, k] times the transpose of a weight [n, k].
struct MatmulCase : Case {
  int64_t m, n, k;
  DType dtype = DType::kF32;  ///< of the operands
  bool bias = false;
  bool accumulate = false;
  int64_t padding = 0;  ///< of a row of each matrix
  /// Where the runs of rows end for the weight's gradient. Empty: one run.
  List<int64_t, 6> run_ends = {};
};

inline constexpr MatmulCase kMatmulCases[] = {
    {{"one_element", kOracle}, 1, 1, 1},
    {{"one_panel", kOracle}, 1, 32, 1},
    {{"m1", kOracle}, 1, 200, 40},
    {{"m1_bias", kOracle}, 1, 257, 131, DType::kF32, true},
    {{"m2_bias", kOracle}, 2, 160, 33, DType::kF32, true},
    {{"m2", kOracle}, 2, 320, 17},
    {{"m3_accumulate", kOracle}, 3, 97, 64, DType::kF32, false, true, 5},
    {{"m4", kOracle}, 4, 70, 19},
    {{"m5_accumulate", kOracle}, 5, 96, 48, DType::kF32, false, true},
    {{"m6_bias", kOracle}, 6, 129, 31, DType::kF32, true, false, 3},
    {{"m7", kOracle}, 7, 31, 7},
    {{"m8_accumulate", kOracle}, 8, 33, 16, DType::kF32, false, true},
    {{"m9", kOracle}, 9, 48, 50},
    {{"m10_bias", kOracle}, 10, 16, 12, DType::kF32, true, false, 1},
    {{"m11", kOracle}, 11, 47, 5},
    {{"m12", kOracle}, 12, 15, 100},
    {{"m13_bias", kOracle}, 13, 64, 29, DType::kF32, true},
    {{"m14", kOracle}, 14, 32, 64},
    {{"m15_accumulate", kOracle}, 15, 100, 67, DType::kF32, false, true, 9},
    {{"m16", kOracle}, 16, 17, 3},
    {{"m27_accumulate", kOracle}, 27, 45, 2, DType::kF32, false, true},
    {{"m28", kOracle}, 28, 64, 96},
    {{"blocks_of_the_inner_index", kOracle}, 29, 41, 769},
    {{"m61_bias", kOracle}, 61, 67, 71, DType::kF32, true, false, 2},
    {{"m113_accumulate", kOracle}, 113, 37, 53, DType::kF32, false, true},
    {{"blocks_of_rows", kOracle}, 257, 24, 600, DType::kF32, false, false, 7},
    {{"blocks_of_the_input_gradients_inner_index", kOracle}, 40, 545, 33},
    {{"blocks_of_the_weight_gradients_inner_index", kOracle}, 523, 20, 18},
    // Enough work for several threads.
    {{"threads_by_rows", kOracle}, 200, 300, 100},
    {{"threads_by_panels", kOracle}, 40, 2100, 65, DType::kF32, true},
    {{"threads_m3", kOracle}, 3, 4100, 64, DType::kF32, false, true},
    {{"threads_m1", kOracle}, 1, 9999, 60, DType::kF32, true},
    {{"no_rows", kOracle}, 0, 5, 6},
    {{"no_outputs", kOracle}, 5, 0, 6},
    {{"no_inputs", kOracle}, 5, 6, 0},
    {{"no_inputs_bias", kOracle}, 5, 40, 0, DType::kF32, true},
    {{"no_inputs_accumulate", kOracle}, 5, 6, 0, DType::kF32, false, true},
    {{"gradient", kDifferences}, 5, 7, 9, DType::kF32, true},
};

/// The same in bf16: y and dx as f32, and as bf16 where they do not accumulate. They
/// have no finite differences: where operands and weights are rounded, a difference
/// quotient shows the rounding.
inline constexpr MatmulCase kPairsMatmulCases[] = {
    {{"one_element", kOracle}, 1, 1, 1, DType::kBF16},
    {{"one_square", kOracle}, 1, 32, 32, DType::kBF16},
    {{"m1_bias", kOracle}, 1, 257, 131, DType::kBF16, true},
    {{"m2", kOracle}, 2, 320, 17, DType::kBF16},
    {{"m3_accumulate", kOracle}, 3, 97, 64, DType::kBF16, false, true, 5},
    {{"m4", kOracle}, 4, 31, 33, DType::kBF16, false, false, 1, {0, 3, 4}},
    {{"m5_accumulate", kOracle}, 5, 96, 48, DType::kBF16, false, true, 0, {1, 2, 5}},
    {{"m6_bias", kOracle}, 6, 129, 31, DType::kBF16, true, false, 3},
    {{"m7", kOracle}, 7, 33, 100, DType::kBF16},
    {{"m8_accumulate", kOracle}, 8, 64, 16, DType::kBF16, false, true},
    {{"m13_bias", kOracle}, 13, 64, 29, DType::kBF16, true},
    {{"m16", kOracle}, 16, 100, 3, DType::kBF16},
    {{"m17_accumulate", kOracle}, 17, 16, 65, DType::kBF16, false, true, 2},
    {{"m31_bias", kOracle}, 31, 50, 63, DType::kBF16, true, false, 1},
    {{"m32", kOracle}, 32, 32, 64, DType::kBF16},
    {{"m33_accumulate", kOracle}, 33, 47, 5, DType::kBF16, false, true},
    {{"m64_runs", kOracle}, 64, 33, 50, DType::kBF16, true, false, 0, {32, 64}},
    {{"m100_runs", kOracle}, 100, 70, 33, DType::kBF16, false, true, 7, {0, 31, 31, 64, 65, 100}},
    {{"parts_of_the_inner_index", kOracle}, 7, 33, 4200, DType::kBF16, true},
    {{"parts_of_the_inner_index_accumulate", kOracle}, 3, 20, 4129, DType::kBF16, false, true},
    {{"parts_of_the_input_gradients", kOracle}, 9, 4200, 33, DType::kBF16, false, true},
    {{"parts_of_the_weight_gradients", kOracle},
     1100,
     20,
     18,
     DType::kBF16,
     false,
     false,
     0,
     {300, 301, 1100}},
    {{"blocks_of_rows", kOracle}, 257, 24, 600, DType::kBF16, false, false, 7},
    {{"blocks_of_rows_for_one_tile", kOracle}, 40, 20, 4096, DType::kBF16, true},
    // Enough work for several threads.
    {{"threads_by_rows", kOracle}, 200, 300, 100, DType::kBF16, true, false, 0, {77, 200}},
    {{"threads_by_panels", kOracle}, 40, 2100, 65, DType::kBF16, true},
    {{"threads_m3", kOracle}, 3, 4100, 64, DType::kBF16, false, true},
    {{"threads_m1", kOracle}, 1, 9999, 60, DType::kBF16, true},
    {{"no_rows", kOracle}, 0, 5, 6, DType::kBF16, false, false, 0, {0, 0}},
    {{"no_outputs", kOracle}, 5, 0, 6, DType::kBF16},
    {{"no_inputs", kOracle}, 5, 6, 0, DType::kBF16},
    {{"no_inputs_bias", kOracle}, 5, 40, 0, DType::kBF16, true},
    {{"no_inputs_accumulate", kOracle}, 5, 6, 0, DType::kBF16, false, true},
};

/// The products of a model, whose weights pack_weight packs. The benchmark of a forward
/// takes each of kMatmulBenchRows rows, that of a backward kGroupTokens.
struct ProductCase : Case {
  int64_t n, k;
};

inline constexpr int64_t kMatmulBenchRows[] = {1, 8, kDecodeRows, 512};

inline constexpr ProductCase kProductCases[] = {
    {{"qkv", kBench, &k135M}, k135M.qkv_size(), k135M.dim},
    {{"out", kBench, &k135M}, k135M.dim, k135M.q_size()},
    {{"gate_up", kBench, &k135M}, 2 * k135M.ffn, k135M.dim},
    {{"down", kBench, &k135M}, k135M.dim, k135M.ffn},
    {{"head", kBench, &k135M}, k135M.vocab, k135M.dim},
    {{"qkv", kBench, &k8M}, k8M.qkv_size(), k8M.dim},
    {{"out", kBench, &k8M}, k8M.dim, k8M.q_size()},
    {{"gate_up", kBench, &k8M}, 2 * k8M.ffn, k8M.dim},
    {{"down", kBench, &k8M}, k8M.dim, k8M.ffn},
    {{"head", kBench, &k8M}, k8M.vocab, k8M.dim},
};

/// A weight [n, k] in panels of the device's layout.
struct PackCase : Case {
  int64_t n, k;
};

inline constexpr PackCase kPackCases[] = {
    {{"padded_panel", kOracle}, 70, 11},
    {{"gate_up", kBenchForward, &k135M}, 2 * k135M.ffn, k135M.dim},
    {{"head", kBenchForward, &k135M}, k135M.vocab, k135M.dim},
    {{"gate_up", kBenchForward, &k8M}, 2 * k8M.ffn, k8M.dim},
    {{"head", kBenchForward, &k8M}, k8M.vocab, k8M.dim},
};

/// The gradient of a bias [n] from that of y [m, n]; its differences are those of
/// kMatmulCases.
struct BiasCase : Case {
  int64_t m, n;
  int64_t padding = 0;
};

inline constexpr BiasCase kBiasCases[] = {
    {{"columns_for_threads", kOracle}, 19, 523, 4},
    {{"qkv", kBenchBackward, &k135M}, kGroupTokens, k135M.qkv_size()},
    {{"qkv", kBenchBackward, &k8M}, kGroupTokens, k8M.qkv_size()},
};

}  // namespace orrery::kernels::cases
