// Attention in the class dot16-rz25 in plain loops, from docs/numerics.md ("Dot16")
// alone. Sequences (attention_oracle.h) hold floats that are bf16 values.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <vector>

#include "core/dtype.h"
#include "kernels/attention.h"
#include "kernels/dot16.h"
#include "kernels/scalar_math.h"
#include "tests/kernels/attention_oracle.h"

namespace orrery::kernels::attention_test {

/// The dot16 chain from c over a(i) b(i), i < count.
template <class A, class B>
float dot16_chain(float c, int64_t count, const A& a, const B& b) {
  for (int64_t from = 0; from < count; from += 16) {
    uint16_t x[16] = {}, y[16] = {};
    for (int64_t i = 0; i < std::min<int64_t>(16, count - from); ++i) {
      x[i] = to_bf16(a(from + i)).bits;
      y[i] = to_bf16(b(from + i)).bits;
    }
    c = std::bit_cast<float>(dot_step(x, y, std::bit_cast<uint32_t>(c), kDot16Rz25));
  }
  return c;
}
inline float dot16_dot(const float* a, const float* b, int64_t count) {
  return dot16_chain(
      0.0f, count, [&](int64_t i) { return a[i]; }, [&](int64_t i) { return b[i]; });
}

inline float dot16_k2(float scale) {
  return static_cast<float>(static_cast<double>(scale) * std::numbers::log2e);
}

/// What a query knows of the keys so far.
struct Dot16OracleState {
  float m = -std::numeric_limits<float>::infinity();
  std::array<float, 4> l{};
  Floats o;
};

/// Of one query of a sequence.
class Dot16ForwardOracle {
 public:
  /// `written`: how many of the sequence's positions are in the pool.
  Dot16ForwardOracle(const AttentionShape& shape, const Sequence& s, int64_t position, int64_t head,
                     int64_t written)
      : shape_(shape), s_(s), position_(position), head_(head), written_(written) {}

  /// Returns lse.
  float run(float scale, float* out) {
    Dot16OracleState all;
    for (int64_t split = 0; split <= position_; split += 1024) {
      const Dot16OracleState state = split_state(split, dot16_k2(scale));
      all = split == 0 ? state : merged(all, state);
    }
    const float l = (all.l[0] + all.l[1]) + (all.l[2] + all.l[3]);
    for (int64_t d = 0; d < shape_.head_dim; ++d) {
      const float quotient = all.o[static_cast<size_t>(d)] / l;
      out[d] = to_f32(to_bf16(quotient + 0.0f));
    }
    const float above = log_f32(l) * 0x1.715476p+0f;
    return all.m + above;
  }

 private:
  const float* row(const Floats& x, int64_t j) const {
    return x.data() + (j * shape_.kv_heads + head_ / group_of(shape_)) * shape_.head_dim;
  }

  Dot16OracleState split_state(int64_t split, float k2) const {
    Dot16OracleState state;
    state.o.assign(static_cast<size_t>(shape_.head_dim), 0.0f);
    for (int64_t tile = split; tile < split + 1024 && tile <= position_; tile += 128)
      add_tile(tile, tile == split, k2, state);
    return state;
  }

  void add_tile(int64_t tile, bool first, float k2, Dot16OracleState& state) const {
    const int64_t seen = std::min<int64_t>(128, position_ + 1 - tile);
    const float* q = s_.q.data() + (position_ * shape_.heads + head_) * shape_.head_dim;
    std::array<float, 128> p{};
    float next = state.m;
    for (int64_t j = 0; j < seen; ++j) {
      p[j] = dot16_dot(q, row(s_.k, tile + j), shape_.head_dim) * k2;
      if (p[j] > next) next = p[j];
    }
    const float c = first ? 0.0f : exp2_f32(state.m - next);
    for (int64_t j = 0; j < seen; ++j) p[j] = exp2_f32(p[j] - next);
    for (size_t l = 0; l < 4; ++l) {
      state.l[l] = state.l[l] * c;
      for (size_t i = 0; i < 16; ++i) {
        const float two = p[8 * i + 2 * l] + p[8 * i + 2 * l + 1];
        state.l[l] = state.l[l] + two;
      }
    }
    for (int64_t d = 0; d < shape_.head_dim; ++d) {
      float& o = state.o[static_cast<size_t>(d)];
      o = dot16_chain(
          o * c, 128, [&](int64_t j) { return p[j]; },
          [&](int64_t j) { return tile + j < written_ ? row(s_.v, tile + j)[d] : 0.0f; });
    }
    state.m = next;
  }

  static Dot16OracleState merged(const Dot16OracleState& a, const Dot16OracleState& b) {
    Dot16OracleState state;
    state.m = a.m < b.m ? b.m : a.m;
    const float c_a = exp2_f32(a.m - state.m), c_b = exp2_f32(b.m - state.m);
    const auto sum = [&](float x, float y) {
      const float of_a = x * c_a, of_b = y * c_b;
      return of_a + of_b;
    };
    for (size_t l = 0; l < 4; ++l) state.l[l] = sum(a.l[l], b.l[l]);
    for (size_t d = 0; d < a.o.size(); ++d) state.o.push_back(sum(a.o[d], b.o[d]));
    return state;
  }

  const AttentionShape& shape_;
  const Sequence& s_;
  int64_t position_, head_, written_;
};

/// The oracle's answers for the chunks, each of which is in the pool to its end.
inline Result dot16_expected(const AttentionShape& shape, const std::vector<Sequence>& sequences,
                             const std::vector<Chunk>& chunks, float scale) {
  Result r;
  Floats out(static_cast<size_t>(shape.head_dim));
  for (const Chunk& chunk : chunks) {
    for (int64_t row = chunk.begin; row < chunk.end; ++row) {
      for (int64_t head = 0; head < shape.heads; ++head) {
        Dot16ForwardOracle oracle(shape, sequences[chunk.sequence], row, head, chunk.end);
        r.lse.push_back(oracle.run(scale, out.data()));
        r.out.insert(r.out.end(), out.begin(), out.end());
      }
    }
  }
  return r;
}

}  // namespace orrery::kernels::attention_test
