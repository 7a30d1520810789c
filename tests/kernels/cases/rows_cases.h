// gather_rows, scatter_add_rows, copy_rows and round_rows, and spread_rows.
#pragma once

#include "tests/kernels/cases/case_table.h"

namespace orrery::kernels::cases {

/// `count` of `from_rows` rows.
struct RowsCase : Case {
  int64_t from_rows, dim, count;
  List<int32_t, 5> some = {};  ///< which ones, where they are few
  std::vector<int32_t> rows() const {
    if (some.size() > 0) return {some.begin(), some.end()};
    return scattered_ids(count, from_rows);
  }
};

inline constexpr RowsCase kRowsCases[] = {
    {{"one_element", kOracle}, 1, 1, 1, {0}},
    {{"no_rows", kOracle}, 3, 5, 0},
    {{"repeated_rows", kOracle}, 5, 17, 5, {4, 4, 0, 4, 1}},
    {{"rows_for_threads", kOracle}, 50, 200, 700},
    {{"group", kBenchForward, &k135M}, kGroupTokens, k135M.dim, kResponseTokens},
    {{"group", kBenchForward, &k8M}, kGroupTokens, k8M.dim, kResponseTokens},
};

/// Rows that move to later ones, of which some are spread over several.
struct SpreadCase : Case {
  int64_t dim, count = 7;
  /// In a test: where the rows come from, less that of the first.
  static constexpr List<int32_t, 7> kSource = {7, 7, 8, 9, 9, 9, 10};
};

inline constexpr SpreadCase kSpreadCases[] = {
    {{"one_element", kOracle}, 1},
    {{"a_tail", kOracle}, 19},
    {{"columns_for_threads", kOracle}, 30'000},
    {{"group", kBenchForward, &k135M}, k135M.dim, kGroupTokens},
    {{"group", kBenchForward, &k8M}, k8M.dim, kGroupTokens},
};

}  // namespace orrery::kernels::cases
