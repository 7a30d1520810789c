// Attention in bf16 at the shapes of large_attention.h, by tensor cores, against the
// device cpu-dot16.
#pragma once

#include "tests/gpu/ops/bf16_attention.h"
#include "tests/gpu/ops/large_attention.h"

namespace orrery::ops_check {

/// A pool of random keys and values on both sides, each in its own layout.
struct LargeBf16Pool {
  KvPool host, device;

  LargeBf16Pool(Bench& bench, const LargeBatch& batch,
                const std::vector<std::vector<int32_t>>& tables) {
    const AttentionShape& shape = kLargeShape;
    const int64_t columns = shape.kv_heads * shape.head_dim, rows = batch.sequences * batch.end;
    const Both k = bench.random_bf16("k", rows * columns),
               v = bench.random_bf16("v", rows * columns);
    Arena arena(bench.cpu.device);
    std::vector<KvSegment> sequences;
    Bf16PoolImage image(shape, batch.blocks());
    const auto values_of = [&](const Both& b) {
      const Mat<Bf16> m = bf16_of(b, false, rows, columns);
      return std::vector<Bf16>(m.data, m.data + m.size());
    };
    const std::vector<Bf16> keys = values_of(k), values = values_of(v);
    for (int64_t s = 0; s < batch.sequences; ++s) {
      const std::vector<int32_t>& table = tables[static_cast<size_t>(s)];
      sequences.push_back({s * batch.end, batch.end, 0, table});
      image.write(table, s * batch.end, batch.end, keys, values);
    }
    const auto pool = [&](int64_t bytes) { return bench.raw("pool", (bytes + 3) / 4); };
    const KvPool as{nullptr, DType::kBF16, batch.blocks(), shape.kv_heads, shape.head_dim};
    host = as, device = as;
    host.data = pool(static_cast<int64_t>(kv_pool_bytes(kCpuDevice, DType::kBF16, as.blocks,
                                                        as.kv_heads, as.head_dim)))
                    .host;
    const Both on_gpu = pool(std::ssize(image.bits()) * static_cast<int64_t>(sizeof(Bf16)));
    std::memcpy(on_gpu.host, image.bits().data(), image.bits().size() * sizeof(Bf16));
    bench.upload(on_gpu);
    device.data = on_gpu.device;
    Cpu::kv_write(bench.cpu, {.pool = host,
                              .k = bf16_of(k, false, rows, columns),
                              .v = bf16_of(v, false, rows, columns),
                              .plan = make_attention_plan(bench.cpu, shape, rows, as.blocks,
                                                          sequences, arena)});
  }
};

inline void large_bf16_attention(Bench& bench) {
  Bench::heading();
  const AttentionShape& shape = kLargeShape;
  const int64_t q_row = shape.heads * shape.head_dim, kv_row = shape.kv_heads * shape.head_dim;
  for (const LargeBatch& batch : kLargeBatches) {
    Arena arena(bench.cpu.device);
    std::vector<KvSegment> segments;
    const int64_t rows = batch.end - batch.begin, all = rows * batch.sequences;
    const std::vector<std::vector<int32_t>> tables = batch.tables();
    for (int64_t s = 0; s < batch.sequences; ++s)
      segments.push_back({s * rows, rows, batch.begin, tables[static_cast<size_t>(s)]});
    const AttentionPlan plan =
        make_attention_plan(bench.cpu, shape, all, batch.blocks(), segments, arena);
    const AttentionPlan on_gpu = gpu_plan(bench, plan);
    const LargeBf16Pool pool(bench, batch, tables);
    const Both q = bench.random_bf16("q", all * q_row), out = bench.random_bf16("out", all * q_row),
               lse = bench.raw("lse", all * shape.heads);
    bench.run(
        "attention_forward bf16", batch.shape(),
        [&](bool gpu) {
          const AttentionForward op{.out = bf16_of(out, gpu, all, q_row),
                                    .lse = mat_of(lse, gpu, all, shape.heads),
                                    .q = bf16_of(q, gpu, all, q_row),
                                    .pool = gpu ? pool.device : pool.host,
                                    .plan = gpu ? on_gpu : plan,
                                    .scale = 0.125f};
          gpu ? Cuda::attention_forward(bench.gpu, op) : Cpu::attention_forward(bench.cpu, op);
        },
        {out, lse}, 4.0 * plan.pairs * static_cast<double>(q_row),
        4.0 * static_cast<double>(all * q_row + plan.keys * kv_row));
    if (batch.writes) {
      const Both qkv = bench.random_bf16("qkv", all * (q_row + 2 * kv_row));
      const LargeRotation rotation(bench, shape.head_dim, all);
      bench.run(
          "rope_kv_write bf16", batch.shape(),
          [&](bool gpu) {
            const RopeKvWrite op{gpu ? pool.device : pool.host,
                                 bf16_of(qkv, gpu, all, q_row + 2 * kv_row), rotation.of(gpu),
                                 gpu ? on_gpu : plan};
            gpu ? Cuda::rope_kv_write(bench.gpu, op) : Cpu::rope_kv_write(bench.cpu, op);
          },
          {qkv}, 0, 2.0 * static_cast<double>(all * (2 * q_row + 5 * kv_row)));
    }
    bench.clear();
  }
  for (const bool grouped : {false, true}) {
    Arena arena(bench.cpu.device);
    const int64_t all = kTrees * kTreeRows;
    const AttentionBackwardPlan plan =
        make_attention_backward_plan(bench.cpu, shape, all, large_trees(grouped), arena);
    const AttentionBackwardPlan on_gpu = gpu_plan(bench, plan);
    const auto random = [&](const char* name, int64_t row) {
      return bench.random_bf16(name, all * row);
    };
    const Both dq = random("dq", q_row), dk = random("dk", kv_row), dv = random("dv", kv_row),
               dout = random("dout", q_row), out = random("out", q_row), q = random("q", q_row),
               k = random("k", kv_row), v = random("v", kv_row),
               lse = bench.constant("lse", all * shape.heads, 10.0f);
    bench.run(
        "attention_backward bf16", large_trees_name(grouped),
        [&](bool gpu) {
          const auto queries = [&](const Both& b) { return bf16_of(b, gpu, all, q_row); };
          const auto keys = [&](const Both& b) { return bf16_of(b, gpu, all, kv_row); };
          const AttentionBackward op{.dq = queries(dq),
                                     .dk = keys(dk),
                                     .dv = keys(dv),
                                     .dout = queries(dout),
                                     .out = queries(out),
                                     .q = queries(q),
                                     .k = keys(k),
                                     .v = keys(v),
                                     .lse = mat_of(lse, gpu, all, shape.heads),
                                     .plan = gpu ? on_gpu : plan,
                                     .scale = 0.125f};
          gpu ? Cuda::attention_backward(bench.gpu, op) : Cpu::attention_backward(bench.cpu, op);
        },
        {dq, dk, dv}, 10.0 * plan.pairs * static_cast<double>(q_row),
        8.0 * static_cast<double>(all * (q_row + kv_row)));
    bench.clear();
  }
}

}  // namespace orrery::ops_check
