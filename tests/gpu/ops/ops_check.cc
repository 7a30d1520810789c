// The ops on the GPU against the CPU's, bit for bit: the case tables' rows
// (tests/kernels/cases), then shapes of a model of 0.5B parameters, with the GPU's
// times. Every op runs on the CPU, by the product's own code, and on the GPU, from the
// same operands; then all arrays are compared, those that the op was only to read as
// well.
//   ops_check STAGE    one stage, so that an error of the device ends it alone
//   ops_check stages   the names of the stages, save `tune`, which only measures
// Exit code 0: no bit differs; 1: some do; 2: no such stage; 3: an error of CUDA; 4:
// another error; 77: no device. tests/gpu/run_ops_check.sh builds it and runs all
// stages.
//
// How a case is added: a row of the op's table is walked by itself. A table is walked
// by a line of ORRERY_WALK in kStages below, which needs a run() of the table's row
// (cases.h). A new op is named once in backends.h. Large shapes: large.h.
#include <cstring>

#include "core/parallel.h"
#include "kernels/numerics.h"
#include "tests/gpu/ops/bf16_attention.h"
#include "tests/gpu/ops/bf16_attention_backward.h"
#include "tests/gpu/ops/bf16_kv.h"
#include "tests/gpu/ops/bf16_policy.h"
#include "tests/gpu/ops/bf16_products.h"
#include "tests/gpu/ops/bf16_rows.h"
#include "tests/gpu/ops/cases.h"
#include "tests/gpu/ops/large.h"
#include "tests/gpu/ops/large_attention.h"
#include "tests/gpu/ops/large_bf16.h"
#include "tests/gpu/ops/large_bf16_attention.h"
#include "tests/gpu/ops/token_losses.h"

namespace orrery::ops_check {

#ifdef ORRERY_EMULATED
void tune() {}
#else
void tune();
#endif

namespace {

Context cpu_context() {
  Context ctx{.device = kCpuDevice};
  ctx.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return ctx;
}

Context gpu_context() { return {.device = {DeviceType::kCuda}}; }

template <class Row>
using RunRow = void (*)(Arrays&, const Row&);

/// Runs a row of a table first on the CPU, then on the GPU.
template <class Row>
void run_row(Results& results, const Row& row, RunRow<Row> on_cpu, RunRow<Row> on_gpu) {
  std::vector<Arrays::Snapshot> snapshots;
  {
    Arrays arrays(cpu_context(), row.seed, &snapshots, nullptr, nullptr, row.name);
    on_cpu(arrays, row);
  }
  Arrays arrays(gpu_context(), row.seed, nullptr, &snapshots, &results, row.name);
  on_gpu(arrays, row);
}

/// Rows in bf16 go to run_in_bf16(), which every table that has a type must have.
template <class Row, size_t kRows>
void walk(Results& results, const Row (&table)[kRows], RunRow<Row> on_cpu, RunRow<Row> on_gpu) {
  for (const Row& row : table) {
    if ((row.use & kTest) == 0) continue;
    if constexpr (requires { row.dtype; }) {
      if (row.dtype == DType::kBF16) {
        run_row(results, row, run_in_bf16<Cpu>, run_in_bf16<Cuda>);
        continue;
      }
    }
    run_row(results, row, on_cpu, on_gpu);
  }
}

/// Rows that do not say what they are of, in bf16.
template <class Row, size_t kRows>
void walk_in_bf16(Results& results, const Row (&table)[kRows]) {
  for (const Row& row : table) {
    if ((row.use & kTest) != 0) run_row(results, row, run_in_bf16<Cpu>, run_in_bf16<Cuda>);
  }
}

#define ORRERY_WALK(table) walk(*bench.results, table, run<Cpu>, run<Cuda>)
#define ORRERY_WALK_BY(table, run) walk(*bench.results, table, run<Cpu>, run<Cuda>)
#define ORRERY_WALK_BF16(table) walk_in_bf16(*bench.results, table)

void report(const Results& results) {
  std::printf("\n| op | cases | elements | differing | failed cases |\n|---|---|---|---|---|\n");
  for (const auto& [op, r] : results) {
    std::printf("| %-27s | %4lld | %11lld | %9lld | %4lld |\n", op.c_str(),
                static_cast<long long>(r.cases), static_cast<long long>(r.elements),
                static_cast<long long>(r.differing), static_cast<long long>(r.failed_cases));
    if (!r.first.empty()) std::printf("    ^ %s\n", r.first.c_str());
  }
  std::fflush(stdout);
}

void print_device(Bench& bench) {
  cudaDeviceProp device{};
  require(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  int driver = 0;
  require(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  std::printf("%s, compute capability %d.%d, %d multiprocessors, driver %d; CPU %s, %d threads\n",
              device.name, device.major, device.minor, device.multiProcessorCount, driver,
              cpu_target_name().c_str(), bench.cpu.threads);
}

struct Stage {
  const char* name;
  void (*run)(Bench&);
  bool by_default = true;
};
constexpr Stage kStages[] = {
    {"device", print_device},
    {"products",
     [](Bench& bench) {
       ORRERY_WALK(kMatmulCases);
       ORRERY_WALK(kPairsMatmulCases);
       ORRERY_WALK(kDeepProducts);
       ORRERY_WALK(kEdgeProducts);
       ORRERY_WALK(kPackCases);
       ORRERY_WALK(kBiasCases);
       ORRERY_WALK_BF16(kPackCases);
       ORRERY_WALK_BF16(kTileProducts);
       ORRERY_WALK_BF16(kEdgeBf16Products);
     }},
    {"rows",
     [](Bench& bench) {
       ORRERY_WALK(kRmsnormCases);
       ORRERY_WALK(kRopeCases);
       ORRERY_WALK(kSwigluCases);
       ORRERY_WALK(kEmbeddingCases);
       ORRERY_WALK(kRowsCases);
       ORRERY_WALK(kSpreadCases);
       ORRERY_WALK_BF16(kRowsCases);
       ORRERY_WALK_BF16(kRunsCases);
       ORRERY_WALK_BF16(kDot16Norms);
     }},
    {"flat",
     [](Bench& bench) {
       ORRERY_WALK_BY(kTreeSumCases, run_tree_sum);
       ORRERY_WALK_BY(kNestedSumCases, run_nested_sum);
       ORRERY_WALK_BY(kFillCases, run_fill);
       ORRERY_WALK_BY(kAdamwCases, run_adamw);
       ORRERY_WALK_BY(kSumSquaresCases, run_sum_squares);
       ORRERY_WALK_BY(kChecksumCases, run_checksum);
       ORRERY_WALK_BY(kMaxAbsCases, run_max_abs);
     }},
    {"vocabulary",
     [](Bench& bench) {
       ORRERY_WALK(kLogprobCases);
       ORRERY_WALK_BF16(kDot16Policies);
       ORRERY_WALK(kLmHeadCases);
     }},
    {"kv",
     [](Bench& bench) {
       ORRERY_WALK(kRopeKvCases);
       ORRERY_WALK(kKvCopyCases);
       ORRERY_WALK(kKvClearCases);
       ORRERY_WALK_BF16(kKvBf16Cases);
     }},
    {"attention_forward", [](Bench& bench) { ORRERY_WALK(kAttentionCases); }},
    {"attention_forward_bf16",
     [](Bench& bench) {
       ORRERY_WALK_BF16(kAttentionCases);
       ORRERY_WALK_BF16(kBf16AttentionCases);
       ORRERY_WALK_BF16(kEdgeBf16AttentionCases);
     }},
    {"attention_backward", [](Bench& bench) { ORRERY_WALK(kAttentionTreeCases); }},
    {"attention_backward_bf16",
     [](Bench& bench) {
       ORRERY_WALK_BF16(kAttentionTreeCases);
       ORRERY_WALK_BF16(kAttentionPairsTreeCases);
       ORRERY_WALK_BF16(kBf16AttentionTreeCases);
     }},
    {"sampling", [](Bench& bench) { ORRERY_WALK(kSamplingCases); }},
    {"token_losses", [](Bench& bench) { ORRERY_WALK(kTokenLossCases); }},
    {"large_products", large_products},
    {"large_bf16_products", large_bf16_products},
    {"large_rows", large_rows},
    {"large_vocabulary", large_vocabulary},
    {"large_attention", large_attention},
    {"large_bf16_attention", large_bf16_attention},
    {"large_sampling", large_sampling},
    {"tune", [](Bench& /*bench*/) { tune(); }, false},
};

int run_stage(const Stage& stage) {
  Results results;
  Bench bench{.cpu = cpu_context(), .gpu = gpu_context(), .results = &results};
  stage.run(bench);
  if (!results.empty()) report(results);
  int64_t differing = 0;
  for (const auto& [op, r] : results) differing += r.differing;
  return differing == 0 ? 0 : 1;
}

int run_named(const std::string& name) {
  if (name == "stages") {
    for (const Stage& stage : kStages) {
      if (stage.by_default) std::printf("%s\n", stage.name);
    }
    return 0;
  }
  for (const Stage& stage : kStages) {
    if (name != stage.name) continue;
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
      std::printf("skipped: no CUDA device\n");
      return 77;
    }
    return run_stage(stage);
  }
  std::printf("error: no stage '%s'; `ops_check stages` lists them\n", name.c_str());
  return 2;
}

}  // namespace
}  // namespace orrery::ops_check

int main(int argc, char** argv) {
#ifdef ORRERY_EMULATED
  // The vocabulary's arrays are large: ten times as much for what is noted of them.
  if (argc == 2 && std::strcmp(argv[1], "vocabulary") != 0)
    setenv("ORRERY_EMULATOR_GLOBAL_RACES", "1", /*overwrite=*/0);
#endif
  if (argc != 2) {
    std::printf("usage: ops_check STAGE | stages\n");
    return 2;
  }
  try {
    return orrery::ops_check::run_named(argv[1]);
  } catch (const std::exception& error) {
    std::printf("error: %s\n", error.what());
    return 4;
  }
}
