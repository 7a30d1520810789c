// Rows of products in bf16: on the CPU as the device cpu-dot16 computes them
// (docs/numerics.md, "Dot16"), on the GPU by its tensor cores.
#pragma once

#include "tests/gpu/operands.h"
#include "tests/gpu/ops/cases.h"

namespace orrery::ops_check {

template <class B>
PackedWeight pack_bf16(Arrays& a, Mat<const float> weight) {
  return B::pack_weight(
      a.ctx(), {.weight = weight,
                .dtype = DType::kBF16,
                .memory = a.bytes(B::packed_bytes(weight.rows, weight.cols, DType::kBF16))});
}

template <class B>
void run_in_bf16(Arrays& a, const MatmulCase& c) {
  const PackedWeight weight = pack_bf16<B>(a, a.mat("weight", c.n, c.k, 1.0f, c.padding));
  const auto bf16 = [&](const char* name, int64_t rows, int64_t cols) {
    return a.bf16_mat(name, rows, cols, c.padding);
  };
  const auto f32 = [&](const char* name, int64_t rows, int64_t cols) {
    return a.mat(name, rows, cols, 1.0f, c.padding);
  };
  const Mat<Bf16> x = bf16("x", c.m, c.k), dy = bf16("dy", c.m, c.n);
  const Mat<float> dw = f32("dw", c.n, c.k);
  const Vec<float> bias = c.bias ? a.vec("bias", c.n) : Vec<float>();
  const auto both = [&](ActMat y, ActMat dx, bool accumulate) {
    B::matmul_forward(a.ctx(),
                      {.y = y, .x = x, .weight = weight, .bias = bias, .accumulate = accumulate});
    a.step("matmul_forward bf16");
    B::matmul_backward_input(a.ctx(),
                             {.dx = dx, .dy = dy, .weight = weight, .accumulate = accumulate});
    a.step("matmul_backward_input bf16");
  };
  both(f32("y", c.m, c.n), f32("dx", c.m, c.k), c.accumulate);
  if (!c.accumulate) both(bf16("y", c.m, c.n), bf16("dx", c.m, c.k), false);
  const std::vector<int64_t> ends(c.run_ends.begin(), c.run_ends.end());
  for (const bool accumulate : {true, false}) {
    B::matmul_backward_weight(
        a.ctx(), {.dw = dw, .dy = dy, .x = x, .run_ends = ends, .accumulate = accumulate});
    a.step("matmul_backward_weight bf16");
  }
}

template <class B>
void run_in_bf16(Arrays& a, const PackCase& c) {
  const Mat<float> w = a.mat("weight", c.n, c.k);
  const PackedWeight weight = pack_bf16<B>(a, w);
  B::matmul_forward(a.ctx(),
                    {.y = a.mat("y", 2, c.n), .x = a.bf16_mat("x", 2, c.k), .weight = weight});
  a.step("pack_weight bf16");
}

/// Products whose only large side is their result, so that each of the three is worth
/// large tiles: [m, n] over an inner dimension of k.
struct TileProduct : Case {
  int64_t m, n, k;
};
inline constexpr TileProduct kTileProducts[] = {
    {{"large_tiles", kOracle}, 1030, 1592, 40},
    {{"large_tiles_ragged", kOracle}, 1033, 1600, 72},
};

template <class B>
void run_in_bf16(Arrays& a, const TileProduct& c) {
  const Mat<float> to = a.mat("to", c.m, c.n);
  {
    const PackedWeight weight = pack_bf16<B>(a, a.mat("weight", c.n, c.k));
    B::matmul_forward(a.ctx(), {.y = to, .x = a.bf16_mat("x", c.m, c.k), .weight = weight});
    a.step("matmul_forward bf16");
  }
  {
    const PackedWeight weight = pack_bf16<B>(a, a.mat("weight", c.k, c.n));
    const Mat<Bf16> dy = a.bf16_mat("dy", c.m, c.k);
    B::matmul_backward_input(a.ctx(), {.dx = to, .dy = dy, .weight = weight, .accumulate = true});
    a.step("matmul_backward_input bf16");
  }
  // Rows beyond the last column, where operands are to be aligned.
  const int64_t padding = (8 - c.m % 8) % 8;
  const Mat<Bf16> dy = a.bf16_mat("dy", c.k, c.m, padding), x = a.bf16_mat("x", c.k, c.n);
  const std::vector<int64_t> ends{1, c.k / 2 + 3, c.k};
  B::matmul_backward_weight(a.ctx(), {.dw = to, .dy = dy, .x = x, .run_ends = ends});
  a.step("matmul_backward_weight bf16");
}

/// Operands of every kind that a tensor core may treat in its own way, row by row:
/// zeros, subnormal and huge numbers, sums that cancel, infinities and NaN. Runs of 0
/// to `longest_run` rows, in two rows of the table more of them than a launch takes.
struct EdgeBf16Product : Case {
  int64_t m, n, k;
  int64_t longest_run;
};
inline constexpr EdgeBf16Product kEdgeBf16Products[] = {
    {{"edges", kOracle}, 37, 53, 21, 20},      {{"edges_aligned", kOracle}, 40, 56, 48, 17},
    {{"edges_m13", kOracle}, 13, 96, 176, 40}, {{"edges_large", kOracle}, 260, 304, 45, 100},
    {{"many_runs", kOracle}, 1503, 24, 16, 3}, {{"many_runs_unaligned", kOracle}, 1503, 21, 17, 4},
};

inline std::vector<Bf16> edge_bf16(uint64_t seed, int64_t rows, int64_t cols, bool by_columns) {
  std::vector<Bf16> values;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t row = by_columns ? c : r, inner = by_columns ? r : c;
      values.push_back({selftest::operand(seed, static_cast<int>(row), static_cast<int>(inner),
                                          /*is_b=*/seed % 2 == 0)});
    }
  }
  return values;
}

template <class B>
void run_in_bf16(Arrays& a, const EdgeBf16Product& c) {
  const auto bf16 = [&](const char* name, uint64_t seed, int64_t rows, int64_t cols,
                        bool by_columns) {
    return Mat<Bf16>(a.of_bf16(name, edge_bf16(c.seed * 100 + seed, rows, cols, by_columns)), rows,
                     cols);
  };
  const auto start = [&](const char* name, uint64_t seed, int64_t rows, int64_t cols) {
    return Mat<float>(a.of(name, edge_values(rows * cols, seed)).data, rows, cols);
  };
  // In each of the three products rows of one kind meet columns of one kind.
  for (const bool by_columns : {false, true}) {
    std::vector<float> w;
    for (const Bf16 value : edge_bf16(c.seed * 100 + 2, c.n, c.k, by_columns))
      w.push_back(to_f32(value));
    const PackedWeight weight = pack_bf16<B>(a, Mat<float>(a.of("weight", w).data, c.n, c.k));
    const Mat<Bf16> x = bf16("x", by_columns ? 4 : 1, c.m, c.k, by_columns),
                    dy = bf16("dy", 3, c.m, c.n, by_columns);
    const Mat<float> y = start("y", 5, c.m, c.n), dx = start("dx", 6, c.m, c.k),
                     dw = start("dw", 7, c.n, c.k);
    B::matmul_forward(a.ctx(), {.y = y, .x = x, .weight = weight, .accumulate = true});
    a.step("matmul_forward bf16");
    B::matmul_backward_input(a.ctx(), {.dx = dx, .dy = dy, .weight = weight, .accumulate = true});
    a.step("matmul_backward_input bf16");
    B::matmul_forward(a.ctx(), {.y = bf16("y", 8, c.m, c.n, false), .x = x, .weight = weight});
    a.step("matmul_forward bf16");
    std::vector<int64_t> ends;
    Philox rng(c.seed, RngPurpose::kTest);
    for (int64_t end = 0; end < c.m;) {
      end = std::min<int64_t>(c.m, end + rng.below(static_cast<uint32_t>(c.longest_run + 1)));
      ends.push_back(end);
    }
    for (const bool accumulate : {true, false}) {
      B::matmul_backward_weight(
          a.ctx(), {.dw = dw, .dy = dy, .x = x, .run_ends = ends, .accumulate = accumulate});
      a.step("matmul_backward_weight bf16");
    }
  }
}

}  // namespace orrery::ops_check
