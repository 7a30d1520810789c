// Causal attention with grouped queries. One algorithm serves prefill, chunked prefill,
// decode and the training forward, so a query's output depends on the tokens before it
// and on nothing else (docs/numerics.md).
//
// Keys are cut into tiles of kKvBlock by absolute position. A query visits its tiles in
// rising order and keeps the running maximum m, the running sum l and the running
// output o of online softmax (Milakov and Gimelshein 2018). For a tile with keys j:
//   s_j = scale * (chain over d of q_d k_jd)     scale: one rounded product at the end
//   m'  = max(m, max_j s_j)
//   c   = exp(m - m')                            0 at the first tile
//   p_j = exp(s_j - m')
//   l   = fma(l, c, lanes sum of p_j)            lane: position mod 16
//   o_d = o_d * c, then o_d = fma(p_j, v_jd, o_d) for the tile's keys in order
// and at the end out = o / l, lse = m + log(l). A key after the query's position counts
// as p_j = 0, and its v is not read.
//
// Keys and values live in blocks of kKvBlock positions: one layer's pool is
//   k [block][kv_head][head_dim][kKvBlock]   (transposed: lanes are keys)
//   v [block][kv_head][kKvBlock][head_dim]
// A sequence's block table names the block of each tile: position p is in blocks[p /
// kKvBlock], slot p % kKvBlock.
#pragma once

#include <cstdint>

#include "core/buffer.h"
#include "core/context.h"
#include "core/span.h"
#include "core/tensor.h"

namespace orrery::kernels {

inline constexpr int64_t kKvBlock = 32;

/// One layer's pool of key and value blocks. A view.
struct KvPool {
  float* k = nullptr;
  float* v = nullptr;
  int64_t blocks = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  /// Elements of one block of k; as many as of v.
  int64_t block_elements() const { return kv_heads * head_dim * kKvBlock; }
};

/// Consecutive positions of one sequence in a batch: rows [row_begin, row_begin + rows)
/// are its positions [position, position + rows). `blocks` is the sequence's block
/// table, which covers at least those positions.
struct KvSegment {
  int64_t row_begin = 0;
  int64_t rows = 0;
  int64_t position = 0;
  Span<const int32_t> blocks;
};

/// Writes the rows' keys and values [t, kv_heads, head_dim] into the pool. Throws Error
/// for a segment outside the batch, a table that is too short and a block outside the
/// pool.
void kv_write(const Context& ctx, const KvPool& pool, Heads<const float> k, Heads<const float> v,
              Span<const KvSegment> segments);

/// Copies slots [0, count) of block `from` to block `to`. A sequence gets its own copy
/// of a shared, partly filled block this way.
void kv_copy(const Context& ctx, const KvPool& pool, int32_t from, int32_t to, int64_t count);

/// out, q: [t, heads, head_dim]; lse: [t, heads] or empty. heads is a multiple of
/// pool.kv_heads, and query head h reads kv head h / (heads / kv_heads). Each row sees
/// positions 0 .. its own, all of which must have been written.
void attention_forward(const Context& ctx, Heads<float> out, Mat<float> lse, Heads<const float> q,
                       const KvPool& pool, Span<const KvSegment> segments, float scale);

/// A run of tokens with at most one parent. Its first token stands at `position`; it
/// sees all tokens of its ancestors, then its own. A parent precedes its children in
/// the list, and position == parent.position + parent.rows (0 without a parent).
struct AttentionSegment {
  int64_t row_begin = 0;
  int64_t rows = 0;
  int64_t position = 0;
  int32_t parent = -1;
};

/// Gradients of attention over trees of segments.
///   q, out, dout, dq: [t, heads, head_dim]
///   k, v, dk, dv:     [t, kv_heads, head_dim]
///   lse:              [t, heads], of the forward
/// dq, dk, dv are overwritten for the segments' rows and left as they are for others.
/// For a query (a row and head) and each key j that it sees, with s_j as in the
/// forward:
///   delta = lanes sum of dout_d * out_d, each lane a chain over d
///   p_j   = exp(s_j - lse)
///   dp_j  = chain over d of dout_d v_jd
///   ds_j  = (p_j * (dp_j - delta)) * scale
///   dq_d  = fma(ds_j, k_jd, dq_d), a chain over keys by position, from 0
///   dk_jd = fma(ds_j, q_d, dk_jd), a chain over queries, from 0
///   dv_jd = fma(p_j, dout_d, dv_jd), a chain over queries, from 0
/// A key's queries come in the order of the list: its own segment's rows, then those of
/// every descendant segment, in list order; rows rising, and heads of the group rising
/// within a row. So the result depends on its tree alone, not on other trees in the
/// batch, on where rows stand, on threads or vector width.
///
/// `arena` holds temporaries, released on return: about 5 times k's size for the
/// largest tree, once per thread; with fewer trees than threads, for all trees. Throws
/// Error for shapes or segments that do not fit.
void attention_backward(const Context& ctx, Heads<float> dq, Heads<float> dk, Heads<float> dv,
                        Heads<const float> dout, Heads<const float> out, Heads<const float> q,
                        Heads<const float> k, Heads<const float> v, Mat<const float> lse,
                        Span<const AttentionSegment> segments, float scale, Arena& arena);

}  // namespace orrery::kernels
