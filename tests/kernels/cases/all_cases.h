// The case tables of all ops, by the name under which an op is dispatched.
#pragma once

#include "tests/kernels/cases/attention_backward_pairs_cases.h"
#include "tests/kernels/cases/attention_cases.h"
#include "tests/kernels/cases/embedding_cases.h"
#include "tests/kernels/cases/flat_cases.h"
#include "tests/kernels/cases/matmul_cases.h"
#include "tests/kernels/cases/rmsnorm_cases.h"
#include "tests/kernels/cases/rope_cases.h"
#include "tests/kernels/cases/rows_cases.h"
#include "tests/kernels/cases/swiglu_cases.h"
#include "tests/kernels/cases/vocabulary_cases.h"

namespace orrery::kernels::cases {

struct OpTable {
  const char* op;
  Use uses;  ///< of the rows of its tables
};

inline constexpr OpTable kOpTables[] = {
    {"matmul_forward", uses_of(kMatmulCases) | uses_of(kPairsMatmulCases) | uses_of(kProductCases)},
    {"matmul_backward_input",
     uses_of(kMatmulCases) | uses_of(kPairsMatmulCases) | uses_of(kProductCases)},
    {"matmul_backward_weight",
     uses_of(kMatmulCases) | uses_of(kPairsMatmulCases) | uses_of(kProductCases)},
    {"pack_weight", uses_of(kPackCases)},
    {"bias_backward", uses_of(kMatmulCases) | uses_of(kBiasCases)},
    {"attention_forward", uses_of(kAttentionCases) | uses_of(kAttentionBatchCases)},
    {"attention_backward", uses_of(kAttentionTreeCases) | uses_of(kAttentionBatchCases) |
                               uses_of(kAttentionPairsTreeCases) |
                               uses_of(kAttentionPairsBatchCases)},
    {"kv_write", uses_of(kAttentionCases) | uses_of(kKvWriteCases)},
    {"rope_kv_write", uses_of(kRopeKvCases) | uses_of(kKvWriteCases)},
    {"kv_copy", uses_of(kKvCopyCases)},
    {"kv_clear", uses_of(kKvClearCases)},
    {"rmsnorm_forward", uses_of(kRmsnormCases)},
    {"rmsnorm_residual_forward", uses_of(kRmsnormCases)},
    {"rmsnorm_backward", uses_of(kRmsnormCases)},
    {"rope_backward", uses_of(kRopeCases)},
    {"swiglu_forward", uses_of(kSwigluCases)},
    {"swiglu_backward", uses_of(kSwigluCases)},
    {"embedding_forward", uses_of(kEmbeddingCases)},
    {"embedding_backward", uses_of(kEmbeddingCases)},
    {"copy_rows", uses_of(kRowsCases)},
    {"round_rows", uses_of(kRowsCases)},
    {"gather_rows", uses_of(kRowsCases)},
    {"scatter_add_rows", uses_of(kRowsCases)},
    {"spread_rows", uses_of(kSpreadCases)},
    {"logprob_forward", uses_of(kLogprobCases)},
    {"logprob_backward", uses_of(kLogprobCases)},
    {"lm_head_logprob", uses_of(kLmHeadCases)},
    {"sample_forward", uses_of(kSamplingCases)},
    {"fill", uses_of(kFillCases)},
    {"nested_sum", uses_of(kNestedSumCases)},
    {"tree_sum", uses_of(kTreeSumCases)},
    {"checksum", uses_of(kChecksumCases)},
    {"max_abs", uses_of(kMaxAbsCases)},
    {"adamw_step", uses_of(kAdamwCases)},
    {"sum_squares_chunks", uses_of(kSumSquaresCases)},
};

}  // namespace orrery::kernels::cases
