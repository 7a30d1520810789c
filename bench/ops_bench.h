// What the cases of bench_ops share: the models' shapes, what a case costs, and how it
// is measured against the roofline.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bench/bandwidth.h"
#include "core/buffer.h"
#include "core/context.h"

namespace orrery::bench {

struct ModelShape {
  const char* name;
  int64_t dim, layers, heads, kv_heads, head_dim, ffn, vocab;
  int64_t q_size() const { return heads * head_dim; }
  int64_t kv_size() const { return kv_heads * head_dim; }
  int64_t qkv_size() const { return q_size() + 2 * kv_size(); }
  /// Parameters, embedding and head tied.
  int64_t parameters() const {
    return vocab * dim + layers * (dim * (qkv_size() + q_size() + 3 * ffn) + 2 * dim) + dim;
  }
};

inline constexpr ModelShape kModels[] = {
    {"135M", 576, 30, 9, 3, 64, 1536, 49152},
    {"8M", 288, 6, 6, 6, 48, 768, 6400},
};

/// Tokens of a group in training: a prompt of 60 and 8 responses of 128.
inline constexpr int64_t kGroupTokens = 60 + 8 * 128;
/// Sequences of a decoding batch, where an op's own cases name no other.
inline constexpr int64_t kDecodeRows = 64;
/// Bytes that cases whose operands come from memory walk through: more than any
/// third-level cache.
inline constexpr int64_t kColdBytes = 128 << 20;

/// How many copies of `bytes` a case walks through, another in each call, so that they
/// come from memory as they do where every layer has its own. At most one per layer.
int64_t cold_copies(const ModelShape& model, double bytes);

/// What one call needs at least.
struct Cost {
  double flops = 0;    ///< multiplications and additions, as the op's contract has them
  double read = 0;     ///< bytes of operands, each counted once
  double written = 0;  ///< the same
  /// Bytes that calls in a row go through; 0: read + written, in-place ones once.
  double working_set = 0;
};

/// The ceilings for a number of threads.
struct Machine {
  int threads = 1;
  double fma = 0;  ///< floating-point operations per second
  BandwidthCurve bandwidth;
};

/// Measures `run` and reports GFLOP/s, GB/s, the working set, and `roofline`: the least
/// time that the machine allows for `cost`, the longer of its arithmetic and its
/// traffic, over the time taken.
void measure(benchmark::State& state, const Machine& machine, const Cost& cost,
             const std::function<void()>& run);

using Case = std::function<void(benchmark::State&, const Machine&)>;

/// Registers `name`/threads:1 and `name`/threads:2.
class Registry {
 public:
  Registry(const Machine& one, const Machine& two) : machines_{&one, &two} {}
  void add(const std::string& name, const Case& run) const;

 private:
  const Machine* machines_[2];
};

inline Context context_of(const Machine& machine) { return Context{.threads = machine.threads}; }

inline double as_bytes(int64_t floats) { return static_cast<double>(floats) * sizeof(float); }

/// Token ids or positions: `count` numbers below `bound`, in no order.
std::vector<int32_t> random_ids(int64_t count, int64_t bound, uint32_t seed);

void add_matmul_cases(const Registry& registry, const ModelShape& model);
void add_attention_cases(const Registry& registry, const ModelShape& model);
void add_row_cases(const Registry& registry, const ModelShape& model);
void add_vocabulary_cases(const Registry& registry, const ModelShape& model);
void add_flat_cases(const Registry& registry, const ModelShape& model);

}  // namespace orrery::bench
