// The CPU's attention in the class dot16-rz25 (docs/numerics.md, "Dot16"): what
// cpu::attention_forward and cpu::attention_backward call for bf16 operands on a device
// that sums as tensor cores do. Arguments are already checked.
#pragma once

#include <cstdint>
#include <numbers>

#include "core/context.h"
#include "core/dtype.h"
#include "kernels/attention.h"

namespace orrery::kernels::cpu {

/// Keys of a tile, and of a split: both by absolute position.
inline constexpr int64_t kDot16TileKeys = 128;
inline constexpr int64_t kDot16SplitKeys = 1024;

/// k2 of the contract: it takes the product of q and k to the exponent of 2.
inline float dot16_score_scale(float scale) {
  return static_cast<float>(static_cast<double>(scale) * std::numbers::log2e);
}

/// Most queries of an item.
inline constexpr int64_t kDot16Queries = 64;
/// Partial sums of the weights: a tensor core's fragment spreads a row over 4 threads.
inline constexpr int64_t kWeightSums = 4;

/// Online softmax's state of an item's queries.
struct Dot16State {
  float m[kDot16Queries];
  float l[kDot16Queries][kWeightSums];
  float* o = nullptr;  ///< [kDot16Queries][padded_head_dim]
};

/// One thread's memory for an item.
struct Dot16Item {
  int64_t count = 0;
  int64_t position[kDot16Queries];
  Bf16* q = nullptr;         ///< [kDot16Queries][head_dim]
  Bf16* k = nullptr;         ///< of the tile, [head_dim][kDot16TileKeys]
  Bf16* v = nullptr;         ///< [kDot16TileKeys][padded_head_dim]
  float* weights = nullptr;  ///< [kDot16Queries][kDot16TileKeys]: products, then p
  Bf16* p = nullptr;         ///< the same, rounded
  Dot16State split, all;     ///< of the split at hand, and of those before it
};

/// A tile of keys against the queries [first, count) of an item.
struct Dot16Tile {
  int64_t begin = 0;    ///< its first position
  int64_t keys = 0;     ///< that are read, a multiple of kKvBlock
  int64_t columns = 0;  ///< leading keys of which any query sees some, likewise
  int64_t first = 0;
  bool opens_split = false;
};

/// Rows of a segment and a head that the backward takes at once: whole groups of the
/// chains over queries.
inline constexpr int64_t kDot16Rows = 64;

/// Some rows of a segment and a head against up to kDot16TileKeys keys.
struct Dot16Weights {
  int64_t rows = 0;
  int64_t keys = 0;
  int64_t seen = 0;       ///< by the first row: more than `keys` and less than 0 may be
  int64_t seen_more = 0;  ///< by each row than by the one before
  float lse[kDot16Rows];  ///< [rows]
  float delta[kDot16Rows];
  float* scores = nullptr;  ///< [kDot16Rows][kDot16TileKeys], products of q and k
  float* dp = nullptr;
  Bf16* p = nullptr;
  Bf16* ds = nullptr;
};

void dot16_attention_forward(const Context& ctx, const AttentionForward& op);
void dot16_attention_backward(const Context& ctx, const AttentionBackward& op);

}  // namespace orrery::kernels::cpu
