// The KV pool in bf16. Each backend lays it out as it likes, so what is compared is
// keys and values by block, head, slot and dimension, with the zeros that fill a key or
// value up to 16 bytes.
#pragma once

#include "kernels/cpu/kv_pool.h"
#include "kernels/cuda/kv_layout.cuh"
#include "tests/gpu/ops/cases.h"

namespace orrery::ops_check {

struct KvBf16Case : Case {
  AttentionShape shape;
  int64_t padding;  ///< of the rows of keys and values
};
inline constexpr KvBf16Case kKvBf16Cases[] = {
    {{"one_dimension", kOracle}, {1, 1, 1}, 0}, {{"odd", kOracle}, {2, 2, 5}, 3},
    {{"aligned", kOracle}, {2, 2, 16}, 0},      {{"head_dim_64", kOracle}, {6, 3, 64}, 8},
    {{"unaligned", kOracle}, {2, 1, 64}, 4},    {{"ragged", kOracle}, {3, 3, 20}, 4},
};

/// A bf16 pool that holds NaN.
inline KvPool bf16_pool(Arrays& a, const AttentionShape& shape, int64_t blocks) {
  const KvPoolBytes size{DType::kBF16, blocks, shape.kv_heads, shape.head_dim};
  const size_t bytes = a.gpu() ? cuda::kv_pool_bytes({}, size) : cpu::kv_pool_bytes({}, size);
  const std::vector<uint8_t> nan(bytes, 0xff);
  return {a.upload(nan.data(), std::ssize(nan)).data, DType::kBF16, blocks, shape.kv_heads,
          shape.head_dim};
}

/// Adds the pool's contents to the arrays, in an order of their own.
inline void show_pool(Arrays& a, const KvPool& pool) {
  const KvPoolBytes size{DType::kBF16, pool.blocks, pool.kv_heads, pool.head_dim};
  const size_t bytes = a.gpu() ? cuda::kv_pool_bytes({}, size) : cpu::kv_pool_bytes({}, size);
  std::vector<Bf16> memory(bytes / sizeof(Bf16));
  if (a.gpu()) {
    require(cudaMemcpy(memory.data(), pool.data, bytes, cudaMemcpyDeviceToHost), "download");
  } else {
    std::memcpy(memory.data(), pool.data, bytes);
  }
  KvPool here = pool;
  here.data = memory.data();
  const cuda::KvBf16Blocks tiles = cuda::bf16_blocks_of(here);
  std::vector<Bf16> keys, values;
  for (int64_t block = 0; block < pool.blocks; ++block) {
    for (int64_t head = 0; head < pool.kv_heads; ++head) {
      const int64_t tile = block * pool.kv_heads + head;
      const Bf16* const k =
          cpu::keys<Bf16>(here) + tile * cpu::key_elements(DType::kBF16, pool.head_dim);
      const Bf16* const v =
          cpu::values<Bf16>(here) + tile * cpu::value_elements(DType::kBF16, pool.head_dim);
      const int64_t columns = cpu::value_columns(pool.head_dim);
      for (int64_t slot = 0; slot < kKvBlock; ++slot) {
        for (int64_t d = 0; d < tiles.row; ++d) {
          const int64_t at = slot * tiles.row + d;
          keys.push_back(a.gpu() ? tiles.key_tile(block, head)[at]
                                 : k[(d / 2 * kKvBlock + slot) * 2 + d % 2]);
          values.push_back(a.gpu() ? tiles.value_tile(block, head)[at]
                                   : v[(slot / 2 * columns + d) * 2 + slot % 2]);
        }
      }
    }
  }
  a.of_bf16("pool_keys", keys);
  a.of_bf16("pool_values", values);
}

/// Some positions of a sequence.
struct KvRows {
  int64_t sequence, position, rows;
};

template <class B>
void run_in_bf16(Arrays& a, const KvBf16Case& c) {
  Arena arena;
  // Of the last block nothing is ever written; blocks of a sequence are not neighbours.
  constexpr int64_t kBlocks = 12;
  const std::vector<int32_t> tables[] = {{9, 2, 5, 0}, {1, 8}, {3}, {4, 7, 10}, {6}};
  const KvPool pool = bf16_pool(a, c.shape, kBlocks);
  const int64_t columns = c.shape.kv_heads * c.shape.head_dim;
  const auto write = [&](const std::vector<KvRows>& all) {
    std::vector<KvSegment> segments;
    int64_t rows = 2;  // the first ones belong to no segment, nor does one between
    for (const KvRows& some : all) {
      segments.push_back({rows, some.rows, some.position, tables[some.sequence]});
      rows += some.rows + 1;
    }
    const AttentionPlan plan = plan_for(a, arena, c.shape, rows, kBlocks, segments);
    B::kv_write(a.ctx(), {.pool = pool,
                          .k = a.bf16_mat("k", rows, columns, c.padding),
                          .v = a.bf16_mat("v", rows, columns, c.padding),
                          .plan = plan});
    show_pool(a, pool);
    a.step("kv_write bf16");
  };
  write({{0, 0, 70}, {1, 0, 32}, {2, 0, 5}, {3, 0, 65}, {4, 0, 31}});
  // One token each: behind others, in a block's last slot, and in a fresh block.
  write({{0, 70, 1}, {1, 32, 1}, {2, 5, 1}, {4, 31, 1}});
  // Positions that are written again: what lies behind them goes in blocks that the
  // segment begins, and stays in others.
  write({{0, 10, 30}, {1, 33, 20}, {3, 32, 33}, {2, 0, 2}, {4, 3, 10}});
  write({{3, 1, 95}, {0, 64, 64}});
  const std::vector<BlockCopy> copies{{9, 11, 5}, {2, 5, 31}, {5, 5, 3}, {11, 0, 32}, {1, 4, 0}};
  CopyPlan plan = make_copy_plan({}, kBlocks, copies, arena);
  if (a.gpu()) plan.copies = a.upload(plan.copies.data, plan.copies.size);
  for (const bool clear_rest : {false, true}) {
    B::kv_copy(a.ctx(), {.pool = pool, .plan = plan, .clear_rest = clear_rest});
    show_pool(a, pool);
    a.step("kv_copy bf16");
  }
  B::kv_clear(a.ctx(), {.pool = pool});
  show_pool(a, pool);
  a.step("kv_clear bf16");
}

}  // namespace orrery::ops_check
