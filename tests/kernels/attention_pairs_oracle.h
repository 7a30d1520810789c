// The forward of attention in bf16 in plain loops: kernels/attention.h with the blocks
// and rounding points of docs/numerics.md, "bf16". Sequences (attention_oracle.h) hold
// floats that are bf16 values.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/dtype.h"
#include "kernels/cpu/pairs.h"
#include "tests/kernels/attention_oracle.h"

namespace orrery::kernels::attention_test {

inline void round_to_bf16(Floats& values) {
  for (float& x : values) x = to_f32(to_bf16(x));
}
inline void round_to_bf16(Sequence& s) {
  for (Floats Sequence::*x : {&Sequence::q, &Sequence::k, &Sequence::v}) round_to_bf16(s.*x);
}
inline Sequence random_pairs_sequence(std::mt19937& rng, const AttentionShape& shape,
                                      int64_t length, float size = 1.0f) {
  Sequence s = random_sequence(rng, shape, length, size);
  round_to_bf16(s);
  return s;
}

inline std::vector<Bf16> as_bf16(const Floats& values) {
  std::vector<Bf16> x;
  for (const float value : values) x.push_back(to_bf16(value));
  return x;
}
inline Floats as_floats(const std::vector<Bf16>& values) {
  Floats x;
  for (const Bf16 value : values) x.push_back(to_f32(value));
  return x;
}

/// c plus the block of products a(k) b(k), k < 32.
template <class A, class B>
float add_block(float c, const A& a, const B& b) {
  float even = 0, odd = 0;
  for (int64_t k = 0; k < 32; k += 2) {
    even = cpu::flushed_fma(a(k), b(k), even);
    odd = cpu::flushed_fma(a(k + 1), b(k + 1), odd);
  }
  return cpu::flushed_add(c, cpu::flushed_add(even, odd));
}

/// The sum in pairs of a [count] times b [count], from 0.
inline float pairs_sum(const float* a, const float* b, int64_t count) {
  float sum = 0;
  for (int64_t from = 0; from < count; from += 32) {
    const auto padded = [&](const float* x) {
      return [=](int64_t k) { return from + k < count ? x[from + k] : 0.0f; };
    };
    sum = add_block(sum, padded(a), padded(b));
  }
  return sum;
}

/// As forward_row, of a bf16 pool.
inline float pairs_forward_row(const AttentionShape& shape, const Sequence& s, int64_t position,
                               int64_t head, float scale, float* out) {
  const int64_t hd = shape.head_dim;
  const float* q = s.q.data() + (position * shape.heads + head) * hd;
  const auto row = [&](const Floats& x, int64_t j) {
    return x.data() + (j * shape.kv_heads + head / group_of(shape)) * hd;
  };
  float m = -std::numeric_limits<float>::infinity(), l = 0;
  std::fill(out, out + hd, 0.0f);
  for (int64_t tile = 0; tile <= position; tile += kKvBlock) {
    const int64_t seen = std::min(kKvBlock, position + 1 - tile);
    Floats p;
    float next = m;
    for (int64_t j = 0; j < seen; ++j) {
      p.push_back(pairs_sum(q, row(s.k, tile + j), hd) * scale);
      next = std::max(next, p.back());
    }
    const float c = tile == 0 ? 0.0f : exp_f32(m - next);
    std::array<float, 16> lanes{};
    for (int64_t j = 0; j < seen; ++j) {
      float& weight = p[static_cast<size_t>(j)];
      weight = exp_f32(weight - next);
      lanes[static_cast<size_t>(j % 16)] += weight;
    }
    l = std::fma(l, c, fold(lanes));
    round_to_bf16(p);
    for (int64_t d = 0; d < hd; ++d) {
      out[d] = add_block(
          cpu::flushed_mul(out[d], c),
          [&](int64_t j) { return j < seen ? p[static_cast<size_t>(j)] : 0.0f; },
          [&](int64_t j) { return j < seen ? row(s.v, tile + j)[d] : 0.0f; });
    }
    m = next;
  }
  for (int64_t d = 0; d < hd; ++d) out[d] = to_f32(to_bf16(out[d] / l + 0.0f));
  return m + log_f32(l);
}

/// As run_chunks, with a bf16 pool. The rows of q, k and v, and of out, lie side by
/// side in wider ones; what lies between must stay.
inline Result run_pairs_chunks(const Context& ctx, const AttentionShape& shape,
                               const std::vector<Sequence>& sequences,
                               const std::vector<std::vector<int32_t>>& tables, const Pool& pool,
                               const std::vector<Chunk>& chunks, float scale) {
  const int64_t q_row = shape.heads * shape.head_dim, kv_row = shape.kv_heads * shape.head_dim;
  constexpr int64_t kPadding = 3;
  const int64_t in_stride = q_row + 2 * kv_row + kPadding, out_stride = q_row + kPadding;
  std::vector<KvSegment> segments;
  Floats in;
  int64_t rows = 0;
  for (const Chunk& chunk : chunks) {
    const Sequence& s = sequences[chunk.sequence];
    segments.push_back({rows, chunk.end - chunk.begin, chunk.begin, tables[chunk.sequence]});
    for (int64_t t = chunk.begin; t < chunk.end; ++t, ++rows) {
      in.insert(in.end(), s.q.begin() + t * q_row, s.q.begin() + (t + 1) * q_row);
      in.insert(in.end(), s.k.begin() + t * kv_row, s.k.begin() + (t + 1) * kv_row);
      in.insert(in.end(), s.v.begin() + t * kv_row, s.v.begin() + (t + 1) * kv_row);
      in.insert(in.end(), kPadding, std::numeric_limits<float>::quiet_NaN());
    }
  }
  std::vector<Bf16> qkv = as_bf16(in);
  constexpr Bf16 kUntouched{0x4321};
  std::vector<Bf16> out(static_cast<size_t>(rows * out_stride), kUntouched);
  const auto part = [&](int64_t column, int64_t columns) {
    return Mat<const Bf16>(rows == 0 ? nullptr : qkv.data() + column, rows, columns, in_stride);
  };
  Arena arena(ctx.device);
  const AttentionPlan plan =
      make_attention_plan(ctx, shape, rows, pool.view().blocks, segments, arena);
  kv_write(ctx, {.pool = pool.view(),
                 .k = part(q_row, kv_row),
                 .v = part(q_row + kv_row, kv_row),
                 .plan = plan});
  Result r{{}, Floats(static_cast<size_t>(rows * shape.heads))};
  attention_forward(ctx, {.out = Mat<Bf16>(out.data(), rows, q_row, out_stride),
                          .lse = {r.lse.data(), rows, shape.heads},
                          .q = part(0, q_row),
                          .pool = pool.view(),
                          .plan = plan,
                          .scale = scale});
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t x = 0; x < out_stride; ++x) {
      const Bf16 value = out[static_cast<size_t>(t * out_stride + x)];
      if (x < q_row) {
        r.out.push_back(to_f32(value));
      } else if (value.bits != kUntouched.bits) {
        fail("row {} was written beyond its end", t);
      }
    }
  }
  return r;
}

/// The oracle's answers for the chunks.
inline Result expected_chunks(const AttentionShape& shape, const std::vector<Sequence>& sequences,
                              const std::vector<Chunk>& chunks, float scale) {
  Result r;
  Floats out(static_cast<size_t>(shape.head_dim));
  for (const Chunk& chunk : chunks) {
    for (int64_t row = chunk.begin; row < chunk.end; ++row) {
      for (int64_t head = 0; head < shape.heads; ++head) {
        r.lse.push_back(
            pairs_forward_row(shape, sequences[chunk.sequence], row, head, scale, out.data()));
        r.out.insert(r.out.end(), out.begin(), out.end());
      }
    }
  }
  return r;
}

}  // namespace orrery::kernels::attention_test
