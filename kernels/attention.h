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
// That is with an f32 pool. With a bf16 pool (q and out are bf16 too) the products are
// sums in pairs, p is rounded to bf16 before it meets v, tiles are multiplied whole,
// and out is o / l + 0, rounded: docs/numerics.md, "bf16", has the blocks. On devices
// whose bf16 is that of tensor cores (Device::dot16()) it is that document's "Dot16",
// and lse is in base 2.
#pragma once

#include "core/context.h"
#include "core/tensor.h"
#include "kernels/attention_plan.h"
#include "kernels/kv_pool.h"

namespace orrery::kernels {

/// The plan's rows [rows, heads * head_dim]. Each sees positions 0 .. its own, all of
/// which must have been written to the pool. Rows outside the plan's segments are left
/// as they are.
struct AttentionForward {
  ActMat out;      ///< [rows, heads * head_dim], as q of the pool's element type
  Mat<float> lse;  ///< [rows, heads], or without memory: not wanted
  ConstActMat q;   ///< [rows, heads * head_dim]
  const KvPool& pool;
  const AttentionPlan& plan;
  float scale = 1.0f;
};
void attention_forward(const Context& ctx, const AttentionForward& op);

/// Gradients of attention over trees of segments. dq, dk, dv are overwritten for the
/// segments' rows and left as they are for others. For a query (a row and head) and
/// each key j that it sees, with s_j as in the forward:
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
/// All matrices but lse are f32, or all are bf16. In bf16 the chains but delta's are
/// sums in pairs, in the blocks of docs/numerics.md; p and ds are rounded to bf16
/// before they enter dq, dk and dv, ds from the p that is not rounded.
struct AttentionBackward {
  ActMat dq;                 ///< [rows, heads * head_dim]
  ActMat dk, dv;             ///< [rows, kv_heads * head_dim]
  ConstActMat dout, out, q;  ///< [rows, heads * head_dim]
  ConstActMat k, v;          ///< [rows, kv_heads * head_dim]
  Mat<const float> lse;      ///< [rows, heads], of the forward
  const AttentionBackwardPlan& plan;
  float scale = 1.0f;
};
void attention_backward(const Context& ctx, const AttentionBackward& op);

}  // namespace orrery::kernels
