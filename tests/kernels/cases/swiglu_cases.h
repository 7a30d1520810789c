// swiglu_forward and swiglu_backward.
#pragma once

#include "core/dtype.h"
#include "tests/kernels/cases/case_table.h"

namespace orrery::kernels::cases {

struct SwigluCase : Case {
  int64_t tokens, width;
  float scale = 1.0f;  ///< standard deviation of gate and up
  double tolerance = 1e-6;
  DType dtype = DType::kF32;  ///< of all matrices
};

inline constexpr SwigluCase kSwigluCases[] = {
    {{"one_element", kTest}, 1, 1},
    {{"less_than_a_vector", kTest}, 3, 7},
    {{"one_vector", kTest}, 5, 16, 3.0f},
    {{"a_tail", kTest}, 67, 173, 2.0f},
    {{"large_gates", kTest}, 33, 384, 30.0f},
    {{"bf16_less_than_a_vector", kOracle}, 3, 7, 1.0f, 0, DType::kBF16},
    {{"bf16_one_vector", kOracle}, 5, 16, 3.0f, 0, DType::kBF16},
    {{"bf16_a_tail", kOracle}, 67, 173, 2.0f, 0, DType::kBF16},
    {{"bf16_large_gates", kOracle}, 33, 384, 30.0f, 0, DType::kBF16},
    {{"decode", kBenchForward, &k135M}, kDecodeRows, k135M.ffn},
    {{"group", kBench, &k135M}, kGroupTokens, k135M.ffn},
    {{"decode", kBenchForward, &k8M}, kDecodeRows, k8M.ffn},
    {{"group", kBench, &k8M}, kGroupTokens, k8M.ffn},
};

}  // namespace orrery::kernels::cases
