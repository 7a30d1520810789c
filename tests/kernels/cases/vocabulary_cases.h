// Ops on rows of logits: logprob_forward and logprob_backward, the LM head fused with
// them, and sample_forward.
#pragma once

#include "core/dtype.h"
#include "kernels/sampling.h"
#include "tests/kernels/cases/case_table.h"

namespace orrery::kernels::cases {

struct LogprobCase : Case {
  int64_t rows, vocab;
  float scale = 1.0f;  ///< standard deviation of the logits in a test
  double tolerance = 1e-6;
  DType dtype = DType::kF32;  ///< of the logits' gradients
};

inline constexpr LogprobCase kLogprobCases[] = {
    {{"one_token", kTest}, 1, 1},
    {{"less_than_a_vector", kTest}, 4, 7, 1.0f, 2e-6},
    {{"one_vector", kTest}, 3, 16, 4.0f, 4e-6},
    {{"a_tail", kTest}, 6, 257, 8.0f, 1e-5},
    {{"rows_for_threads", kTest}, 17, 1009, 3.0f, 1e-5},
    {{"large_vocabulary", kTest}, 2, 50257, 2.0f, 2e-5},
    {{"bf16_one_token", kOracle}, 1, 1, 1.0f, 0, DType::kBF16},
    {{"bf16_less_than_a_vector", kOracle}, 4, 7, 1.0f, 0, DType::kBF16},
    {{"bf16_a_tail", kOracle}, 6, 257, 8.0f, 0, DType::kBF16},
    {{"bf16_rows_for_threads", kOracle}, 17, 1009, 3.0f, 0, DType::kBF16},
    {{"decode", kBench, &k135M}, kDecodeRows, k135M.vocab},
    {{"decode", kBench, &k8M}, kDecodeRows, k8M.vocab},
};

struct LmHeadCase : Case {
  int64_t rows, hidden, vocab;
  DType dtype = DType::kF32;  ///< of hidden states and weights
};

/// The head has the bits of its parts, whose gradients are tested by differences.
inline constexpr LmHeadCase kLmHeadCases[] = {
    // A vocabulary of which a chunk holds 70 rows, and rows for three chunks, the last
    // one short.
    {{"three_chunks", kOracle}, 150, 5, 262'144},
    // A chunk holds 32 rows.
    {{"bf16_chunks", kOracle}, 150, 5, 262'144, DType::kBF16},
    {{"responses", kBench, &k135M}, kResponseTokens, k135M.dim, k135M.vocab},
    {{"responses", kBench, &k8M}, kResponseTokens, k8M.dim, k8M.vocab},
};

struct SamplingCase : Case {
  int64_t vocab;
  float scale = 1.0f;  ///< standard deviation of the logits in a test
};

/// A test takes every combination of parameters, a benchmark each of kSamplers.
inline constexpr SamplingCase kSamplingCases[] = {
    {{"one_token", kOracle}, 1},
    {{"less_than_a_vector", kOracle}, 7},
    {{"one_block", kOracle}, 256, 3.0f},
    {{"blocks_and_a_tail", kOracle}, 1009, 2.0f},
    {{"many_blocks", kOracle}, 9001, 4.0f},
    {{"decode", kBenchForward, &k135M}, k135M.vocab},
    {{"decode", kBenchForward, &k8M}, k8M.vocab},
};

struct Sampler {
  const char* name;
  SamplingParams params;
};

inline constexpr Sampler kSamplers[] = {
    {"greedy", {.temperature = 0.0f}},
    {"temperature", {.temperature = 0.7f}},
    {"top_k", {.top_k = 50}},
    {"top_p", {.top_p = 0.9f}},
    {"top_k_top_p", {.top_k = 50, .top_p = 0.9f}},
    {"min_p", {.min_p = 0.05f}},
};

}  // namespace orrery::kernels::cases
