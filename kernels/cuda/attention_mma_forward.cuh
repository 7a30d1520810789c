// The forward of attention on tensor cores, in the class dot16-rz25. A block of four
// warps walks over the tiles of 128 keys with the queries of one segment and kv head:
// 64 of them, 16 a warp, or 32 or 16, of which two or four warps share 16, each with
// its part of the scores' keys and of the outputs' columns. What holds, and gives the
// bits of docs/numerics.md:
//   1. A thread has two queries, and of their scores those at columns 8 i + 2 q and the
//      one after, q = lane % 4. So each of the four sums of a query's weights is one
//      thread's, in the contract's order; where warps share queries, each of them sums
//      what all of them left in shared memory.
//   2. Weights are 0 for the keys that a query does not see, and those keys' values are
//      multiplied all the same. A query that sees nothing of a tile, beside one that
//      does, keeps what it had: 0 times infinity is no change.
//   3. A tile is read as far as the segment's table goes, in whole blocks of the pool.
//   4. Columns past a slice of a head's are other blocks' outputs, which compute the
//      same scores once more.
#pragma once

#include <type_traits>

#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/attention_mma_state.cuh"

namespace orrery::kernels::cuda {

/// A KvBf16Blocks (kv_layout.cuh) as kernels take it, with `row` in 32 bits.
struct MmaPool {
  const Bf16* keys = nullptr;
  const Bf16* values = nullptr;
  int64_t kv_heads = 0;
  int row = 0;
};

struct MmaForwardOp {
  Mat<Bf16> out;
  Mat<float> lse;
  Mat<const Bf16> q;
  MmaPool pool;
  Vec<const PlannedSegment> segments;
  const int32_t* tables = nullptr;
  int group = 0, head_dim = 0;
  float score_scale = 1.0f;  ///< k2 of the contract
  bool aligned = false;      ///< rows of q, to 16 bytes
  bool pairs = false;        ///< pairs of outputs
};

/// Keys of a tile, and tiles of a split.
inline constexpr int kMmaTileKeys = 128, kMmaSplitTiles = 8;

/// kDims: columns of a slice. kRowWarps: how many times 16 queries.
template <int kDims_, int kRowWarps_>
struct MmaForwardTile {
  static constexpr int kDims = kDims_, kRowWarps = kRowWarps_;
  static constexpr int kWarps = 4, kThreads = kWarps * kWarp;
  static constexpr int kKeyWarps = kWarps / kRowWarps;  // that share queries
  static constexpr int kQueries = 16 * kRowWarps;
  static constexpr int kLd = kDims + kMmaCopy, kLdP = kMmaTileKeys + kMmaCopy;
  /// Of a warp, eight columns each: of scores and of outputs.
  static constexpr int kScores = kMmaTileKeys / kKeyWarps / 8, kColumns = kDims / kKeyWarps / 8;
  static constexpr int kSharedQ = kQueries * kLd, kSharedKv = kMmaTileKeys * kLd;
  /// Pairs of keys of each of a query's four sums, where warps share queries.
  static constexpr int kPairs = kKeyWarps > 1 ? kMmaTileKeys / 8 : 1;
  static constexpr int kPairSums = kKeyWarps > 1 ? 4 * kQueries : 1;
  static constexpr int kSharedP = kKeyWarps == 1 ? 0 : kQueries * kLdP;
  static constexpr size_t kBytes = sizeof(Bf16) * size_t{kSharedQ + 2 * kSharedKv + kSharedP};
};

/// Continues the chains over a slice of `columns` of q k: 16 queries from `row` on, and
/// 8 * kScores keys from `key` on.
template <class Tile>
__device__ inline void add_scores(const Bf16* q, int row, const Bf16* k, int key, int columns,
                                  int lane, float (&s)[Tile::kScores][4]) {
  using Rows = MmaRows<Tile::kLd>;
#pragma unroll 2
  for (int inner = 0; inner < columns; inner += 16) {
    uint32_t a[4];
    Rows::load_a(a, q, row, inner, lane);
#pragma unroll
    for (int n = 0; n < Tile::kScores; n += 2) {
      uint32_t first[2], second[2];
      Rows::load_b(first, second, k, key + n * 8, inner, lane);
      mma_m16n8k16(s[n], a, first);
      mma_m16n8k16(s[n + 1], a, second);
    }
  }
}

/// Continues the chains over a tile's keys of p v. p_of(step) gives the weights'
/// fragment of the 16 keys from 16 step on.
template <class Tile, class FragmentOf>
__device__ inline void add_outputs(const FragmentOf& p_of, const Bf16* v, int column, int columns,
                                   int lane, const bool (&sees)[2], float (&o)[Tile::kColumns][4]) {
  constexpr int kAtOnce = Tile::kColumns < 4 ? Tile::kColumns : 4;
#pragma unroll
  for (int n = 0; n < Tile::kColumns; n += kAtOnce) {
    if (column + n * 8 >= columns) continue;
    float sums[kAtOnce][4];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[i][e] = o[n + i][e];
    }
#pragma unroll
    for (int step = 0; step < kMmaTileKeys / 16; ++step) {
      uint32_t p[4];
      p_of(step, p);
#pragma unroll
      for (int i = 0; i < kAtOnce; i += 2) {
        uint32_t first[2], second[2];
        MmaRows<Tile::kLd>::load_b_down(first, second, v, step * 16, column + (n + i) * 8, lane);
        mma_m16n8k16(sums[i], p, first);
        mma_m16n8k16(sums[i + 1], p, second);
      }
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
      for (int e = 0; e < 4; ++e) o[n + i][e] = sees[e / 2] ? sums[i][e] : o[n + i][e];
    }
  }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads)
    attention_mma_forward_kernel(MmaForwardOp op, ItemRange range) {
  constexpr int kScores = Tile::kScores, kKeyWarps = Tile::kKeyWarps, kQueries = Tile::kQueries;
  extern __shared__ __align__(16) Bf16 forward_memory[];
  // What warps that share queries tell one another: the largest scores, and weights
  // added in pairs, [pair][query][q].
  __shared__ float tops[Tile::kWarps][16];
  __shared__ float pair_sums[Tile::kPairs][Tile::kPairSums];
  Bf16* const shared_q = forward_memory;
  Bf16* const shared_k = shared_q + Tile::kSharedQ;
  Bf16* const shared_v = shared_k + Tile::kSharedKv;
  Bf16* const shared_p = shared_v + Tile::kSharedKv;
  const int thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp;

  const QueryItem item = find_queries(op.segments, op.group, range, blockIdx.x);
  if (item.segment < 0) return;
  const PlannedSegment segment = op.segments.data[item.segment];
  const int64_t kv_head = blockIdx.y;
  const int head_dim = op.head_dim, group = op.group;
  const int begin = static_cast<int>(item.begin);
  const int end = min(static_cast<int>(segment.rows) * group, begin + kQueries);
  const int position = static_cast<int>(segment.position);
  const int32_t* const table = op.tables + segment.table;
  // Whole blocks of the segment's table.
  const int written = (position + static_cast<int>(segment.rows) + int{kKvBlock} - 1) /
                      int{kKvBlock} * int{kKvBlock};
  const int slices = (head_dim + Tile::kDims - 1) / Tile::kDims, own_slice = blockIdx.z;
  const auto columns_of = [&](int slice) {
    return min(Tile::kDims, head_dim - slice * Tile::kDims);
  };
  const auto position_of = [&](int f) { return position + min(f, end - 1) / group; };

  const auto fetch_queries = [&](int slice) {
    fetch_bf16_rows<Tile, kQueries>(
        shared_q, end - begin, columns_of(slice), op.aligned, [&](int i) {
          const int f = begin + i;
          return op.q.data + (segment.row_begin + f / group) * op.q.stride +
                 (kv_head * group + f % group) * head_dim + slice * Tile::kDims;
        });
  };
  const auto fetch_tile = [&](Bf16* to, const Bf16* from, int tile, int slice) {
    fetch_bf16_rows<Tile, kMmaTileKeys>(
        to, written - tile * kMmaTileKeys, min(Tile::kDims, op.pool.row - slice * Tile::kDims),
        true, [&](int i) {
          const int at = tile * kMmaTileKeys + i;
          const int64_t block = table[at / int{kKvBlock}];
          return from +
                 ((block * op.pool.kv_heads + kv_head) * kKvBlock + at % int{kKvBlock}) *
                     op.pool.row +
                 slice * Tile::kDims;
        });
  };

  const int warp_row = warp / kKeyWarps * 16, key_part = warp % kKeyWarps;
  const int first_key = key_part * kScores * 8, first_column = key_part * Tile::kColumns * 8;
  const int first_position = position_of(begin + warp_row);
  const int last_position = position_of(begin + warp_row + 15);
  const int my_position[2] = {position_of(begin + warp_row + lane / 4),
                              position_of(begin + warp_row + lane / 4 + 8)};
  const int tiles = position_of(end - 1) / kMmaTileKeys + 1;
  const int own_columns = columns_of(own_slice);

  MmaState<Tile::kColumns> all, split;
  all.clear_all();
  split.clear_all();
  if (slices == 1) fetch_queries(0);
  for (int tile = 0; tile < tiles; ++tile) {
    const int key0 = tile * kMmaTileKeys;
    const bool needed = key0 <= last_position, opens_split = tile % kMmaSplitTiles == 0;
    float s[kScores][4];
    clear(s);
    for (int slice = 0; slice < slices; ++slice) {
      if (tile == 0 || slices > 1) {
        __syncthreads();  // nobody needs the keys before
        if (slices > 1) fetch_queries(slice);
        fetch_tile(shared_k, op.pool.keys, tile, slice);
      }
      wait_for_copies();
      __syncthreads();  // the keys are there, and nobody needs the values before
      if (slice == slices - 1) fetch_tile(shared_v, op.pool.values, tile, own_slice);
      if (needed)
        add_scores<Tile>(shared_q, warp_row, shared_k, first_key, columns_of(slice), lane, s);
    }

    // Of the thread's scores, those whose 8 n + e is less: keys that its queries see.
    int seen[2];
    bool sees[2];  // any of the tile
    float top[2], c[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      seen[r] = my_position[r] + 1 - key0 - first_key - lane % 4 * 2;
      sees[r] = my_position[r] >= key0;
      top[r] = split.m[r];
    }
    // Whether all of the warp's queries see all of its keys.
    const bool whole = first_position + 1 - key0 - first_key >= kScores * 8;
    const auto scale_scores = [&](auto masked) {
#pragma unroll
      for (int n = 0; n < kScores; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          s[n][e] = __fmul_rn(s[n][e], op.score_scale);
          if (!masked.value || n * 8 + e % 2 < seen[e / 2])
            top[e / 2] = larger(top[e / 2], s[n][e]);
        }
      }
    };
    whole ? scale_scores(std::false_type()) : scale_scores(std::true_type());
#pragma unroll
    for (int r = 0; r < 2; ++r) top[r] = largest_of_row(top[r]);
    if constexpr (kKeyWarps > 1) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (lane % 4 == 0) tops[warp][lane / 4 + 8 * r] = top[r];
      }
      __syncthreads();
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int w = 0; w < kKeyWarps; ++w)
          top[r] = larger(top[r], tops[warp - key_part + w][lane / 4 + 8 * r]);
      }
    }
    const auto weigh_scores = [&](auto masked) {
#pragma unroll
      for (int n = 0; n < kScores; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float p = exp2_at_most_one(__fsub_rn(s[n][e], top[e / 2]));
          s[n][e] = !masked.value || n * 8 + e % 2 < seen[e / 2] ? p : 0.0f;
        }
      }
    };
    whole ? weigh_scores(std::false_type()) : weigh_scores(std::true_type());
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      c[r] = opens_split ? 0.0f : exp2_at_most_one(__fsub_rn(split.m[r], top[r]));
      float l = __fmul_rn(split.l[r], c[r]);
#pragma unroll
      for (int n = 0; n < kScores; ++n) {
        const float pair = __fadd_rn(s[n][2 * r], s[n][2 * r + 1]);
        if constexpr (kKeyWarps > 1) {
          pair_sums[key_part * kScores + n][warp_row * 4 + lane + 32 * r] = pair;
          *reinterpret_cast<uint32_t*>(shared_p + (warp_row + lane / 4 + 8 * r) * Tile::kLdP +
                                       first_key + n * 8 + lane % 4 * 2) =
              bf16_pair(s[n][2 * r], s[n][2 * r + 1]);
        } else {
          l = __fadd_rn(l, pair);
        }
      }
      if (sees[r]) split.m[r] = top[r], split.l[r] = l;
      if (!sees[r]) c[r] = 1.0f;
    }
    uint32_t weights[kScores / 2][4];  // of the product with v, where the warp has all
    if constexpr (kKeyWarps == 1) {
#pragma unroll
      for (int step = 0; step < kScores / 2; ++step)
        to_fragment(weights[step], s[2 * step], s[2 * step + 1]);
    }
    split.scale_output(c);
    wait_for_copies();
    __syncthreads();  // values and weights are there, and nobody needs the keys any more
    if (tile + 1 < tiles && slices == 1) fetch_tile(shared_k, op.pool.keys, tile + 1, 0);
    if constexpr (kKeyWarps > 1) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float l = split.l[r];
#pragma unroll
        for (int i = 0; i < kMmaTileKeys / 8; ++i)
          l = __fadd_rn(l, pair_sums[i][warp_row * 4 + lane + 32 * r]);
        if (sees[r]) split.l[r] = l;
      }
      if (needed) {
        add_outputs<Tile>(
            [&](int step, uint32_t(&p)[4]) {
              MmaRows<Tile::kLdP>::load_a(p, shared_p, warp_row, step * 16, lane);
            },
            shared_v, first_column, own_columns, lane, sees, split.o);
      }
    } else if (needed) {
      add_outputs<Tile>(
          [&](int step, uint32_t(&p)[4]) {
#pragma unroll
            for (int e = 0; e < 4; ++e) p[e] = weights[step][e];
          },
          shared_v, first_column, own_columns, lane, sees, split.o);
    }

    if (tile + 1 == tiles || (tile + 1) % kMmaSplitTiles == 0) {
      const int split_begin = tile / kMmaSplitTiles * kMmaSplitTiles * kMmaTileKeys;
      if (split_begin == 0) {
        all = split;
      } else {
        const bool sees_split[2] = {my_position[0] >= split_begin, my_position[1] >= split_begin};
        all.merge(split, sees_split);
      }
      split.clear_all();
    }
  }

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float l = all.l[r];
#pragma unroll
    for (int step = 1; step < 4; step *= 2) l = __fadd_rn(l, __shfl_xor_sync(kAllThreads, l, step));
    const int f = begin + warp_row + lane / 4 + 8 * r;
    if (f >= end) continue;
    const int64_t row = segment.row_begin + f / group, head = kv_head * group + f % group;
    if (op.lse.data != nullptr && own_slice == 0 && key_part == 0 && lane % 4 == 0) {
      op.lse.data[row * op.lse.stride + head] = __fadd_rn(all.m[r], __fmul_rn(log_f32(l), kLog2E));
    }
    Bf16* const to = op.out.data + row * op.out.stride + head * head_dim + own_slice * Tile::kDims;
#pragma unroll
    for (int n = 0; n < Tile::kColumns; ++n) {
      const auto output = [&](int e) { return __fadd_rn(__fdiv_rn(all.o[n][2 * r + e], l), 0.0f); };
      store_bf16_pair(to, first_column + n * 8 + lane % 4 * 2, own_columns, op.pairs, output(0),
                      output(1));
    }
  }
}

}  // namespace orrery::kernels::cuda
