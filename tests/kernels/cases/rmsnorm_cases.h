// rmsnorm_forward, rmsnorm_residual_forward, rmsnorm_backward.
#pragma once

#include "core/dtype.h"
#include "tests/kernels/cases/case_table.h"

namespace orrery::kernels::cases {

/// Rows of `heads` vectors of `dim`: the norm of a layer has 1, that of queries and
/// keys one a head.
struct RmsnormCase : Case {
  int64_t tokens, heads, dim;
  double tolerance = 1e-6;
  /// Of what products read and give: bf16 beside an f32 residual stream, and for the
  /// norm of queries and keys all matrices.
  DType dtype = DType::kF32;
};

inline constexpr RmsnormCase kRmsnormCases[] = {
    {{"one_element", kTest}, 1, 1, 1},
    {{"less_than_a_vector", kTest}, 3, 1, 7},
    {{"one_vector", kTest}, 5, 1, 16},
    {{"heads_with_a_tail", kTest}, 2, 3, 17},
    {{"heads", kTest}, 31, 4, 64},
    {{"rows_for_threads", kTest}, 130, 1, 577, 2e-6},
    {{"long_chains", kTest}, 277, 5, 24, 4e-6},  // of dweight
    {{"more_heads_than_tokens", kTest}, 9, 40, 16, 2e-6},
    {{"bf16_one_element", kOracle}, 1, 1, 1, 0, DType::kBF16},
    {{"bf16_less_than_a_vector", kOracle}, 3, 1, 7, 0, DType::kBF16},
    {{"bf16_heads_with_a_tail", kOracle}, 2, 3, 17, 0, DType::kBF16},
    {{"bf16_heads", kOracle}, 31, 4, 64, 0, DType::kBF16},
    {{"bf16_rows_for_threads", kOracle}, 130, 1, 577, 0, DType::kBF16},
    {{"decode", kBenchForward, &k135M}, kDecodeRows, 1, k135M.dim},
    {{"group", kBench, &k135M}, kGroupTokens, 1, k135M.dim},
    {{"decode_heads", kBenchForward, &k135M}, kDecodeRows, k135M.heads, k135M.head_dim},
    {{"group_heads", kBench, &k135M}, kGroupTokens, k135M.heads, k135M.head_dim},
    {{"decode", kBenchForward, &k8M}, kDecodeRows, 1, k8M.dim},
    {{"group", kBench, &k8M}, kGroupTokens, 1, k8M.dim},
    {{"decode_heads", kBenchForward, &k8M}, kDecodeRows, k8M.heads, k8M.head_dim},
    {{"group_heads", kBench, &k8M}, kGroupTokens, k8M.heads, k8M.head_dim},
};

}  // namespace orrery::kernels::cases
