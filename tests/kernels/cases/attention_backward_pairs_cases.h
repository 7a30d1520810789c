// attention_backward in bf16.
#pragma once

#include "tests/kernels/cases/attention_cases.h"

namespace orrery::kernels::cases {

/// Segments end within, at and after blocks of 32 rows and blocks of 32 queries.
inline constexpr AttentionTreeCase kAttentionPairsTreeCases[] = {
    {{"one_token", kOracle}, {1, 1, 2}, {{1}}},
    {{"odd_head_dim", kOracle}, {2, 2, 7}, {{33}, {5, 0}}},
    {{"head_dim_16", kOracle}, {2, 1, 16}, {{100}, {31, 0}, {33, 0}, {1, 0}, {32}, {32, 4}}},
    {{"groups_of_1", kOracle}, {2, 2, 64}, {{33}, {100, 0}, {32, 0}}},
    {{"groups_of_3", kOracle}, {9, 3, 64}, {{31}, {45, 0}, {33, 0}, {1, 1}, {70}}},
    {{"groups_of_4", kOracle}, {4, 1, 80}, {{32}, {33, 0}, {31, 0}}},
    {{"groups_of_5", kOracle}, {5, 1, 96}, {{1}, {33, 0}, {32, 1}}},
    {{"groups_of_6", kOracle}, {6, 1, 128}, {{40}, {13, 0}}},
    {{"groups_of_7", kOracle}, {14, 2, 24}, {{40}, {33, 0}, {1, 0}}},
    {{"groups_of_8", kOracle}, {8, 1, 64}, {{31}, {13, 0}, {20}}},
    {{"groups_of_60", kOracle}, {60, 1, 24}, {{3}, {3, 0}}},
    {{"head_dim_1024", kOracle}, {2, 1, 1024}, {{9}}},
    {{"five_levels", kOracle},
     {8, 2, 24},
     {{10}, {20, 0}, {5, 0}, {35, 1}, {6, 2}, {31, 3}, {4, 1}, {9}, {2, 7}}},
    {{"empty_segments", kOracle}, {4, 2, 16}, {{0}, {9, 0}, {0, 1}, {8, 2}, {0, 3}}},
    {{"groups_of_key_tiles", kOracle}, {2, 1, 16}, {{300}, {40, 0}}},
    {{"large_scores", kOracle}, {4, 2, 32}, {{50}, {20, 0}}, 200.0f},
    {{"equal_scores", kOracle}, {4, 2, 32}, {{40}}, 0.0f},
    {{"products_that_flush", kOracle}, {4, 2, 32}, {{50}, {20, 0}}, 0x1p-60f},
};

/// The benchmark's, each for every one of kModels: those of f32.
inline constexpr AttentionBatchCase kAttentionPairsBatchCases[] = {
    {{"group", kBenchBackward}, 1, 60, 8, 128},
    {{"plain", kBenchBackward}, 1, 0, 8, 256},
};

}  // namespace orrery::kernels::cases
