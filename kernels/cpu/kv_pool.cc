// Keys and values into the blocks of the KV cache (kernels/cpu/kv_pool.h has the
// layouts: keys transposed, values row by row, in bf16 both in pairs).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/kv_pool.cc"
#include "kernels/cpu/kv_pool.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "core/parallel.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/targets.h"
// Once for each of the other targets.
#include "hwy/foreach_target.h"
#include "kernels/cpu/attention-inl.h"
#include "kernels/cpu/pairs-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

/// Some rows of a segment, whose keys and values go to consecutive slots of one block.
struct BlockRows {
  int64_t first = 0;  ///< row of the batch
  int64_t count = 0;
  int64_t slot = 0;  ///< of the first row
  int64_t block = 0;
};

/// Calls write(BlockRows) for each block that the segment's rows go to.
template <class Write>
HWY_INLINE void for_blocks(const PlannedSegment& segment, const int32_t* table, Write&& write) {
  for (int64_t row = 0; row < segment.rows;) {
    const int64_t position = segment.position + row;
    BlockRows rows;
    rows.first = segment.row_begin + row;
    rows.slot = position % kKvBlock;
    rows.count = std::min(kKvBlock - rows.slot, segment.rows - row);
    rows.block = table[position / kKvBlock];
    write(rows);
    row += rows.count;
  }
}

void write_segment(const KvPool& pool, Heads<const float> k, Heads<const float> v,
                   const PlannedSegment& segment, const int32_t* table) {
  const int64_t head_dim = pool.head_dim;
  float* pool_k = keys<float>(pool);
  float* pool_v = values<float>(pool);
  for_blocks(segment, table, [&](const BlockRows& rows) {
    for (int64_t head = 0; head < pool.kv_heads; ++head) {
      const int64_t slab = (rows.block * pool.kv_heads + head) * head_dim * kKvBlock;
      const float* from[kKvBlock];
      for (int64_t i = 0; i < rows.count; ++i) {
        from[i] = at(k, rows.first + i, head);
        std::copy_n(at(v, rows.first + i, head), head_dim,
                    pool_v + slab + (rows.slot + i) * head_dim);
      }
      attention::transpose_rows(from, rows.count, head_dim, pool_k + slab + rows.slot, kKvBlock);
    }
  });
}

/// Two elements as they lie in memory, from any address.
HWY_INLINE uint32_t load_pair(const Bf16* from) {
  uint32_t pair;
  std::memcpy(&pair, from, sizeof(pair));
  return pair;
}
HWY_INLINE void store_pair(uint32_t pair, void* to) { std::memcpy(to, &pair, sizeof(pair)); }

/// One head's keys into slots of a block. With `fresh`, the slots behind them and the
/// dimensions beyond head_dim become zeros.
HWY_INLINE void write_keys(const Bf16* const* from, int64_t count, int64_t head_dim, int64_t slot,
                           bool fresh, Bf16* HWY_RESTRICT slab) {
  const int64_t whole = head_dim / 2;
  constexpr int64_t kRow = 2 * kKvBlock;
  Bf16* const to = slab + 2 * slot;
  int64_t i = 0;
  if (count >= 4 && head_dim % 2 == 0) {
    const uint32_t* words[kKvBlock];
    const int64_t fours = count / 4 * 4;
    for (; i < fours; ++i) words[i] = reinterpret_cast<const uint32_t*>(from[i]);
    pairs::transpose_words(words, fours, whole, reinterpret_cast<uint32_t*>(to), kKvBlock);
  }
  for (; i < count; ++i) {
    for (int64_t p = 0; p < whole; ++p)
      store_pair(load_pair(from[i] + 2 * p), to + p * kRow + 2 * i);
    if (head_dim % 2 == 1) {
      to[whole * kRow + 2 * i] = from[i][head_dim - 1];
      to[whole * kRow + 2 * i + 1] = Bf16{};
    }
  }
  if (!fresh) return;
  const int64_t used = whole + head_dim % 2, rest = kKvBlock - slot - count;
  for (int64_t p = 0; rest > 0 && p < used; ++p)
    std::fill_n(to + p * kRow + 2 * count, 2 * rest, Bf16{});
  std::fill(slab + used * kRow, slab + key_pairs(head_dim) * kRow, Bf16{});
}

/// One value into the even or the odd halves of a row of pairs.
HWY_INLINE void write_half(const Bf16* HWY_RESTRICT from, int64_t head_dim, bool odd,
                           Bf16* HWY_RESTRICT to) {
  const hn::Rebind<uint16_t, pairs::F> d16;
  const pairs::U d;
  const auto keep = hn::Set(d, odd ? 0xFFFFu : 0xFFFF0000u);
  const auto* const in = reinterpret_cast<const uint16_t*>(from);
  auto* const out = reinterpret_cast<uint32_t*>(to);
  int64_t x = 0;
  for (; x + pairs::kLanes <= head_dim; x += pairs::kLanes) {
    const auto value = hn::PromoteTo(d, hn::LoadU(d16, in + x));
    const auto half = odd ? hn::ShiftLeft<16>(value) : value;
    hn::StoreU(hn::Or(hn::And(hn::LoadU(d, out + x), keep), half), d, out + x);
  }
  for (; x < head_dim; ++x) to[2 * x + (odd ? 1 : 0)] = from[x];
}

/// One head's values into slots of a block, likewise.
HWY_INLINE void write_values(const Bf16* const* from, int64_t count, int64_t head_dim, int64_t slot,
                             bool fresh, Bf16* HWY_RESTRICT slab) {
  const int64_t row = 2 * value_columns(head_dim);
  int64_t i = 0;
  if (slot % 2 == 1) write_half(from[i++], head_dim, true, slab + slot / 2 * row);
  for (; i + 2 <= count; i += 2)
    pairs::zip_rows(from[i], from[i + 1], head_dim, slab + (slot + i) / 2 * row);
  int64_t end = (slot + count) / 2;  // pairs that are whole
  if (i < count) {
    Bf16* const last = slab + end * row;
    fresh ? pairs::zip_rows(from[i], nullptr, head_dim, last)
          : write_half(from[i], head_dim, false, last);
    ++end;
  }
  if (!fresh) return;
  for (int64_t r = 0; r < end; ++r)
    std::fill(slab + r * row + 2 * head_dim, slab + (r + 1) * row, Bf16{});
  std::fill(slab + end * row, slab + kKvBlock / 2 * row, Bf16{});
}

void write_pairs_segment(const KvPool& pool, Heads<const Bf16> k, Heads<const Bf16> v,
                         const PlannedSegment& segment, const int32_t* table) {
  const int64_t head_dim = pool.head_dim;
  const int64_t key_slab = key_elements(DType::kBF16, head_dim),
                value_slab = value_elements(DType::kBF16, head_dim);
  for_blocks(segment, table, [&](const BlockRows& rows) {
    for (int64_t head = 0; head < pool.kv_heads; ++head) {
      const int64_t slab = rows.block * pool.kv_heads + head;
      const Bf16 *from_k[kKvBlock], *from_v[kKvBlock];
      for (int64_t i = 0; i < rows.count; ++i) {
        from_k[i] = at(k, rows.first + i, head);
        from_v[i] = at(v, rows.first + i, head);
      }
      const bool fresh = rows.slot == 0;
      write_keys(from_k, rows.count, head_dim, rows.slot, fresh,
                 keys<Bf16>(pool) + slab * key_slab);
      write_values(from_v, rows.count, head_dim, rows.slot, fresh,
                   values<Bf16>(pool) + slab * value_slab);
    }
  });
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery::kernels::cpu {
namespace {

/// Elements of keys, and of values, that are worth a thread to write: each element of a
/// key goes to a cache line of its own, and most of those lie in memory.
constexpr int64_t kColdElements = 2048;

/// Copies the first `count` of one head's keys to another block; the other slots there
/// become zeros where wanted. A slot has `width` elements in each of `runs` rows.
template <class T>
void copy_keys(const T* from, T* to, int64_t runs, int64_t width, int64_t count, bool clear_rest) {
  const int64_t copied = count * width, row = kKvBlock * width;
  for (int64_t i = 0; i < runs; ++i, from += row, to += row) {
    if (from != to) std::copy_n(from, copied, to);
    if (clear_rest) std::fill(to + copied, to + row, T{});
  }
}

/// The same of values. A pair of slots has `row` elements: both values, or in bf16
/// their dimensions in turn.
void copy_values(const float* from, float* to, int64_t row, int64_t count, bool clear_rest) {
  const int64_t copied = count * (row / 2);
  if (from != to) std::copy_n(from, copied, to);
  if (clear_rest) std::fill(to + copied, to + kKvBlock / 2 * row, 0.0f);
}
void copy_values(const Bf16* from, Bf16* to, int64_t row, int64_t count, bool clear_rest) {
  int64_t at = count / 2 * row;
  if (from != to) std::copy_n(from, at, to);
  if (count % 2 == 1) {
    for (const int64_t end = at + row; at < end; at += 2) {
      to[at] = from[at];
      if (clear_rest) to[at + 1] = Bf16{};
    }
  }
  if (clear_rest) std::fill(to + at, to + kKvBlock / 2 * row, Bf16{});
}

template <class T>
void copy_block(const KvPool& pool, const BlockCopy& copy, bool clear_rest) {
  if (copy.from == copy.to && !clear_rest) return;
  constexpr DType kType = kDTypeOf<T>;
  constexpr int64_t kWidth = kType == DType::kF32 ? 1 : 2;
  const int64_t key_slab = key_elements(kType, pool.head_dim),
                value_slab = value_elements(kType, pool.head_dim);
  const int64_t from = copy.from * pool.kv_heads, to = copy.to * pool.kv_heads;
  for (int64_t head = 0; head < pool.kv_heads; ++head) {
    T* const k = keys<T>(pool);
    copy_keys(k + (from + head) * key_slab, k + (to + head) * key_slab,
              key_slab / (kWidth * kKvBlock), kWidth, copy.count, clear_rest);
    T* const v = values<T>(pool);
    copy_values(v + (from + head) * value_slab, v + (to + head) * value_slab,
                value_slab / (kKvBlock / 2), copy.count, clear_rest);
  }
}

/// Calls write(segment) for the plan's segments, on as many threads as pay.
template <class Write>
void write_segments(const Context& ctx, const AttentionPlan& plan, Write&& write) {
  const Span<const PlannedSegment> segments = host(plan.segments);
  const int64_t per_row = plan.shape.kv_heads * plan.shape.head_dim;
  parallel_for(ctx, segments.size(), 1 + kColdElements / per_row, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) write(segments[i]);
  });
}

}  // namespace

HWY_EXPORT(write_segment);
HWY_EXPORT(write_pairs_segment);

void kv_clear(const Context& ctx, const KvClear& op) {
  const KvPool& pool = op.pool;
  const size_t bytes =
      kv_pool_bytes(ctx, KvPoolBytes{pool.dtype, pool.blocks, pool.kv_heads, pool.head_dim});
  // All bits zero is the number zero in both types.
  std::byte* const data = static_cast<std::byte*>(pool.data);
  parallel_for(ctx, static_cast<int64_t>(bytes), int64_t{1} << 18,
               [&](int64_t begin, int64_t end) { std::memset(data + begin, 0, end - begin); });
}

void kv_write(const Context& ctx, const KvWrite& op) {
  const AttentionShape& shape = op.plan.shape;
  const int32_t* tables = op.plan.tables.data;
  if (op.pool.dtype == DType::kF32) {
    const auto k = heads_of(op.k.as<const float>(), shape.kv_heads, shape.head_dim);
    const auto v = heads_of(op.v.as<const float>(), shape.kv_heads, shape.head_dim);
    write_segments(ctx, op.plan, [&](const PlannedSegment& s) {
      HWY_DYNAMIC_DISPATCH(write_segment)(op.pool, k, v, s, tables + s.table);
    });
    return;
  }
  const auto k = heads_of(op.k.as<const Bf16>(), shape.kv_heads, shape.head_dim);
  const auto v = heads_of(op.v.as<const Bf16>(), shape.kv_heads, shape.head_dim);
  write_segments(ctx, op.plan, [&](const PlannedSegment& s) {
    HWY_DYNAMIC_DISPATCH(write_pairs_segment)(op.pool, k, v, s, tables + s.table);
  });
}

void rope_kv_write(const Context& ctx, const RopeKvWrite& op) {
  const AttentionShape& shape = op.plan.shape;
  const int64_t keys = shape.heads * shape.head_dim,
                values = keys + shape.kv_heads * shape.head_dim;
  rotate(ctx, op.qkv.col_range(0, values), shape.heads + shape.kv_heads, op.rotation);
  kv_write(ctx, {.pool = op.pool,
                 .k = op.qkv.col_range(keys, values),
                 .v = op.qkv.col_range(values, op.qkv.cols),
                 .plan = op.plan});
}

void kv_copy(const Context& /*ctx*/, const KvCopy& op) {
  for (const BlockCopy& copy : host(op.plan.copies)) {
    op.pool.dtype == DType::kF32 ? copy_block<float>(op.pool, copy, op.clear_rest)
                                 : copy_block<Bf16>(op.pool, copy, op.clear_rest);
  }
}

}  // namespace orrery::kernels::cpu
#endif
