// What the benchmarks of ops share: what a row of a case table (tests/kernels/cases)
// costs, and how it is measured against the roofline.
#pragma once

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bench/bandwidth.h"
#include "core/buffer.h"
#include "core/context.h"
#include "tests/kernels/cases/case_table.h"

namespace orrery::bench {

using kernels::cases::cases_for;
using kernels::cases::ModelShape;

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

using Body = std::function<void(benchmark::State&, const Machine&)>;

class Registry {
 public:
  Registry(const Machine& one, const Machine& two) : machines_{&one, &two} {}
  /// Registers `name`/threads:1 and `name`/threads:2.
  void add(const std::string& name, const Body& run) const;
  /// For every row of `table` that has a `use`: name(row), after its model's, measures
  /// run(state, machine, row).
  template <class Row, size_t kRows, class Name, class RunRow>
  void add_table(const Row (&table)[kRows], kernels::cases::Use use, Name name, RunRow run) const {
    for (const Row& row : cases_for(table, use)) {
      add(fmt::format("{}/{}", row.model->name, name(row)),
          [=](benchmark::State& state, const Machine& machine) { run(state, machine, row); });
    }
  }

 private:
  const Machine* machines_[2];
};

inline Context context_of(const Machine& machine) { return Context{.threads = machine.threads}; }

inline double as_bytes(int64_t floats) { return static_cast<double>(floats) * sizeof(float); }

/// Token ids or positions: `count` numbers below `bound`, in no order.
std::vector<int32_t> random_ids(int64_t count, int64_t bound, uint32_t seed);

void add_matmul_cases(const Registry& registry);
void add_attention_cases(const Registry& registry);
void add_row_cases(const Registry& registry);
void add_vocabulary_cases(const Registry& registry);
void add_flat_cases(const Registry& registry);

}  // namespace orrery::bench
