// Attention and sampling at the shapes of a model of 0.5B parameters.
#pragma once

#include "tests/gpu/ops/large.h"

namespace orrery::ops_check {

/// `sequences` runs of positions [begin, end), in blocks that lie scattered in a pool.
struct LargeBatch {
  const char* name;
  int64_t sequences, begin, end;
  bool writes;  ///< rope_kv_write is timed as well

  int64_t each() const { return (end + kKvBlock - 1) / kKvBlock; }
  int64_t blocks() const { return each() * sequences; }
  std::vector<std::vector<int32_t>> tables() const {
    std::vector<std::vector<int32_t>> tables;
    int64_t step = blocks() / 3 + 1;
    while (std::gcd(step, blocks()) != 1) ++step;
    for (int64_t s = 0; s < sequences; ++s) {
      std::vector<int32_t>& table = tables.emplace_back();
      for (int64_t b = 0; b < each(); ++b)
        table.push_back(static_cast<int32_t>((s * each() + b) * step % blocks()));
    }
    return tables;
  }
  std::string shape() const {
    char text[100];
    std::snprintf(text, sizeof text, "%s %lldx[%lld, %lld) 14/2x64", name,
                  static_cast<long long>(sequences), static_cast<long long>(begin),
                  static_cast<long long>(end));
    return text;
  }
};

#ifdef ORRERY_EMULATED
inline constexpr LargeBatch kLargeBatches[] = {
    {"prefill", 1, 0, 100, true}, {"chunk", 2, 70, 100, true}, {"decode", 6, 129, 130, false}};
inline constexpr int64_t kTreeRows = 70, kTrees = 2, kSampled = 3;
#else
inline constexpr LargeBatch kLargeBatches[] = {
    {"prefill", 1, 0, 2048, true},     {"train", 4, 0, 1024, true},
    {"chunk", 1, 1536, 2048, true},    {"decode", 256, 1023, 1024, true},
    {"decode", 64, 1023, 1024, false}, {"decode", 8, 1023, 1024, false},
    {"decode", 1, 1023, 1024, false},  {"decode", 256, 159, 160, false}};
inline constexpr int64_t kTreeRows = 1024, kTrees = 4, kSampled = 256;
#endif
inline constexpr AttentionShape kLargeShape{14, 2, 64};

/// A plan on the GPU with the segments of the CPU's, in memory of the bench's.
inline AttentionPlan gpu_plan(Bench& bench, const AttentionPlan& plan) {
  AttentionPlan on_gpu = plan;
  const Both segments =
      bench.raw("segments", plan.segments.size * static_cast<int64_t>(sizeof(PlannedSegment) / 4));
  std::memcpy(segments.host, plan.segments.data, static_cast<size_t>(segments.size) * 4);
  bench.upload(segments);
  on_gpu.segments = {reinterpret_cast<const PlannedSegment*>(segments.device), plan.segments.size};
  on_gpu.tables =
      ids_of(bench.ids("tables", {plan.tables.data, plan.tables.data + plan.tables.size}), true);
  on_gpu.cpu = nullptr;
  return on_gpu;
}

inline AttentionBackwardPlan gpu_plan(Bench& bench, const AttentionBackwardPlan& plan) {
  AttentionBackwardPlan on_gpu = plan;
  const Both uploaded = bench.raw(
      "segments", plan.segments.size * static_cast<int64_t>(sizeof(AttentionSegment) / 4));
  std::memcpy(uploaded.host, plan.segments.data, static_cast<size_t>(uploaded.size) * 4);
  bench.upload(uploaded);
  on_gpu.segments = {reinterpret_cast<const AttentionSegment*>(uploaded.device),
                     plan.segments.size};
  on_gpu.cpu = nullptr;
  return on_gpu;
}

/// Trees of one segment, or of a prompt of a quarter and three answers.
inline std::vector<AttentionSegment> large_trees(bool grouped) {
  std::vector<AttentionSegment> segments;
  const int64_t quarter = kTreeRows / 4;
  for (int64_t t = 0; t < kTrees; ++t) {
    const int64_t row = t * kTreeRows;
    if (!grouped) {
      segments.push_back({row, kTreeRows, 0, -1});
      continue;
    }
    const auto prompt = static_cast<int32_t>(segments.size());
    segments.push_back({row, quarter, 0, -1});
    for (int64_t a = 1; a < 4; ++a)
      segments.push_back({row + a * quarter, quarter, quarter, prompt});
  }
  return segments;
}
inline const char* large_trees_name(bool grouped) {
  return grouped ? "4 prompts of 256, 3 answers each" : "train 4x1024 14/2x64";
}

/// Of rows that stand at positions of their own.
struct LargeRotation {
  int64_t half, rows;
  Both cos, sin, positions;

  LargeRotation(Bench& bench, int64_t head_dim, int64_t all)
      : half(head_dim / 2),
        rows(all),
        cos(bench.random("cos", all * half, 0.5f)),
        sin(bench.random("sin", all * half, 0.5f)),
        positions(bench.ids("positions", scattered_ids(all, all))) {}
  Rotation of(bool gpu) const {
    return {.positions = ids_of(positions, gpu),
            .cos = mat_of(cos, gpu, rows, half),
            .sin = mat_of(sin, gpu, rows, half)};
  }
};

inline void large_attention(Bench& bench) {
  Bench::heading();
  const AttentionShape& shape = kLargeShape;
  const int64_t q_row = shape.heads * shape.head_dim, kv_row = shape.kv_heads * shape.head_dim;
  for (const LargeBatch& batch : kLargeBatches) {
    Arena arena(bench.cpu.device);
    std::vector<KvSegment> segments;
    const int64_t rows = batch.end - batch.begin, all = rows * batch.sequences;
    const std::vector<std::vector<int32_t>> tables = batch.tables();
    const int64_t blocks = batch.blocks();
    for (int64_t s = 0; s < batch.sequences; ++s)
      segments.push_back({s * rows, rows, batch.begin, tables[static_cast<size_t>(s)]});
    const AttentionPlan plan = make_attention_plan(bench.cpu, shape, all, blocks, segments, arena);
    const AttentionPlan on_gpu = gpu_plan(bench, plan);
    const int64_t pool_size = static_cast<int64_t>(kv_pool_bytes({}, DType::kF32, blocks,
                                                                 shape.kv_heads, shape.head_dim)) /
                              4;
    const Both pool = bench.random("pool", pool_size), q = bench.random("q", all * q_row, 2.0f),
               out = bench.raw("out", all * q_row), lse = bench.raw("lse", all * shape.heads);
    const auto pool_of = [&](bool gpu) {
      return KvPool{gpu ? pool.device : pool.host, DType::kF32, blocks, shape.kv_heads,
                    shape.head_dim};
    };
    const std::string name = batch.shape();
    if (batch.writes) {
      const Both qkv = bench.random("qkv", all * (q_row + 2 * kv_row));
      const LargeRotation rotation(bench, shape.head_dim, all);
      bench.run(
          "rope_kv_write", name,
          [&](bool gpu) {
            const KvPool to = pool_of(gpu);
            const RopeKvWrite op{to, mat_of(qkv, gpu, all, q_row + 2 * kv_row), rotation.of(gpu),
                                 gpu ? on_gpu : plan};
            gpu ? Cuda::rope_kv_write(bench.gpu, op) : Cpu::rope_kv_write(bench.cpu, op);
          },
          {pool, qkv}, 0, 4.0 * static_cast<double>(all * (2 * q_row + 5 * kv_row)));
    }
    bench.run(
        "attention_forward", name,
        [&](bool gpu) {
          const KvPool from = pool_of(gpu);
          const AttentionForward op{.out = mat_of(out, gpu, all, q_row),
                                    .lse = mat_of(lse, gpu, all, shape.heads),
                                    .q = mat_of(q, gpu, all, q_row),
                                    .pool = from,
                                    .plan = gpu ? on_gpu : plan,
                                    .scale = 0.125f};
          gpu ? Cuda::attention_forward(bench.gpu, op) : Cpu::attention_forward(bench.cpu, op);
        },
        {out, lse}, 4.0 * plan.pairs * static_cast<double>(q_row),
        8.0 * static_cast<double>(all * q_row + plan.keys * kv_row));
    bench.clear();
  }
  for (const bool grouped : {false, true}) {
    Arena arena(bench.cpu.device);
    const int64_t all = kTrees * kTreeRows;
    const AttentionBackwardPlan plan =
        make_attention_backward_plan(bench.cpu, shape, all, large_trees(grouped), arena);
    const AttentionBackwardPlan on_gpu = gpu_plan(bench, plan);
    const Both dq = bench.random("dq", all * q_row), dk = bench.random("dk", all * kv_row),
               dv = bench.random("dv", all * kv_row), dout = bench.random("dout", all * q_row),
               out = bench.random("out", all * q_row), q = bench.random("q", all * q_row),
               k = bench.random("k", all * kv_row), v = bench.random("v", all * kv_row),
               lse = bench.constant("lse", all * shape.heads, 7.0f);
    bench.run(
        "attention_backward", large_trees_name(grouped),
        [&](bool gpu) {
          const auto mat = [&](const Both& b) { return mat_of(b, gpu, all, b.size / all); };
          const AttentionBackward op{.dq = mat(dq),
                                     .dk = mat(dk),
                                     .dv = mat(dv),
                                     .dout = mat(dout),
                                     .out = mat(out),
                                     .q = mat(q),
                                     .k = mat(k),
                                     .v = mat(v),
                                     .lse = mat(lse),
                                     .plan = gpu ? on_gpu : plan,
                                     .scale = 0.125f};
          gpu ? Cuda::attention_backward(bench.gpu, op) : Cpu::attention_backward(bench.cpu, op);
        },
        {dq, dk, dv}, 10.0 * plan.pairs * static_cast<double>(q_row),
        16.0 * static_cast<double>(all * (q_row + kv_row)));
    bench.clear();
  }
}

inline void large_sampling(Bench& bench) {
  Bench::heading();
  for (const int64_t rows : {kSampled / 32 + 1, kSampled}) {
    for (const float scale : {1.0f, 4.0f}) {
      const Both logits = bench.random("logits", rows * kVocab, scale);
      const Both ids = bench.raw("ids", rows);
      std::vector<float> uniform;
      for (int64_t i = 0; i < rows; ++i)
        uniform.push_back(static_cast<float>(i * 37 % 257) / 257.0f);
      const Both numbers = bench.raw("uniform", rows);
      std::memcpy(numbers.host, uniform.data(), uniform.size() * 4);
      bench.upload(numbers);
      for (const Sampler& sampler : kSamplers) {
        const std::vector<SamplingParams> params(static_cast<size_t>(rows), sampler.params);
        const Both words =
            bench.raw("params", rows * static_cast<int64_t>(sizeof(SamplingParams) / 4));
        std::memcpy(words.host, params.data(), params.size() * sizeof(SamplingParams));
        bench.upload(words);
        char name[100];
        std::snprintf(name, sizeof name, "%s %lldx%lld scale %g", sampler.name,
                      static_cast<long long>(rows), static_cast<long long>(kVocab),
                      static_cast<double>(scale));
        bench.run(
            "sample_forward", name,
            [&](bool gpu) {
              const SampleForward op{.ids = ids_of(ids, gpu),
                                     .logits = mat_of(logits, gpu, rows, kVocab),
                                     .params = {reinterpret_cast<const SamplingParams*>(
                                                    gpu ? words.device : words.host),
                                                rows},
                                     .uniform = vec_of(numbers, gpu)};
              gpu ? Cuda::sample_forward(bench.gpu, op) : Cpu::sample_forward(bench.cpu, op);
            },
            {ids}, 0, 4.0 * static_cast<double>(rows * kVocab));
      }
      bench.clear();
    }
  }
}

}  // namespace orrery::ops_check
