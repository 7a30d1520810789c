// The backward of attention in bf16: packing and storing a segment's keys and values,
// and the choice of an engine for a block of queries (pairs_attention_backward-inl.h).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/pairs_attention_backward.cc"
#include "kernels/cpu/pairs_attention_backward.h"

#include "kernels/cpu/targets.h"
// Once for each of the other targets.
#include "hwy/foreach_target.h"
#include "kernels/cpu/pairs_attention_backward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace attention {

/// A part of a tile of keys: 32 elements of each row, zeros beyond the tile's keys and
/// the head's dimension.
struct KeyPart {
  alignas(64) Bf16 element[kTile][kPairsBlock];

  void read(Heads<const Bf16> m, int64_t token, int64_t keys, int64_t head, int64_t first) {
    const int64_t width = std::min(kPairsBlock, m.head_dim - first);
    for (int64_t j = 0; j < kTile; ++j) {
      const int64_t n = j < keys ? width : 0;
      if (n > 0) std::copy_n(cpu::at(m, token + j, head) + first, n, element[j]);
      std::fill(element[j] + n, element[j] + kPairsBlock, Bf16{});
    }
  }
  /// As a right operand whose inner dimension is the head's.
  void pair_dimensions(Bf16* to) const {
    const uint32_t* rows[kTile];
    for (int j = 0; j < kTile; ++j) rows[j] = reinterpret_cast<const uint32_t*>(element[j]);
    pairs::transpose_words(rows, kTile, kPairsBlock / 2, reinterpret_cast<uint32_t*>(to), kTile);
  }
  /// As one whose inner dimension is keys.
  void pair_keys(int64_t width, int64_t stride, Bf16* to) const {
    for (int j = 0; j < kTile; j += 2)
      pairs::zip_rows(element[j], element[j + 1], width, to + j / 2 * stride);
  }
};

/// Writes the sums of up to 32 keys, which lie transposed.
void store_keys(const float* sums, int64_t keys, int64_t token, int64_t head, Heads<Bf16> to) {
  alignas(64) float rows[kTile * kPairsBlock];
  const float* from[kPairsBlock];
  for (int64_t first = 0; first < to.head_dim; first += kPairsBlock) {
    const int64_t width = std::min(kPairsBlock, to.head_dim - first);
    for (int64_t x = 0; x < width; ++x) from[x] = sums + (first + x) * kTile;
    transpose_rows(from, width, kTile, rows, kPairsBlock);
    for (int64_t j = 0; j < keys; ++j)
      pairs::round(rows + j * kPairsBlock, width, cpu::at(to, token + j, head) + first);
  }
}

}  // namespace attention

void pairs_backward_pack(const PairsBackwardArgs& op, int64_t segment, int64_t first_tile,
                         int64_t kv_head, const PairsAttentionPack& pack) {
  using attention::kTile;
  const AttentionSegment& s = op.segments[segment];
  const int64_t head_dim = op.k.head_dim;
  const int64_t padded = padded_head_dim(head_dim), wide = pairs_head_dim(head_dim);
  attention::KeyPart part;
  for (int64_t row = 0; row < s.rows; row += kTile) {
    const int64_t tile = first_tile + row / kTile;
    const int64_t keys = std::min<int64_t>(kTile, s.rows - row), token = s.row_begin + row;
    for (int64_t first = 0; first < head_dim; first += kPairsBlock) {
      part.read(op.v, token, keys, kv_head, first);
      part.pair_dimensions(pack.v_pairs + (tile * wide + first) * kTile);
      part.read(op.k, token, keys, kv_head, first);
      part.pair_dimensions(pack.k_pairs + (tile * wide + first) * kTile);
      part.pair_keys(std::min(kPairsBlock, padded - first), 2 * padded,
                     pack.k_rows + tile * kTile * padded + 2 * first);
    }
    std::fill_n(pack.dk + tile * kTile * padded, kTile * padded, 0.0f);
    std::fill_n(pack.dv + tile * kTile * padded, kTile * padded, 0.0f);
  }
}

void pairs_backward_store(const PairsBackwardArgs& op, int64_t segment, int64_t first_tile,
                          int64_t kv_head, int64_t row_begin, int64_t row_end,
                          const PairsAttentionPack& pack) {
  using attention::kTile;
  const int64_t padded = padded_head_dim(op.k.head_dim);
  for (int64_t row = row_begin; row < row_end; row += kTile) {
    const int64_t at = (first_tile + row / kTile) * kTile * padded;
    const int64_t keys = std::min<int64_t>(kTile, row_end - row);
    const int64_t token = op.segments[segment].row_begin + row;
    attention::store_keys(pack.dk + at, keys, token, kv_head, op.dk);
    attention::store_keys(pack.dv + at, keys, token, kv_head, op.dv);
  }
}

void pairs_backward_block(const PairsBackwardArgs& op, const BackwardBlock& work,
                          const PairsAttentionPack& pack, const PairsAttentionScratch& scratch) {
  pairs::with_engine([&](auto engine) {
    attention::PairsQueries<decltype(engine)>(op, work, pack, scratch).run();
  });
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery::kernels::cpu {

HWY_EXPORT(pairs_backward_pack);
HWY_EXPORT(pairs_backward_store);
HWY_EXPORT(pairs_backward_block);

void attention_backward_block(const PairsBackwardArgs& op, const BackwardBlock& work,
                              const PairsAttentionPack& pack,
                              const PairsAttentionScratch& scratch) {
  HWY_DYNAMIC_DISPATCH(pairs_backward_block)(op, work, pack, scratch);
}

void attention_backward_pack(const PairsBackwardArgs& op, int64_t segment, int64_t first_tile,
                             int64_t kv_head, const PairsAttentionPack& pack) {
  HWY_DYNAMIC_DISPATCH(pairs_backward_pack)(op, segment, first_tile, kv_head, pack);
}

void attention_backward_store(const PairsBackwardArgs& op, int64_t segment, int64_t first_tile,
                              int64_t kv_head, int64_t row_begin, int64_t row_end,
                              const PairsAttentionPack& pack) {
  HWY_DYNAMIC_DISPATCH(pairs_backward_store)
  (op, segment, first_tile, kv_head, row_begin, row_end, pack);
}

}  // namespace orrery::kernels::cpu
#endif
