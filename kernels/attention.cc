#include "kernels/attention.h"

#include <algorithm>

#include "core/error.h"
#include "core/parallel.h"
#include "core/profile.h"
#include "kernels/cpu/attention.h"

namespace orrery::kernels {
namespace {

/// Elements of keys, and of values, that are worth a thread to write: each element of a
/// key goes to a cache line of its own, and most of those lie in memory.
constexpr int64_t kColdElements = 2048;

void check_cpu(const Context& ctx, const char* op) {
  if (ctx.device.type != DeviceType::kCpu)
    fail("{}: no kernel for this device; run it on the CPU", op);
}

void check_pool(const char* op, const KvPool& pool) {
  if (pool.blocks < 0 || pool.kv_heads < 1 || pool.head_dim < 1 || pool.head_dim > kMaxHeadDim) {
    fail(
        "{}: KV pool of {} blocks, {} kv heads, head_dim {}: "
        "need at least 1 kv head and a head_dim of 1 to {}",
        op, pool.blocks, pool.kv_heads, pool.head_dim, kMaxHeadDim);
  }
  if (pool.blocks > 0 && (pool.k == nullptr || pool.v == nullptr))
    fail("{}: KV pool without memory", op);
}

/// Each segment's rows must lie in the batch, its positions in its block table, and the
/// table's blocks in the pool: all of them `from_start`, else those of its positions.
void check_segments(const char* op, Span<const KvSegment> segments, int64_t tokens,
                    const KvPool& pool, bool from_start) {
  for (int64_t i = 0; i < segments.size(); ++i) {
    const KvSegment& s = segments[i];
    if (s.rows == 0) continue;
    if (s.rows < 0 || s.row_begin < 0 || s.rows > tokens || s.row_begin > tokens - s.rows) {
      fail("{}: segment {}: {} rows from {} on are not inside the batch of {}", op, i, s.rows,
           s.row_begin, tokens);
    }
    const int64_t table = s.blocks.size() * kKvBlock;
    if (s.position < 0 || s.position > table || s.rows > table - s.position) {
      fail("{}: segment {}: {} positions from {} on do not fit its block table of {} blocks of {}",
           op, i, s.rows, s.position, s.blocks.size(), kKvBlock);
    }
    const int64_t last = (s.position + s.rows - 1) / kKvBlock;
    for (int64_t b = from_start ? 0 : s.position / kKvBlock; b <= last; ++b) {
      if (s.blocks[b] < 0 || s.blocks[b] >= pool.blocks) {
        fail("{}: segment {}: block table entry {} is {}, outside the pool of {} blocks", op, i, b,
             s.blocks[b], pool.blocks);
      }
    }
  }
}

template <class T>
void check_heads(const char* op, const char* name, const Heads<T>& x, int64_t tokens, int64_t heads,
                 int64_t head_dim) {
  if (x.tokens != tokens || x.heads != heads || x.head_dim != head_dim ||
      x.stride < heads * head_dim) {
    fail("{}: {} is [{}, {}, {}] with rows of {}; expected [{}, {}, {}]", op, name, x.tokens,
         x.heads, x.head_dim, x.stride, tokens, heads, head_dim);
  }
}

void check_group(const char* op, int64_t heads, int64_t kv_heads) {
  if (heads < 1 || kv_heads < 1 || heads % kv_heads != 0) {
    fail("{}: {} query heads cannot share {} kv heads evenly", op, heads, kv_heads);
  }
}

/// Two segments that share a row would write it from two threads.
template <class Segment>
void check_disjoint(const char* op, Span<const Segment> segments) {
  int64_t end = 0;
  for (int64_t i = 0; i < segments.size(); ++i) {
    const int64_t first = segments[i].row_begin;
    const int64_t last = first + segments[i].rows;
    for (int64_t j = 0; first < end && j < i; ++j) {
      if (segments[j].row_begin < last && first < segments[j].row_begin + segments[j].rows) {
        fail("{}: segments {} and {} share rows", op, j, i);
      }
    }
    end = std::max(end, last);
  }
}

/// Floating-point operations of scores and outputs: 4 for each head, dimension and pair
/// of a row and a key that it sees.
double pair_flops(int64_t rows, int64_t position, int64_t heads, int64_t head_dim) {
  const double pairs = rows * (position + (rows + 1) / 2.0);
  return 4.0 * pairs * heads * head_dim;
}

}  // namespace

void kv_write(const Context& ctx, const KvPool& pool, Heads<const float> k, Heads<const float> v,
              Span<const KvSegment> segments) {
  check_cpu(ctx, "kv_write");
  check_pool("kv_write", pool);
  check_heads("kv_write", "k", k, k.tokens, pool.kv_heads, pool.head_dim);
  check_heads("kv_write", "v", v, k.tokens, pool.kv_heads, pool.head_dim);
  check_segments("kv_write", segments, k.tokens, pool, false);
  const ProfileOpScope profile(ctx, "kv write", 0, f32_bytes(2 * (k.size() + v.size())));
  const int64_t per_row = pool.kv_heads * pool.head_dim;
  parallel_for(ctx, segments.size(), 1 + kColdElements / per_row, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) kv_write_segment(pool, k, v, segments[i]);
  });
}

void kv_copy(const Context& ctx, const KvPool& pool, int32_t from, int32_t to, int64_t count) {
  check_cpu(ctx, "kv_copy");
  check_pool("kv_copy", pool);
  if (from < 0 || from >= pool.blocks || to < 0 || to >= pool.blocks) {
    fail("kv_copy: block {} to {}: outside the pool of {} blocks", from, to, pool.blocks);
  }
  if (count < 0 || count > kKvBlock) fail("kv_copy: {} slots: a block has {}", count, kKvBlock);
  if (from == to || count == 0) return;
  const ProfileOpScope profile(ctx, "kv copy", 0,
                               f32_bytes(4 * count * pool.kv_heads * pool.head_dim));
  kv_copy_block(pool, from, to, count);
}

void attention_forward(const Context& ctx, Heads<float> out, Mat<float> lse, Heads<const float> q,
                       const KvPool& pool, Span<const KvSegment> segments, float scale) {
  check_cpu(ctx, "attention_forward");
  check_pool("attention_forward", pool);
  check_group("attention_forward", q.heads, pool.kv_heads);
  check_heads("attention_forward", "q", q, q.tokens, q.heads, pool.head_dim);
  check_heads("attention_forward", "out", out, q.tokens, q.heads, pool.head_dim);
  if (lse.data != nullptr &&
      (lse.rows != q.tokens || lse.cols != q.heads || lse.stride < q.heads)) {
    fail("attention_forward: lse is [{}, {}]; expected [{}, {}]", lse.rows, lse.cols, q.tokens,
         q.heads);
  }
  check_segments("attention_forward", segments, q.tokens, pool, true);
  check_disjoint("attention_forward", segments);

  double flops = 0;
  int64_t keys = 0;
  if (ctx.profile != nullptr) {
    for (const KvSegment& s : segments) {
      flops += pair_flops(s.rows, s.position, q.heads, q.head_dim);
      keys += s.rows > 0 ? s.position + s.rows : 0;
    }
  }
  const ProfileOpScope profile(ctx, "attention forward", flops,
                               f32_bytes(2 * q.size() + 2 * keys * pool.kv_heads * pool.head_dim));
  attention_forward_cpu(ctx, {out, lse, q, pool, scale}, segments);
}

void attention_backward(const Context& ctx, Heads<float> dq, Heads<float> dk, Heads<float> dv,
                        Heads<const float> dout, Heads<const float> out, Heads<const float> q,
                        Heads<const float> k, Heads<const float> v, Mat<const float> lse,
                        Span<const AttentionSegment> segments, float scale, Arena& arena) {
  const char* name = "attention_backward";
  check_cpu(ctx, name);
  check_group(name, q.heads, k.heads);
  if (q.head_dim < 1 || q.head_dim > kMaxHeadDim)
    fail("{}: head_dim {}: need 1 to {}", name, q.head_dim, kMaxHeadDim);
  check_heads(name, "q", q, q.tokens, q.heads, q.head_dim);
  check_heads(name, "out", out, q.tokens, q.heads, q.head_dim);
  check_heads(name, "dout", dout, q.tokens, q.heads, q.head_dim);
  check_heads(name, "dq", dq, q.tokens, q.heads, q.head_dim);
  check_heads(name, "k", k, q.tokens, k.heads, q.head_dim);
  check_heads(name, "v", v, q.tokens, k.heads, q.head_dim);
  check_heads(name, "dk", dk, q.tokens, k.heads, q.head_dim);
  check_heads(name, "dv", dv, q.tokens, k.heads, q.head_dim);
  if (lse.rows != q.tokens || lse.cols != q.heads || lse.stride < q.heads) {
    fail("{}: lse is [{}, {}]; expected [{}, {}]", name, lse.rows, lse.cols, q.tokens, q.heads);
  }
  for (int64_t i = 0; i < segments.size(); ++i) {
    const AttentionSegment& s = segments[i];
    if (s.rows < 0 || s.row_begin < 0 || s.rows > q.tokens || s.row_begin > q.tokens - s.rows) {
      fail("{}: segment {}: {} rows from {} on are not inside the batch of {}", name, i, s.rows,
           s.row_begin, q.tokens);
    }
    if (s.parent < -1 || s.parent >= i) {
      fail("{}: segment {}: its parent {} does not precede it", name, i, s.parent);
    }
    const int64_t start = s.parent < 0 ? 0 : segments[s.parent].position + segments[s.parent].rows;
    if (s.position != start)
      fail("{}: segment {}: position {}, but its parent ends at {}", name, i, s.position, start);
  }
  check_disjoint(name, segments);
  double flops = 0;
  if (ctx.profile != nullptr) {
    for (const AttentionSegment& s : segments)
      flops += 2 * pair_flops(s.rows, s.position, q.heads, q.head_dim);
  }
  const ProfileOpScope profile(ctx, "attention backward", flops,
                               f32_bytes(4 * (q.size() + k.size())));
  attention_backward_cpu(ctx, {dq, dk, dv, dout, out, q, k, v, lse, segments, scale}, arena);
}

}  // namespace orrery::kernels
