// rope_backward and rope_kv_write.
#pragma once

#include "core/dtype.h"
#include "kernels/attention_plan.h"
#include "tests/kernels/cases/case_table.h"

namespace orrery::kernels::cases {

struct RopeCase : Case {
  int64_t tokens, heads, head_dim;
  int64_t kv_heads = 0;  ///< of the keys, which a layer rotates too: in benchmarks
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
    {{"group", kBenchBackward, &k135M}, kGroupTokens, k135M.heads, k135M.head_dim, k135M.kv_heads},
    {{"group", kBenchBackward, &k8M}, kGroupTokens, k8M.heads, k8M.head_dim, k8M.kv_heads},
};

/// The heads of queries, keys and values in a row. Which rows are written is
/// KvWriteBatches' (attention_cases.h), and what is timed kKvWriteCases'.
struct RopeKvCase : Case {
  AttentionShape shape;
  DType dtype = DType::kF32;
  int64_t padding = 0;  ///< of the rows, where a test chooses it
};

inline constexpr RopeKvCase kRopeKvCases[] = {
    {{"one_pair", kOracle}, {1, 1, 2}},
    {{"less_than_a_vector", kOracle}, {4, 2, 10}, DType::kF32, 3},
    {{"one_vector", kOracle}, {3, 3, 32}},
    {{"a_vector_and_a_tail", kOracle}, {2, 1, 34}, DType::kF32, 1},
    {{"head_dim_64", kOracle}, {9, 3, 64}},
    {{"head_dim_128", kOracle}, {4, 1, 128}, DType::kF32, 4},
    {{"bf16_one_pair", kOracle}, {1, 1, 2}, DType::kBF16},
    {{"bf16_less_than_a_vector", kOracle}, {4, 2, 10}, DType::kBF16, 3},
    {{"bf16_half_of_12", kOracle}, {2, 2, 24}, DType::kBF16},
    {{"bf16_a_vector_and_a_tail", kOracle}, {2, 1, 34}, DType::kBF16},
    {{"bf16_half_of_24", kOracle}, {6, 6, 48}, DType::kBF16},
    {{"bf16_head_dim_64", kOracle}, {14, 2, 64}, DType::kBF16, 8},
    {{"bf16_unaligned", kOracle}, {6, 3, 64}, DType::kBF16, 3},
    {{"bf16_head_dim_128", kOracle}, {4, 1, 128}, DType::kBF16},
};

}  // namespace orrery::kernels::cases
