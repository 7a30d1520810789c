// The backward of attention in the class dot16-rz25 in plain loops, from
// docs/numerics.md ("Dot16") alone. Batches are those of the class `pairs`'s oracle,
// with lse in base 2.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/kernels/dot16_attention_oracle.h"
#include "tests/kernels/pairs_attention_backward_oracle.h"

namespace orrery::kernels::attention_test {

class Dot16BackwardOracle {
 public:
  explicit Dot16BackwardOracle(const PairsBatch& batch)
      : b_(batch), hd_(batch.shape.head_dim), g_{batch.q, batch.k, batch.k} {}

  PairsGradients run() {
    const auto segments = static_cast<int64_t>(b_.segments.size());
    for (int64_t s = 0; s < segments; ++s) {
      for (int64_t r = 0; r < b_.segments[s].rows; ++r) {
        for (int64_t head = 0; head < b_.shape.heads; ++head) query(s, r, head);
        for (int64_t kv_head = 0; kv_head < b_.shape.kv_heads; ++kv_head) key(s, r, kv_head);
      }
    }
    return g_;
  }

 private:
  struct Weight {
    float p = 0, ds = 0;
  };

  float q(int64_t row, int64_t head, int64_t d) const {
    return to_f32(b_.q[row * b_.q_row() + head * hd_ + d]);
  }
  float dout(int64_t row, int64_t head, int64_t d) const {
    return to_f32(b_.dout[row * b_.q_row() + head * hd_ + d]);
  }
  float out(int64_t row, int64_t head, int64_t d) const {
    return to_f32(b_.out[row * b_.q_row() + head * hd_ + d]);
  }
  float k(int64_t row, int64_t kv_head, int64_t d) const {
    return to_f32(b_.k[row * b_.kv_row() + kv_head * hd_ + d]);
  }
  float v(int64_t row, int64_t kv_head, int64_t d) const {
    return to_f32(b_.v[row * b_.kv_row() + kv_head * hd_ + d]);
  }

  float delta(int64_t row, int64_t head) const {
    std::array<float, 16> lanes{};
    for (int64_t d = 0; d < hd_; ++d)
      lanes[d % 16] = std::fma(dout(row, head, d), out(row, head, d), lanes[d % 16]);
    return fold(lanes);
  }

  /// Of two rows of the batch, the first of which sees the second.
  Weight weight(int64_t row, int64_t head, int64_t key_row) const {
    const int64_t kv_head = head / group_of(b_.shape);
    const float s = dot16_chain(
                        0.0f, hd_, [&](int64_t d) { return q(row, head, d); },
                        [&](int64_t d) { return k(key_row, kv_head, d); }) *
                    dot16_k2(b_.scale);
    const float dp = dot16_chain(
        0.0f, hd_, [&](int64_t d) { return dout(row, head, d); },
        [&](int64_t d) { return v(key_row, kv_head, d); });
    const float p = exp2_f32(s - b_.lse[row * b_.shape.heads + head]);
    const float grad = p * (dp - delta(row, head));
    return {to_f32(to_bf16(p)), to_f32(to_bf16(grad * b_.scale))};
  }

  void query(int64_t segment, int64_t r, int64_t head) {
    const int64_t row = b_.segments[segment].row_begin + r, kv_head = head / group_of(b_.shape);
    std::vector<int64_t> path;
    for (int64_t s = segment; s >= 0; s = b_.segments[s].parent) path.insert(path.begin(), s);
    Floats sums(static_cast<size_t>(hd_));
    for (const int64_t s : path) {
      const int64_t first = b_.segments[s].row_begin;
      const int64_t seen = s == segment ? r + 1 : b_.segments[s].rows;
      Floats ds;
      for (int64_t j = 0; j < seen; ++j) ds.push_back(weight(row, head, first + j).ds);
      for (int64_t d = 0; d < hd_; ++d) {
        sums[d] = dot16_chain(
            sums[d], seen, [&](int64_t j) { return ds[j]; },
            [&](int64_t j) { return k(first + j, kv_head, d); });
      }
    }
    for (int64_t d = 0; d < hd_; ++d) g_.dq[row * b_.q_row() + head * hd_ + d] = to_bf16(sums[d]);
  }

  bool is_on_path(int64_t ancestor, int64_t segment) const {
    while (segment >= 0 && segment != ancestor) segment = b_.segments[segment].parent;
    return segment == ancestor;
  }

  void key(int64_t segment, int64_t r, int64_t kv_head) {
    const int64_t key_row = b_.segments[segment].row_begin + r, group = group_of(b_.shape);
    Floats dk(static_cast<size_t>(hd_)), dv(static_cast<size_t>(hd_));
    for (size_t s = 0; s < b_.segments.size(); ++s) {
      const auto reader = static_cast<int64_t>(s);
      if (!is_on_path(segment, reader)) continue;
      Floats dk_chain(dk.size()), dv_chain(dv.size());
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
        add_queries(reader, head, key_row, reader == segment ? r : 0, dk_chain, dv_chain);
      for (int64_t d = 0; d < hd_; ++d) {
        dk[d] = reader == segment ? dk_chain[d] : dk[d] + dk_chain[d];
        dv[d] = reader == segment ? dv_chain[d] : dv[d] + dv_chain[d];
      }
    }
    for (int64_t d = 0; d < hd_; ++d) {
      g_.dk[key_row * b_.kv_row() + kv_head * hd_ + d] = to_bf16(dk[d]);
      g_.dv[key_row * b_.kv_row() + kv_head * hd_ + d] = to_bf16(dv[d]);
    }
  }

  /// A head's part of a key's chains: the rows of a segment, of which those from
  /// `first` on see the key.
  void add_queries(int64_t segment, int64_t head, int64_t key_row, int64_t first, Floats& dk,
                   Floats& dv) const {
    const AttentionSegment& s = b_.segments[segment];
    std::vector<Weight> weights(static_cast<size_t>(s.rows));
    for (int64_t i = first; i < s.rows; ++i) weights[i] = weight(s.row_begin + i, head, key_row);
    for (int64_t d = 0; d < hd_; ++d) {
      dk[d] = dot16_chain(
          dk[d], s.rows, [&](int64_t i) { return weights[i].ds; },
          [&](int64_t i) { return q(s.row_begin + i, head, d); });
      dv[d] = dot16_chain(
          dv[d], s.rows, [&](int64_t i) { return weights[i].p; },
          [&](int64_t i) { return dout(s.row_begin + i, head, d); });
    }
  }

  const PairsBatch& b_;
  int64_t hd_;
  PairsGradients g_;
};

}  // namespace orrery::kernels::attention_test
