// Rows of matrices copied, gathered and added. Row numbers lie in device memory and are
// not checked: each must be inside its matrix.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "core/tensor.h"

namespace orrery::kernels {

/// to = from.
struct CopyRows {
  ActMat to;         ///< [r, d]
  ConstActMat from;  ///< [r, d], of to's element type; must not overlap it
};
void copy_rows(const Context& ctx, const CopyRows& op);

/// to = from, rounded to nearest even.
struct RoundRows {
  ActMat to;              ///< [r, d] bf16
  Mat<const float> from;  ///< [r, d]
};
void round_rows(const Context& ctx, const RoundRows& op);

/// to[i] = from[rows[i]].
struct GatherRows {
  ActMat to;                ///< [r, d]
  ConstActMat from;         ///< [n, d], of to's element type; must not overlap it
  Vec<const int32_t> rows;  ///< [r], in any order; may repeat
};
void gather_rows(const Context& ctx, const GatherRows& op);

/// to[rows[i]] += from[i], for i in rising order (plain adds). The bits are the same
/// for any thread count, and for one call or two over the same rows.
struct ScatterAddRows {
  Mat<float> to;            ///< [n, d]
  Mat<const float> from;    ///< [r, d]; must not overlap `to`
  Vec<const int32_t> rows;  ///< [r], in any order; may repeat
};
void scatter_add_rows(const Context& ctx, const ScatterAddRows& op);

/// Row i of y becomes a copy of row source[i] - source[0], in place. `source` must rise
/// by 0 or 1 from entry to entry.
struct SpreadRows {
  Mat<float> y;               ///< [r, d]
  Vec<const int32_t> source;  ///< [r]
};
void spread_rows(const Context& ctx, const SpreadRows& op);

}  // namespace orrery::kernels
