// Argument checks that ops share. Each throws an Error naming the op, the argument and
// what was expected.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/span.h"
#include "core/tensor.h"

namespace orrery::kernels {

/// Fewest elements worth a thread of its own: in ops that stream over memory, and in
/// ops with one exp per element.
inline constexpr int64_t kStreamGrain = 32768;
inline constexpr int64_t kExpGrain = 8192;

/// m: a Mat or an ActMat.
template <class Matrix>
void require_mat(const char* op, const char* name, const Matrix& m, int64_t rows, int64_t cols) {
  if (m.rows != rows || m.cols != cols) {
    fail("{}: {} is [{}, {}]; it must be [{}, {}]", op, name, m.rows, m.cols, rows, cols);
  }
  if (m.stride < m.cols)
    fail("{}: {} has stride {} under its {} columns", op, name, m.stride, m.cols);
  if (m.data == nullptr && m.size() > 0) fail("{}: {} has no memory", op, name);
}

/// Bytes of the elements of an ActMat.
inline double mat_bytes(const ConstActMat& m) { return 1.0 * m.size() * dtype_bytes(m.dtype); }

template <class T>
void require_heads(const char* op, const char* name, Heads<T> x, int64_t tokens, int64_t heads,
                   int64_t head_dim) {
  if (x.tokens != tokens || x.heads != heads || x.head_dim != head_dim) {
    fail("{}: {} is [{}, {}, {}]; it must be [{}, {}, {}]", op, name, x.tokens, x.heads, x.head_dim,
         tokens, heads, head_dim);
  }
  if (x.stride < x.heads * x.head_dim) {
    fail("{}: {} has stride {} under its {} heads of {}", op, name, x.stride, x.heads, x.head_dim);
  }
  if (x.data == nullptr && x.tokens > 0) fail("{}: {} has no memory", op, name);
}

/// Ends of runs of rows, in host memory. Empty: there are none.
inline void require_runs(const char* op, Span<const int64_t> run_ends, int64_t rows) {
  if (run_ends.empty()) return;
  int64_t last = 0;
  for (const int64_t end : run_ends) {
    if (end < last) fail("{}: a run ends at row {}, after one that ends at {}", op, end, last);
    last = end;
  }
  if (last != rows) fail("{}: the last run ends at row {} of {}", op, last, rows);
}

/// Elements that activations have.
inline void require_f32_or_bf16(const char* op, const char* name, DType dtype) {
  if (dtype != DType::kF32 && dtype != DType::kBF16)
    fail("{}: {} holds {}; it must hold f32 or bf16", op, name, dtype_name(dtype));
}

inline void require_dtype(const char* op, const char* name, DType dtype, DType expected) {
  if (dtype != expected) {
    fail("{}: {} holds {}; it must hold {}", op, name, dtype_name(dtype), dtype_name(expected));
  }
}

inline void require_size(const char* op, const char* name, int64_t size, int64_t expected) {
  if (size != expected) fail("{}: {} has {} elements; it must have {}", op, name, size, expected);
}

/// v: a Vec.
template <class T>
void require_vec(const char* op, const char* name, Vec<T> v, int64_t expected) {
  require_size(op, name, v.size, expected);
  if (v.data == nullptr && v.size > 0) fail("{}: {} has no memory", op, name);
}

inline void require_positive(const char* op, const char* name, int64_t value) {
  if (value < 1) fail("{}: {} is {}; it must be at least 1", op, name, value);
}

}  // namespace orrery::kernels
