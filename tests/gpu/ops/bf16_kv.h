// The KV pool in bf16. Each backend lays it out as it likes, so what is compared is
// keys and values by block, head, slot and dimension, with the zeros that fill a key or
// value up to 16 bytes.
#pragma once

#include "kernels/cpu/kv_pool.h"
#include "kernels/cuda/kv_layout.cuh"
#include "tests/gpu/ops/bf16_rows.h"
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

template <class B>
void run_in_bf16(Arrays& a, const RopeKvCase& c) {
  Arena arena;
  const KvWriteBatches all;
  const KvPool pool = bf16_pool(a, c.shape, KvWriteBatches::kBlocks);
  const int64_t cols = (c.shape.heads + 2 * c.shape.kv_heads) * c.shape.head_dim;
  uint64_t seed = c.seed;
  for (const KvWriteBatches::Batch& batch : all.batches) {
    const bool finite = seed % 2 == 1;
    B::rope_kv_write(
        a.ctx(),
        {.pool = pool,
         .qkv = row_matrix<Bf16>(a, "qkv", batch.rows, cols, c.padding, seed++, finite),
         .rotation = rotation_of(a, batch.rows, c.shape.head_dim),
         .plan = plan_for(a, arena, c.shape, batch.rows, KvWriteBatches::kBlocks, batch.segments)});
    show_pool(a, pool);
    a.step("rope_kv_write bf16");
  }
}

template <class B>
void run_in_bf16(Arrays& a, const KvBf16Case& c) {
  Arena arena;
  constexpr int64_t kBlocks = KvWriteBatches::kBlocks;
  const KvWriteBatches all;
  const KvPool pool = bf16_pool(a, c.shape, kBlocks);
  const int64_t columns = c.shape.kv_heads * c.shape.head_dim;
  for (const KvWriteBatches::Batch& batch : all.batches) {
    const AttentionPlan plan = plan_for(a, arena, c.shape, batch.rows, kBlocks, batch.segments);
    B::kv_write(a.ctx(), {.pool = pool,
                          .k = a.bf16_mat("k", batch.rows, columns, c.padding),
                          .v = a.bf16_mat("v", batch.rows, columns, c.padding),
                          .plan = plan});
    show_pool(a, pool);
    a.step("kv_write bf16");
  }
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
