// What a backend decides by itself of sizes in memory, as ops that each backend
// answers. Callers outside kernels/ ask by the functions of the ops' own headers.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace orrery::kernels {

/// packed_weight_bytes (kernels/matmul.h).
struct PackedWeightBytes {
  DType dtype = DType::kF32;
  int64_t n = 0, k = 0;
};

/// lm_head_chunk_rows (kernels/lm_head.h).
struct LmHeadChunkRows {
  int64_t vocab = 0, rows = 0;
  DType dtype = DType::kF32;  ///< of the weight
};

/// kv_pool_bytes (kernels/kv_pool.h).
struct KvPoolBytes {
  DType dtype = DType::kF32;
  int64_t blocks = 0, kv_heads = 0, head_dim = 0;
};

}  // namespace orrery::kernels
