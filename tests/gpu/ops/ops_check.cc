// The ops on the GPU against the CPU's, bit for bit: the case tables' rows, and shapes
// of a model of 0.5B parameters with the GPU's times. One stage a call, so that an
// error of the device ends that stage alone:
//   ops_check STAGE
// Exit code 0: no bit differs; 1: some do; 3: an error of CUDA; 77: no device.
#include <cstring>

#include "core/parallel.h"
#include "kernels/numerics.h"
#include "tests/gpu/ops/cases.h"
#include "tests/gpu/ops/large.h"
#include "tests/gpu/ops/large_attention.h"

namespace orrery::ops_check {

void tune();

namespace {

Context cpu_context() {
  Context ctx;
  ctx.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return ctx;
}

Context gpu_context() { return {.device = {DeviceType::kCuda}}; }

template <class Row, size_t kRows>
void walk(Results& results, const Row (&table)[kRows], void (*on_cpu)(Arrays&, const Row&),
          void (*on_gpu)(Arrays&, const Row&)) {
  for (const Row& row : table) {
    if ((row.use & kTest) == 0) continue;
    std::vector<Arrays::Snapshot> snapshots;
    {
      Arrays arrays(cpu_context(), row.seed, &snapshots, nullptr, nullptr, row.name);
      on_cpu(arrays, row);
    }
    Arrays arrays(gpu_context(), row.seed, nullptr, &snapshots, &results, row.name);
    on_gpu(arrays, row);
  }
}

#define ORRERY_WALK(table) walk(results, table, run<Cpu>, run<Cuda>)
#define ORRERY_WALK_BY(table, run) walk(results, table, run<Cpu>, run<Cuda>)

void report(const Results& results) {
  std::printf("\n| op | cases | elements | differing | failed cases |\n|---|---|---|---|---|\n");
  for (const auto& [op, r] : results) {
    std::printf("| %-24s | %4lld | %11lld | %9lld | %4lld |\n", op.c_str(),
                static_cast<long long>(r.cases), static_cast<long long>(r.elements),
                static_cast<long long>(r.differing), static_cast<long long>(r.failed_cases));
    if (!r.first.empty()) std::printf("    ^ %s\n", r.first.c_str());
  }
  std::fflush(stdout);
}

int run_stage(const std::string& stage) {
  Results results;
  Bench bench{.cpu = cpu_context(), .gpu = gpu_context(), .results = &results};
  if (stage == "tune") {
    tune();
    return 0;
  }
  if (stage == "device") {
    cudaDeviceProp device{};
    require(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
    int driver = 0;
    require(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
    std::printf("%s, compute capability %d.%d, %d multiprocessors, driver %d; CPU %s, %d threads\n",
                device.name, device.major, device.minor, device.multiProcessorCount, driver,
                cpu_target_name().c_str(), cpu_context().threads);
    return 0;
  }
  if (stage == "products") {
    ORRERY_WALK(kMatmulCases);
    ORRERY_WALK(kEdgeProducts);
    ORRERY_WALK(kPackCases);
    ORRERY_WALK(kBiasCases);
  } else if (stage == "large_products") {
    large_products(bench);
  } else if (stage == "rows") {
    ORRERY_WALK(kRmsnormCases);
    ORRERY_WALK(kRopeCases);
    ORRERY_WALK(kSwigluCases);
    ORRERY_WALK(kEmbeddingCases);
    ORRERY_WALK(kRowsCases);
    ORRERY_WALK(kSpreadCases);
  } else if (stage == "flat") {
    ORRERY_WALK(kTreeSumCases);
    ORRERY_WALK_BY(kFillCases, run_fill);
    ORRERY_WALK_BY(kAccumulateCases, run_accumulate);
    ORRERY_WALK_BY(kAdamwCases, run_adamw);
    ORRERY_WALK_BY(kSumSquaresCases, run_sum_squares);
    ORRERY_WALK_BY(kChecksumCases, run_checksum);
    ORRERY_WALK_BY(kMaxAbsCases, run_max_abs);
  } else if (stage == "vocabulary") {
    ORRERY_WALK(kLogprobCases);
    ORRERY_WALK(kLmHeadCases);
  } else if (stage == "large_rows") {
    large_rows(bench);
  } else if (stage == "large_vocabulary") {
    large_vocabulary(bench);
  } else if (stage == "kv") {
    ORRERY_WALK(kKvCopyCases);
    ORRERY_WALK(kKvClearCases);
  } else if (stage == "attention_forward") {
    ORRERY_WALK(kAttentionCases);
  } else if (stage == "large_attention") {
    large_attention(bench);
  } else if (stage == "attention_backward") {
    ORRERY_WALK(kAttentionTreeCases);
  } else if (stage == "sampling") {
    ORRERY_WALK(kSamplingCases);
  } else if (stage == "large_sampling") {
    large_sampling(bench);
  } else {
    std::printf("no stage '%s'\n", stage.c_str());
    return 2;
  }
  report(results);
  int64_t differing = 0;
  for (const auto& [op, r] : results) differing += r.differing;
  return differing == 0 ? 0 : 1;
}

}  // namespace
}  // namespace orrery::ops_check

int main(int argc, char** argv) {
  if (argc != 2) {
    std::printf("usage: ops_check STAGE\n");
    return 2;
  }
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return 77;
  }
  try {
    return orrery::ops_check::run_stage(argv[1]);
  } catch (const std::exception& error) {
    std::printf("error: %s\n", error.what());
    return 4;
  }
}
