// The CPU's backward of attention in bf16: what attention.h has for f32. The schedule
// is the same one (attention_schedule.cc).
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/cpu/attention.h"

namespace orrery::kernels::cpu {

using PairsBackwardArgs = BasicBackwardArgs<Bf16>;

/// Most queries of a block: whole blocks of 32 of dk's and dv's sums.
inline constexpr int64_t kPairsBackwardQueries = 64;
/// Most key tiles of a product: what it takes of them stays in the cache.
inline constexpr int64_t kPairsBackwardTiles = 2;

/// The head dimension padded to whole blocks of pairs.
inline int64_t pairs_head_dim(int64_t head_dim) { return (head_dim + 31) / 32 * 32; }

/// Packed keys and values of a (tree, kv head), and the gradients being summed. Lanes
/// beyond a segment's last key and columns beyond head_dim are zeros.
struct PairsAttentionPack {
  Bf16* k_pairs = nullptr;  ///< [tile][pairs_head_dim / 2][kKvBlock][2]
  Bf16* v_pairs = nullptr;  ///< the same of v
  Bf16* k_rows = nullptr;   ///< [tile][kKvBlock / 2][padded][2]
  float* dk = nullptr;      ///< [tile][padded][kKvBlock]
  float* dv = nullptr;
};

/// One thread's memory for a block of queries. Left operands of products hold floats or
/// Bf16, as the engine has it.
struct PairsAttentionScratch {
  void* q_rows = nullptr;        ///< [pairs_head_dim / 32][kPairsBackwardQueries][32]
  void* dout_rows = nullptr;     ///< the same of dout
  void* q_columns = nullptr;     ///< [queries / 32][padded][32 queries]
  void* dout_columns = nullptr;  ///< the same of dout
  void* ds_rows = nullptr;       ///< [tile][kPairsBackwardQueries][kKvBlock]
  float* scores = nullptr;       ///< [tile][kPairsBackwardQueries][kKvBlock]
  float* dp = nullptr;           ///< the same
  Bf16* p_pairs = nullptr;       ///< [tile][kPairsBackwardQueries / 2][kKvBlock][2]
  Bf16* ds_pairs = nullptr;      ///< the same
  float* dq = nullptr;           ///< [kPairsBackwardQueries][padded]
  float* row = nullptr;          ///< [2 * head_dim]
  int64_t* path = nullptr;       ///< [depth]
};

/// As their namesakes of attention.h. A block of queries begins at a multiple of 32.
void attention_backward_block(const PairsBackwardArgs& op, const BackwardBlock& work,
                              const PairsAttentionPack& pack, const PairsAttentionScratch& scratch);
void attention_backward_pack(const PairsBackwardArgs& op, int64_t segment, int64_t first_tile,
                             int64_t kv_head, const PairsAttentionPack& pack);
/// REQUIRES: row_begin is a multiple of kKvBlock.
void attention_backward_store(const PairsBackwardArgs& op, int64_t segment, int64_t first_tile,
                              int64_t kv_head, int64_t row_begin, int64_t row_end,
                              const PairsAttentionPack& pack);

}  // namespace orrery::kernels::cpu
