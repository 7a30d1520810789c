// Ops on rows in the class dot16-rz25: matrices in bf16, norms whose sums have 256
// lanes, and sums over rows in runs.
#pragma once

#include "tests/gpu/ops/cases.h"

namespace orrery::ops_check {

inline Mat<Bf16> bf16_of(Arrays& a, const char* name, const std::vector<float>& values,
                         int64_t rows, int64_t cols, int64_t padding = 0) {
  std::vector<Bf16> rounded;
  for (const float x : values) rounded.push_back(to_bf16(x));
  return {a.of_bf16(name, rounded), rows, cols, cols + padding};
}

/// Normal numbers, among them zeros of both signs, subnormals, and here and there an
/// infinity or a NaN where they are wanted.
inline std::vector<float> row_values(int64_t count, uint64_t seed, float scale, bool finite) {
  std::vector<float> values;
  Philox rng(seed, RngPurpose::kTest);
  for (int64_t i = 0; i < count; ++i) {
    const float x = scale * rng.normal();
    const float edges[] = {-0.0f, 0.0f, x * 1e-38f, x * 1e-42f, x * 1e15f, -INFINITY, NAN};
    values.push_back(rng.below(20) == 0 ? edges[rng.below(finite ? 4 : 7)] : x);
  }
  return values;
}

/// A matrix of them with a stride of cols + padding.
template <class T>
Mat<T> row_matrix(Arrays& a, const char* name, int64_t rows, int64_t cols, int64_t padding,
                  uint64_t seed, bool finite = true, float scale = 1.0f) {
  const std::vector<float> values = row_values(rows * (cols + padding), seed, scale, finite);
  if constexpr (std::is_same_v<T, Bf16>) {
    return bf16_of(a, name, values, rows, cols, padding);
  } else {
    return {a.of(name, values).data, rows, cols, cols + padding};
  }
}

/// Runs of 0 to `longest` rows.
inline std::vector<int64_t> random_run_ends(int64_t rows, int64_t longest, uint64_t seed) {
  Philox rng(seed, RngPurpose::kTest);
  std::vector<int64_t> ends{0};
  while (ends.back() < rows) {
    const int64_t more = rng.below(static_cast<uint32_t>(longest + 1));
    ends.push_back(std::min(rows, ends.back() + more));
  }
  return ends;
}

// Matrices of packets of 16 bytes, and others.
inline constexpr int64_t kPaddings[] = {0, 3, 8};

template <class B>
void run_in_bf16(Arrays& a, const RopeCase& c) {
  const Rotation rotation = rotation_of(a, c.tokens, c.head_dim);
  for (const int64_t padding : kPaddings) {
    B::rope_backward(a.ctx(), {.dx = row_matrix<Bf16>(a, "x", c.tokens, c.heads * c.head_dim,
                                                      padding, c.seed, /*finite=*/padding == 0),
                               .heads = c.heads,
                               .rotation = rotation});
    a.step("rope_backward bf16");
  }
}

template <class B>
void run_in_bf16(Arrays& a, const SwigluCase& c) {
  uint64_t seed = c.seed;
  for (const int64_t padding : kPaddings) {
    const auto matrix = [&](const char* name, int64_t cols, float scale) {
      return row_matrix<Bf16>(a, name, c.tokens, cols, padding, seed++, padding == 0, scale);
    };
    const Mat<Bf16> gate_up = matrix("gate_up", 2 * c.width, c.scale),
                    out = matrix("out", c.width, 1.0f), dout = matrix("dout", c.width, 1.0f),
                    d_gate_up = matrix("d_gate_up", 2 * c.width, 1.0f);
    B::swiglu_forward(a.ctx(), {.out = out, .gate_up = gate_up});
    a.step("swiglu_forward bf16");
    for (const Mat<Bf16>& to : {d_gate_up, gate_up}) {
      B::swiglu_backward(a.ctx(), {.d_gate_up = to, .dout = dout, .gate_up = gate_up});
      a.step("swiglu_backward bf16");
    }
  }
}

template <class B>
void run_in_bf16(Arrays& a, const RowsCase& c) {
  const Vec<const int32_t> rows = a.ids("ids", c.rows());
  for (const int64_t padding : kPaddings) {
    const Mat<float> f32 = row_matrix<float>(a, "f32", c.from_rows, c.dim, padding, 1, false);
    const Mat<Bf16> all = row_matrix<Bf16>(a, "all", c.from_rows, c.dim, padding, 2),
                    to = row_matrix<Bf16>(a, "to", c.from_rows, c.dim, 0, 3),
                    some = row_matrix<Bf16>(a, "some", c.count, c.dim, padding, 4);
    B::round_rows(a.ctx(), {.to = all, .from = f32});
    a.step("round_rows");
    B::gather_rows(a.ctx(), {.to = some, .from = all, .rows = rows});
    a.step("gather_rows bf16");
    B::copy_rows(a.ctx(), {.to = to, .from = all});
    a.step("copy_rows bf16");
  }
}

/// Tokens of a vocabulary, in runs of up to `longest_run` rows. One row of the table
/// has more runs than a launch takes.
struct RunsCase : Case {
  int64_t rows, cols, vocab, longest_run;
};
inline constexpr RunsCase kRunsCases[] = {
    {{"one_row", kOracle}, 1, 1, 1, 1},           {{"no_rows", kOracle}, 0, 5, 1, 1},
    {{"runs_of_one_row", kOracle}, 19, 17, 3, 1}, {{"some_runs", kOracle}, 90, 300, 11, 40},
    {{"one_run", kOracle}, 75, 33, 5, 1000},      {{"many_runs", kOracle}, 1700, 9, 40, 4},
    {{"wide", kOracle}, 60, 1100, 7, 25},
};

template <class B>
void run_in_bf16(Arrays& a, const RunsCase& c) {
  const std::vector<int64_t> ends = random_run_ends(c.rows, c.longest_run, c.seed);
  const auto biases = [&](const ConstActMat& dy) {
    const Vec<float> db = a.constant("db", c.cols, -0.0f);
    for (const bool accumulate : {true, false, true}) {
      B::bias_backward(a.ctx(), {.db = db, .dy = dy, .accumulate = accumulate, .run_ends = ends});
      a.step("bias_backward runs");
      B::bias_backward(a.ctx(), {.db = db, .dy = dy, .accumulate = accumulate});
      a.step("bias_backward bf16");
    }
  };
  for (const bool finite : {true, false}) {
    const auto dy = row_matrix<Bf16>(a, "dy", c.rows, c.cols, 3, 1, finite);
    const auto dout = row_matrix<float>(a, "dout", c.rows, c.cols, 2, 2, finite);
    biases(dy);
    biases(dout);
    const Mat<float> dtable(a.constant("dtable", (c.vocab + 1) * c.cols, -0.0f).data, c.vocab + 1,
                            c.cols);
    const Vec<const int32_t> ids = a.ids("ids", scattered_ids(c.rows, c.vocab));
    for (int twice = 0; twice < 2; ++twice) {
      B::embedding_backward(a.ctx(),
                            {.dtable = dtable, .dout = dout, .ids = ids, .run_ends = ends});
      a.step("embedding_backward runs");
    }
  }
}

template <class B, class X, class Y>
void run_dot16_norm(Arrays& a, const RmsnormCase& c, int64_t padding, bool finite) {
  const int64_t cols = c.heads * c.dim;
  const auto x = row_matrix<X>(a, "x", c.tokens, cols, padding, c.seed, finite);
  const auto y = row_matrix<Y>(a, "y", c.tokens, cols, padding, c.seed + 1);
  const Vec<float> rstd = a.vec("rstd", c.tokens * c.heads), weight = a.vec("weight", c.dim);
  RmsnormForward op{.y = y,
                    .rstd = rstd,
                    .x = x,
                    .weight = weight,
                    .eps = 1e-5f,
                    .heads = c.heads,
                    .numerics = NumericsClass::kDot16};
  B::rmsnorm_forward(a.ctx(), op);
  a.step("rmsnorm_forward dot16");
  if constexpr (std::is_same_v<X, float>) {
    const auto delta = row_matrix<float>(a, "delta", c.tokens, cols, padding, c.seed + 2, finite),
               h = row_matrix<float>(a, "h", c.tokens, cols, padding, c.seed + 3);
    RmsnormResidualForward residual{.h = h,
                                    .y = y,
                                    .rstd = a.vec("one_rstd", c.tokens),
                                    .x = x,
                                    .delta = delta,
                                    .weight = a.vec("wide", cols),
                                    .eps = 1e-5f,
                                    .numerics = NumericsClass::kDot16};
    B::rmsnorm_residual_forward(a.ctx(), residual);
    a.step("rmsnorm_residual_forward dot16");
    residual.h = x;
    B::rmsnorm_residual_forward(a.ctx(), residual);
    a.step("rmsnorm_residual_forward dot16");
  }
  if constexpr (std::is_same_v<X, Y>) {
    op.y = x;
    op.rstd = {};
    B::rmsnorm_forward(a.ctx(), op);
    a.step("rmsnorm_forward dot16");
  }
}

/// dx and dy are of x's type.
template <class B, class X>
void run_dot16_norm_backward(Arrays& a, const RmsnormCase& c, int64_t padding, bool finite) {
  const int64_t cols = c.heads * c.dim;
  const auto x = row_matrix<X>(a, "x", c.tokens, cols, padding, c.seed, finite),
             dy = row_matrix<X>(a, "dy", c.tokens, cols, padding, c.seed + 1, finite),
             dx = row_matrix<X>(a, "dx", c.tokens, cols, padding, c.seed + 2);
  const auto rounded = row_matrix<Bf16>(a, "rounded", c.tokens, cols, padding, c.seed + 3);
  const Vec<float> dweight = a.constant("dweight", c.dim, -0.0f);
  RmsnormBackward op{.dx = dx,
                     .dweight = dweight,
                     .dy = dy,
                     .x = x,
                     .rstd = a.vec("rstd", c.tokens * c.heads),
                     .weight = a.vec("weight", c.dim),
                     .heads = c.heads,
                     .numerics = NumericsClass::kDot16};
  const std::vector<int64_t> runs[] = {
      {}, {c.tokens}, random_run_ends(c.tokens, 1, c.seed), random_run_ends(c.tokens, 40, c.seed)};
  constexpr bool kOfF32 = std::is_same_v<X, float>;
  for (const std::vector<int64_t>& run_ends : runs) {
    op.run_ends = run_ends;
    op.dx_rounded = kOfF32 && run_ends.size() != 1 ? ActMat(rounded) : ActMat();
    for (const bool accumulate : {true, false}) {
      op.accumulate = kOfF32 && accumulate;
      op.accumulate_dweight = accumulate;
      B::rmsnorm_backward(a.ctx(), op);
      a.step("rmsnorm_backward dot16");
    }
  }
  op.dx = dy;
  B::rmsnorm_backward(a.ctx(), op);
  a.step("rmsnorm_backward dot16");
}

/// All combinations of types that a norm of the class has.
template <class B>
void run_in_bf16(Arrays& a, const RmsnormCase& c) {
  for (const int64_t padding : {0, 3}) {
    const bool finite = padding == 0;
    run_dot16_norm<B, Bf16, Bf16>(a, c, padding, finite);
    run_dot16_norm<B, float, Bf16>(a, c, padding, finite);
    run_dot16_norm<B, float, float>(a, c, padding, finite);
    run_dot16_norm_backward<B, Bf16>(a, c, padding, finite);
    run_dot16_norm_backward<B, float>(a, c, padding, finite);
  }
}

/// Vectors of fewer elements than there are lanes, of as many, and of more; packets and
/// others; more runs than a launch takes.
inline constexpr RmsnormCase kDot16Norms[] = {
    {{"lanes_without_elements", kOracle}, 7, 3, 8},
    {{"half_of_the_lanes", kOracle}, 9, 5, 128},
    {{"odd_lanes", kOracle}, 6, 2, 131},
    {{"all_lanes", kOracle}, 5, 2, 256},
    {{"more_than_lanes", kOracle}, 5, 1, 264},
    {{"odd", kOracle}, 5, 1, 777},
    {{"many_runs", kOracle}, 1100, 1, 8},
    {{"heads_and_runs", kOracle}, 90, 7, 16},
    {{"wide", kOracle}, 37, 1, 1032},
};

}  // namespace orrery::ops_check
