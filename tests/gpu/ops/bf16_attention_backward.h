// Attention's backward in bf16, as bf16_attention.h has its forward. All operands are
// finite: of which gradients another one may make NaN is left to the kernel.
#pragma once

#include <numbers>

#include "tests/gpu/ops/bf16_attention.h"

namespace orrery::ops_check {

/// Segments that end within, at and after tiles of 32 and 64 rows and groups of 16;
/// children of children; heads of every number of columns.
inline constexpr AttentionTreeCase kBf16AttentionTreeCases[] = {
    {{"one_column", kOracle}, {2, 1, 1}, {{40}, {3, 0}}},
    {{"tiles", kOracle}, {1, 1, 16}, {{64}, {65, 0}, {128, 1}, {63, 1}, {96, 0}}},
    {{"groups_of_16", kOracle}, {2, 1, 16}, {{17}, {16, 0}, {15, 1}, {33, 2}, {31, 0}}},
    {{"long", kOracle}, {1, 1, 8}, {{530}, {130, 0}}},
    {{"groups_of_7_wide", kOracle}, {14, 2, 80}, {{70}, {13, 0}, {25, 0}, {5, 2}}},
    {{"head_dim_48", kOracle}, {3, 1, 48}, {{33}, {40, 0}, {70, 0}}},
    {{"head_dim_130", kOracle}, {2, 1, 130}, {{70}, {11, 0}}},
    {{"head_dim_256", kOracle}, {2, 2, 256}, {{35}, {33, 0}}},
    {{"many_children", kOracle},
     {2, 1, 24},
     {{20}, {5, 0}, {7, 0}, {70, 0}, {9, 3}, {4}, {6, 5}, {3, 0}, {2, 7}}},
};

/// The lse, base 2, of a tree's queries, about as a forward gives it.
inline std::vector<float> lse_of_tree(const AttentionShape& shape,
                                      const std::vector<AttentionSegment>& segments, int64_t rows,
                                      const std::vector<Bf16>& q, const std::vector<Bf16>& k,
                                      float scale) {
  std::vector<float> lse(static_cast<size_t>(rows * shape.heads));
  const auto score = [&](int64_t row, int64_t head, int64_t key) {
    const int64_t kv_head = head / (shape.heads / shape.kv_heads);
    const Bf16* const a = &q[static_cast<size_t>((row * shape.heads + head) * shape.head_dim)];
    const Bf16* const b =
        &k[static_cast<size_t>((key * shape.kv_heads + kv_head) * shape.head_dim)];
    double sum = 0;
    for (int64_t d = 0; d < shape.head_dim; ++d) sum += double{to_f32(a[d])} * to_f32(b[d]);
    return sum * scale * std::numbers::log2e;
  };
  for (const AttentionSegment& own : segments) {
    for (int64_t row = own.row_begin; row < own.row_begin + own.rows; ++row) {
      for (int64_t head = 0; head < shape.heads; ++head) {
        std::vector<double> scores;
        for (int64_t key = own.row_begin; key <= row; ++key)
          scores.push_back(score(row, head, key));
        for (int32_t up = own.parent; up >= 0; up = segments[static_cast<size_t>(up)].parent) {
          const AttentionSegment& s = segments[static_cast<size_t>(up)];
          for (int64_t key = s.row_begin; key < s.row_begin + s.rows; ++key)
            scores.push_back(score(row, head, key));
        }
        const double top = *std::max_element(scores.begin(), scores.end());
        double sum = 0;
        for (const double s : scores) sum += std::exp2(s - top);
        lse[static_cast<size_t>(row * shape.heads + head)] =
            static_cast<float>(top + std::log2(sum));
      }
    }
  }
  return lse;
}

template <class B>
void run_in_bf16(Arrays& a, const AttentionTreeCase& c) {
  Arena arena;
  std::vector<AttentionSegment> segments;
  const int64_t rows = tree_segments(c, segments);
  const int64_t q_row = c.shape.heads * c.shape.head_dim;
  const int64_t kv_row = c.shape.kv_heads * c.shape.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(c.shape.head_dim));
  Context cpu = a.ctx();
  cpu.device = {};
  AttentionBackwardPlan plan = make_attention_backward_plan(cpu, c.shape, rows, segments, arena);
  if (a.gpu()) {
    plan.segments = a.upload(plan.segments.data, plan.segments.size);
    plan.cpu = nullptr;
  }
  const auto backward = [&](const std::vector<Bf16>& dout, const std::vector<Bf16>& q,
                            const std::vector<Bf16>& k, const std::vector<Bf16>& v,
                            int64_t padding) {
    const auto mat = [&](const char* name, const std::vector<Bf16>& values, int64_t cols) {
      const int64_t stride = cols + padding;
      return Mat<Bf16>(a.of_bf16(name, padded_rows(values, rows, cols, padding)), rows, cols,
                       stride);
    };
    const auto normal = [&](const char* name, uint64_t seed, int64_t cols) {
      return mat(name, normal_bf16(c.seed * 10 + seed, rows * cols, 1.0f), cols);
    };
    const std::vector<float> lse = lse_of_tree(c.shape, segments, rows, q, k, scale);
    B::attention_backward(a.ctx(), {.dq = normal("dq", 5, q_row),
                                    .dk = normal("dk", 6, kv_row),
                                    .dv = normal("dv", 7, kv_row),
                                    .dout = mat("dout", dout, q_row),
                                    .out = normal("out", 8, q_row),
                                    .q = mat("q", q, q_row),
                                    .k = mat("k", k, kv_row),
                                    .v = mat("v", v, kv_row),
                                    .lse = Mat<float>(a.of("lse", lse).data, rows, c.shape.heads),
                                    .plan = plan,
                                    .scale = scale});
    a.step("attention_backward bf16");
  };
  for (const int64_t padding : {8, 3}) {
    const auto seed = c.seed * 10 + static_cast<uint64_t>(padding) * 1000;
    backward(normal_bf16(seed + 1, rows * q_row, 1.0f), normal_bf16(seed + 2, rows * q_row, c.size),
             normal_bf16(seed + 3, rows * kv_row, c.size),
             normal_bf16(seed + 4, rows * kv_row, 1.0f), padding);
  }
  // Zeros of both signs and subnormal numbers.
  const auto edges = [&](uint64_t seed, int64_t cols) {
    std::vector<Bf16> values;
    Philox rng(c.seed * 10 + seed, RngPurpose::kTest);
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float x = rng.normal();
      const float scales[] = {-0.0f, 0.0f, 1e-39f, 1e-20f, 1.0f, 1.0f};
      values.push_back(to_bf16(x * scales[rng.below(6)]));
    }
    return values;
  };
  backward(edges(11, q_row), edges(12, q_row), edges(13, kv_row), edges(14, kv_row), 0);
}

}  // namespace orrery::ops_check
