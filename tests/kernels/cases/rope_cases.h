// rope_forward and rope_backward.
#pragma once

#include "core/dtype.h"
#include "tests/kernels/cases/case_table.h"

namespace orrery::kernels::cases {

struct RopeCase : Case {
  int64_t tokens, heads, head_dim;
  int64_t kv_heads = 0;  ///< of the keys that a layer rotates too: in benchmarks
  DType dtype = DType::kF32;
};

inline constexpr RopeCase kRopeCases[] = {
    {{"one_pair", kTest}, 1, 1, 2},
    {{"less_than_a_vector", kTest}, 3, 2, 10},
    {{"one_vector", kTest}, 7, 3, 32},
    {{"a_vector_and_a_tail", kTest}, 5, 1, 34},
    {{"head_dim_64", kTest}, 131, 9, 64},
    {{"head_dim_128", kTest}, 300, 3, 128},
    {{"bf16_one_pair", kOracle}, 1, 1, 2, 0, DType::kBF16},
    {{"bf16_less_than_a_vector", kOracle}, 3, 2, 10, 0, DType::kBF16},
    {{"bf16_a_vector_and_a_tail", kOracle}, 5, 1, 34, 0, DType::kBF16},
    {{"bf16_half_of_24", kOracle}, 5, 3, 48, 0, DType::kBF16},
    {{"bf16_head_dim_64", kOracle}, 131, 9, 64, 0, DType::kBF16},
    {{"decode", kBenchForward, &k135M}, kDecodeRows, k135M.heads, k135M.head_dim, k135M.kv_heads},
    {{"group", kBench, &k135M}, kGroupTokens, k135M.heads, k135M.head_dim, k135M.kv_heads},
    {{"decode", kBenchForward, &k8M}, kDecodeRows, k8M.heads, k8M.head_dim, k8M.kv_heads},
    {{"group", kBench, &k8M}, kGroupTokens, k8M.heads, k8M.head_dim, k8M.kv_heads},
};

}  // namespace orrery::kernels::cases
