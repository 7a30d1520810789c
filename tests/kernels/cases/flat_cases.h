// Ops on flat arrays: fill, nested_sum, tree_sum, checksum, max_abs, adamw_step and
// sum_squares_chunks.
#pragma once

#include "kernels/optimizer.h"
#include "tests/kernels/cases/case_table.h"

namespace orrery::kernels::cases {

struct FlatCase : Case {
  int64_t count;
};

/// The elements of a benchmark: enough to come from memory, as a whole model does,
/// without taking as much memory as a whole model.
constexpr int64_t bench_elements(const ModelShape& model) {
  return std::min<int64_t>(model.parameters(), 16 << 20);
}

inline constexpr FlatCase kFillCases[] = {
    {{"empty", kOracle}, 0},
    {{"one_element", kOracle}, 1},
    {{"a_tail", kOracle}, 31},
    {{"elements_for_threads", kOracle}, 100003},
    {{"model", kBenchForward, &k135M}, bench_elements(k135M)},
    {{"model", kBenchForward, &k8M}, bench_elements(k8M)},
};

/// A sum of several arrays. A test takes each of kSumCounts elements.
struct SumCase : Case {
  int64_t parts, count = 0;
};

inline constexpr int64_t kSumCounts[] = {0, 1, 15, 16, 512, 529, 70001};

inline constexpr SumCase kNestedSumCases[] = {
    {{"parts_2", kOracle}, 2},
    {{"parts_3", kOracle}, 3},
    {{"parts_4", kOracle}, 4},
    {{"parts_17", kOracle}, 17},
    {{"first_of_two", kBenchForward, &k135M}, 2, bench_elements(k135M)},
    {{"last_of_eight", kBenchForward, &k135M}, 4, bench_elements(k135M)},
    {{"first_of_two", kBenchForward, &k8M}, 2, bench_elements(k8M)},
    {{"last_of_eight", kBenchForward, &k8M}, 4, bench_elements(k8M)},
};

inline constexpr SumCase kTreeSumCases[] = {
    {{"parts_2", kOracle}, 2},
    {{"parts_4", kOracle}, 4},
    {{"parts_8", kOracle}, 8},
    {{"parts_32", kOracle}, 32},
    {{"shards", kBenchForward, &k135M}, 8, bench_elements(k135M)},
    {{"shards", kBenchForward, &k8M}, 8, bench_elements(k8M)},
};

inline constexpr FlatCase kChecksumCases[] = {
    {{"empty", kOracle}, 0},
    {{"one_element", kOracle}, 1},
    {{"less_than_a_vector", kOracle}, 7},
    {{"one_vector", kOracle}, 8},
    {{"a_vector_and_a_tail", kOracle}, 9},
    {{"a_tail", kOracle}, 1003},
    {{"elements_for_threads", kOracle}, (3 << 20) + 5},
    {{"model", kBenchForward, &k135M}, bench_elements(k135M)},
    {{"model", kBenchForward, &k8M}, bench_elements(k8M)},
};

inline constexpr FlatCase kMaxAbsCases[] = {
    {{"elements_for_threads", kOracle}, 1 << 20},
    {{"model", kBenchForward, &k135M}, bench_elements(k135M)},
    {{"model", kBenchForward, &k8M}, bench_elements(k8M)},
};

inline constexpr FlatCase kAdamwCases[] = {
    {{"one_element", kOracle}, 1},
    {{"less_than_a_vector", kOracle}, 15},
    {{"one_vector", kOracle}, 16},
    {{"a_tail", kOracle}, 1003},
    {{"elements_for_threads", kOracle}, 40013},
    {{"model", kBenchForward, &k135M}, bench_elements(k135M)},
    {{"model", kBenchForward, &k8M}, bench_elements(k8M)},
};

inline constexpr FlatCase kSumSquaresCases[] = {
    {{"one_element", kOracle}, 1},
    {{"a_tail", kOracle}, 77},
    {{"one_chunk", kOracle}, kNormChunk},
    {{"chunks_and_a_tail", kOracle}, 3 * kNormChunk + 19},
    {{"model", kBenchForward, &k135M}, bench_elements(k135M)},
    {{"model", kBenchForward, &k8M}, bench_elements(k8M)},
};

}  // namespace orrery::kernels::cases
