// What the attention tests compare with: the arithmetic of kernels/attention.h in plain
// loops (its bits), the textbook formula in double precision (its value), and a KV pool
// filled with NaN wherever nothing was written.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "kernels/attention.h"
#include "kernels/scalar_math.h"
#include "tests/kernels/cases/attention_cases.h"

namespace orrery::kernels::attention_test {

using Floats = std::vector<float>;

inline Floats random_floats(std::mt19937& rng, int64_t count, float size = 1.0f) {
  std::uniform_real_distribution<float> uniform(-size, size);
  Floats x(static_cast<size_t>(count));
  for (float& value : x) value = uniform(rng);
  return x;
}

/// The first index at which the bits differ, or -1.
inline int64_t first_difference(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::bit_cast<uint32_t>(a[i]) != std::bit_cast<uint32_t>(b[i]))
      return static_cast<int64_t>(i);
  }
  return -1;
}

/// Query heads of a key head.
inline int64_t group_of(const AttentionShape& shape) { return shape.heads / shape.kv_heads; }

/// A sequence: q [length, heads, head_dim], k and v [length, kv_heads, head_dim].
struct Sequence {
  int64_t length = 0;
  Floats q, k, v;
};

inline Sequence random_sequence(std::mt19937& rng, const AttentionShape& shape, int64_t length,
                                float size = 1.0f) {
  const int64_t kv = length * shape.kv_heads * shape.head_dim;
  Sequence s{length, random_floats(rng, length * shape.heads * shape.head_dim, size), {}, {}};
  s.k = random_floats(rng, kv, size);
  s.v = random_floats(rng, kv);
  return s;
}

inline float fold(std::array<float, 16> lanes) {
  for (int step = 8; step >= 1; step /= 2) {
    for (int j = 0; j < step; ++j) lanes[j] += lanes[j + step];
  }
  return lanes[0];
}

/// s_j of one query and key.
inline float score(const float* q, const float* k, int64_t head_dim, float scale) {
  float sum = 0;
  for (int64_t d = 0; d < head_dim; ++d) sum = std::fma(q[d], k[d], sum);
  return sum * scale;
}

/// Row `position` of a sequence, by the arithmetic of the header. Returns lse.
inline float forward_row(const AttentionShape& shape, const Sequence& s, int64_t position,
                         int64_t head, float scale, float* out) {
  const int64_t hd = shape.head_dim;
  const float* q = s.q.data() + (position * shape.heads + head) * hd;
  const auto key = [&](const Floats& x, int64_t j) {
    return x.data() + (j * shape.kv_heads + head / group_of(shape)) * hd;
  };
  float m = -std::numeric_limits<float>::infinity(), l = 0;
  std::fill(out, out + hd, 0.0f);
  for (int64_t tile = 0; tile <= position; tile += kKvBlock) {
    const int64_t end = std::min(tile + kKvBlock, position + 1);
    Floats p;
    float next = m;
    for (int64_t j = tile; j < end; ++j) {
      p.push_back(score(q, key(s.k, j), hd, scale));
      next = std::max(next, p.back());
    }
    const float c = tile == 0 ? 0.0f : exp_f32(m - next);
    std::array<float, 16> lanes{};
    for (size_t j = 0; j < p.size(); ++j) {
      p[j] = exp_f32(p[j] - next);
      lanes[j % 16] += p[j];
    }
    l = std::fma(l, c, fold(lanes));
    for (int64_t d = 0; d < hd; ++d) {
      out[d] = out[d] * c;
      for (int64_t j = tile; j < end; ++j)
        out[d] = std::fma(p[static_cast<size_t>(j - tile)], key(s.v, j)[d], out[d]);
    }
    m = next;
  }
  for (int64_t d = 0; d < hd; ++d) out[d] = out[d] / l;
  return m + log_f32(l);
}

/// Softmax attention of one row in double precision. Returns lse.
inline double exact_row(const AttentionShape& shape, const Sequence& s, int64_t position,
                        int64_t head, double scale, double* out) {
  const int64_t hd = shape.head_dim;
  std::vector<double> p;
  for (int64_t j = 0; j <= position; ++j) {
    double sum = 0;
    for (int64_t d = 0; d < hd; ++d) {
      sum += static_cast<double>(s.q[(position * shape.heads + head) * hd + d]) *
             s.k[(j * shape.kv_heads + head / group_of(shape)) * hd + d];
    }
    p.push_back(sum * scale);
  }
  const double top = *std::max_element(p.begin(), p.end());
  double total = 0;
  for (double& x : p) total += (x = std::exp(x - top));
  for (int64_t d = 0; d < hd; ++d) {
    out[d] = 0;
    for (int64_t j = 0; j <= position; ++j) {
      out[d] += p[j] / total * s.v[(j * shape.kv_heads + head / group_of(shape)) * hd + d];
    }
  }
  return top + std::log(total);
}

/// A pool of `blocks` blocks, all NaN, handed out in a shuffled order.
class Pool {
 public:
  Pool(const AttentionShape& shape, int64_t blocks, uint32_t seed = 1, DType dtype = DType::kF32)
      : memory_({}, kv_pool_bytes({}, dtype, blocks, shape.kv_heads, shape.head_dim)) {
    std::memset(memory_.data(), 0xFF, memory_.bytes());  // NaN in f32 and in bf16
    view_ = make_kv_pool({}, dtype, blocks, shape.kv_heads, shape.head_dim, memory_.data());
    free_.resize(static_cast<size_t>(blocks));
    std::iota(free_.begin(), free_.end(), 0);
    std::shuffle(free_.begin(), free_.end(), std::mt19937(seed));
  }
  Pool(Pool&&) = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  const KvPool& view() const { return view_; }
  std::vector<int32_t> take(int64_t positions) {
    std::vector<int32_t> table;
    for (int64_t p = 0; p < positions; p += kKvBlock) {
      table.push_back(free_.back());
      free_.pop_back();
    }
    return table;
  }

 private:
  Buffer memory_;
  KvPool view_;
  std::vector<int32_t> free_;
};

/// Copies slots [0, count) of a block to another.
inline void copy_slots(const Pool& pool, int32_t from, int32_t to, int64_t count,
                       bool clear_rest = false) {
  Arena arena;
  const std::vector<BlockCopy> copies{{from, to, count}};
  kv_copy({}, {.pool = pool.view(),
               .plan = make_copy_plan({}, pool.view().blocks, copies, arena),
               .clear_rest = clear_rest});
}

/// Rows [begin, end) of sequence `sequence`.
struct Chunk {
  size_t sequence = 0;
  int64_t begin = 0, end = 0;
};

struct Result {
  Floats out, lse;  ///< [rows, heads, head_dim], [rows, heads], in the order of the chunks
};

/// Writes the chunks' keys and values, then runs them as one batch; positions before a
/// chunk must be there already.
inline Result run_chunks(const Context& ctx, const AttentionShape& shape,
                         const std::vector<Sequence>& sequences,
                         const std::vector<std::vector<int32_t>>& tables, const Pool& pool,
                         const std::vector<Chunk>& chunks, float scale) {
  const int64_t q_row = shape.heads * shape.head_dim, kv_row = shape.kv_heads * shape.head_dim;
  std::vector<KvSegment> segments;
  Floats q, k, v;
  int64_t rows = 0;
  for (const Chunk& chunk : chunks) {
    const Sequence& s = sequences[chunk.sequence];
    segments.push_back({rows, chunk.end - chunk.begin, chunk.begin, tables[chunk.sequence]});
    q.insert(q.end(), s.q.begin() + chunk.begin * q_row, s.q.begin() + chunk.end * q_row);
    k.insert(k.end(), s.k.begin() + chunk.begin * kv_row, s.k.begin() + chunk.end * kv_row);
    v.insert(v.end(), s.v.begin() + chunk.begin * kv_row, s.v.begin() + chunk.end * kv_row);
    rows += chunk.end - chunk.begin;
  }
  Arena arena;
  const AttentionPlan plan =
      make_attention_plan(ctx, shape, rows, pool.view().blocks, segments, arena);
  kv_write(ctx, {.pool = pool.view(),
                 .k = Mat<const float>(k.data(), rows, kv_row),
                 .v = Mat<const float>(v.data(), rows, kv_row),
                 .plan = plan});
  Result r{Floats(q.size()), Floats(static_cast<size_t>(rows * shape.heads))};
  attention_forward(ctx, {.out = Mat<float>(r.out.data(), rows, q_row),
                          .lse = {r.lse.data(), rows, shape.heads},
                          .q = Mat<const float>(q.data(), rows, q_row),
                          .pool = pool.view(),
                          .plan = plan,
                          .scale = scale});
  return r;
}

}  // namespace orrery::kernels::attention_test
