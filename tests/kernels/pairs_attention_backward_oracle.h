// What the backward of attention in bf16 is compared with: the arithmetic of
// kernels/attention.h and docs/numerics.md in plain loops.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/dtype.h"
#include "kernels/attention.h"
#include "kernels/cpu/pairs.h"
#include "kernels/scalar_math.h"
#include "tests/kernels/attention_oracle.h"

namespace orrery::kernels::attention_test {

using Elements = std::vector<Bf16>;

/// A batch of segments: activations by row, and the forward's out and lse.
struct PairsBatch {
  AttentionShape shape;
  std::vector<AttentionSegment> segments;
  int64_t rows = 0;
  float scale = 1.0f;
  Elements q, k, v, dout, out;
  Floats lse;

  int64_t q_row() const { return shape.heads * shape.head_dim; }
  int64_t kv_row() const { return shape.kv_heads * shape.head_dim; }
};

struct PairsGradients {
  Elements dq, dk, dv;
};

/// c and one block of pairs of a(i) * b(i); factors beyond `count` are 0.
template <class A, class B>
float add_block(float c, int64_t count, const A& a, const B& b) {
  std::array<float, 2> sums{};
  for (int64_t i = 0; i < 32; ++i) {
    const bool there = i < count;
    sums[i % 2] = cpu::flushed_fma(there ? a(i) : 0.0f, there ? b(i) : 0.0f, sums[i % 2]);
  }
  return cpu::flushed_add(c, cpu::flushed_add(sums[0], sums[1]));
}

inline float pairs_dot(const Bf16* a, const Bf16* b, int64_t head_dim) {
  float sum = 0;
  for (int64_t d = 0; d < head_dim; d += 32) {
    sum = add_block(
        sum, std::min<int64_t>(32, head_dim - d), [&](int64_t i) { return to_f32(a[d + i]); },
        [&](int64_t i) { return to_f32(b[d + i]); });
  }
  return sum;
}

/// Sums of the gradients, in f32.
class PairsBackwardOracle {
 public:
  explicit PairsBackwardOracle(const PairsBatch& batch)
      : b_(batch), dq_(batch.q.size()), dk_(batch.k.size()), dv_(batch.k.size()) {}

  PairsGradients run() {
    const int64_t group = group_of(b_.shape);
    for (size_t s = 0; s < b_.segments.size(); ++s) {
      for (int64_t kv_head = 0; kv_head < b_.shape.kv_heads; ++kv_head) {
        for (int64_t f = 0; f < b_.segments[s].rows * group; f += 32)
          add_queries(static_cast<int64_t>(s), kv_head, f);
      }
    }
    return {rounded(dq_), rounded(dk_), rounded(dv_)};
  }

 private:
  static Elements rounded(const Floats& sums) {
    Elements to;
    for (const float x : sums) to.push_back(to_bf16(x));
    return to;
  }

  /// Up to 32 queries from f on against the tiles of their path.
  void add_queries(int64_t segment, int64_t kv_head, int64_t f) {
    const int64_t group = group_of(b_.shape);
    const int64_t count = std::min<int64_t>(32, b_.segments[segment].rows * group - f);
    std::vector<int64_t> path;
    for (int64_t s = segment; s >= 0; s = b_.segments[s].parent) path.insert(path.begin(), s);
    for (const int64_t source : path) {
      for (int64_t key = 0; key < b_.segments[source].rows; key += 32) {
        if (source == segment && key > (f + count - 1) / group) break;
        add_tile(segment, kv_head, f, count, source, key);
      }
    }
  }

  void add_tile(int64_t segment, int64_t kv_head, int64_t f, int64_t count, int64_t source,
                int64_t key) {
    const int64_t hd = b_.shape.head_dim, group = group_of(b_.shape);
    const AttentionSegment& from = b_.segments[source];
    const int64_t keys = std::min<int64_t>(32, from.rows - key);
    float p[32][32] = {}, ds[32][32] = {};
    std::array<int64_t, 32> q_at{}, k_at{};
    for (int64_t j = 0; j < keys; ++j)
      k_at[j] = (from.row_begin + key + j) * b_.kv_row() + kv_head * hd;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = b_.segments[segment].row_begin + (f + i) / group;
      const int64_t head = kv_head * group + (f + i) % group;
      q_at[i] = row * b_.q_row() + head * hd;
      const float lse = b_.lse[row * b_.shape.heads + head], delta = delta_of(q_at[i]);
      for (int64_t j = 0; j < keys; ++j) {
        if (source == segment && key + j > (f + i) / group) break;
        const float s = pairs_dot(&b_.q[q_at[i]], &b_.k[k_at[j]], hd) * b_.scale;
        const float dp = pairs_dot(&b_.dout[q_at[i]], &b_.v[k_at[j]], hd);
        const float weight = exp_f32(s - lse);
        const float grad = weight * (dp - delta) * b_.scale;
        p[i][j] = to_f32(to_bf16(weight));
        ds[i][j] = to_f32(to_bf16(grad));
      }
    }
    for (int64_t d = 0; d < hd; ++d) {
      for (int64_t i = 0; i < count; ++i) {
        float& sum = dq_[q_at[i] + d];
        sum = add_block(
            sum, keys, [&](int64_t j) { return ds[i][j]; },
            [&](int64_t j) { return to_f32(b_.k[k_at[j] + d]); });
      }
      for (int64_t j = 0; j < keys; ++j) {
        const int64_t at = k_at[j] + d;
        dk_[at] = add_block(
            dk_[at], count, [&](int64_t i) { return ds[i][j]; },
            [&](int64_t i) { return to_f32(b_.q[q_at[i] + d]); });
        dv_[at] = add_block(
            dv_[at], count, [&](int64_t i) { return p[i][j]; },
            [&](int64_t i) { return to_f32(b_.dout[q_at[i] + d]); });
      }
    }
  }

  float delta_of(int64_t at) const {
    std::array<float, 16> lanes{};
    for (int64_t d = 0; d < b_.shape.head_dim; ++d)
      lanes[d % 16] = std::fma(to_f32(b_.dout[at + d]), to_f32(b_.out[at + d]), lanes[d % 16]);
    return fold(lanes);
  }

  const PairsBatch& b_;
  Floats dq_, dk_, dv_;
};

}  // namespace orrery::kernels::attention_test
