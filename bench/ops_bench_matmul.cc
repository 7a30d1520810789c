// Matrix products of a layer and of the head, packing, and the bias's gradient. A
// forward product of a layer takes another copy of its weight in each call, as a
// model's layers do, so that weights come from memory.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "bench/ops_bench.h"
#include "bench/turns.h"
#include "kernels/matmul.h"
#include "tests/kernels/cases/matmul_cases.h"

namespace orrery::bench {
namespace {

using namespace kernels::cases;

enum class Op { kForward, kBackwardInput, kBackwardWeight };

/// A packed weight, or as many copies of it as make it come from memory.
struct Weights {
  std::vector<Buffer> memory;
  std::vector<kernels::PackedWeight> packed;

  Weights(const Context& ctx, DType dtype, int64_t n, int64_t k, int64_t copies) {
    const Buffer plain = random_buffer(n * k, 2);
    for (int64_t i = 0; i < copies; ++i) {
      memory.emplace_back(Device{}, kernels::packed_weight_bytes(Device{}, dtype, n, k));
      packed.push_back(
          kernels::pack_weight(ctx, {.weight = Mat<const float>(plain.span<float>().data(), n, k),
                                     .dtype = dtype,
                                     .memory = memory.back().data()}));
    }
  }
};

/// A matrix of activations that owns its memory.
struct Activations {
  Buffer memory;
  ActMat mat;

  Activations(DType dtype, int64_t rows, int64_t cols, uint32_t seed)
      : memory(random_buffer(rows * cols, seed)), mat(memory.data(), dtype, rows, cols, cols) {
    if (dtype != DType::kBF16) return;
    const Span<const float> values = memory.span<float>();
    Buffer rounded(Device{}, static_cast<size_t>(values.size()) * sizeof(Bf16));
    std::transform(values.begin(), values.end(), rounded.span<Bf16>().begin(), to_bf16);
    memory = std::move(rounded);
    mat.data = memory.data();
  }
  double bytes() const { return static_cast<double>(memory.bytes()); }
};

void run_product(benchmark::State& state, const Machine& machine, Op op, const ProductCase& product,
                 int64_t m, DType dtype) {
  const Context ctx = context_of(machine);
  const int64_t n = product.n, k = product.k;
  const auto weight_bytes =
      static_cast<double>(kernels::packed_weight_bytes(Device{}, dtype, n, k));
  const Activations x(dtype, m, k, 1), y(dtype, m, n, 3);
  const double x_bytes = x.bytes(), y_bytes = y.bytes();
  Cost cost;
  cost.flops = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  if (op == Op::kBackwardWeight) {
    const Buffer dw = random_buffer(n * k, 4);
    cost.read = x_bytes + y_bytes + as_bytes(n * k);
    cost.written = as_bytes(n * k);
    cost.working_set = cost.read;
    measure(state, machine, cost, [&] {
      kernels::matmul_backward_weight(
          ctx, {.dw = Mat<float>(dw.span<float>().data(), n, k), .dy = y.mat, .x = x.mat});
    });
    return;
  }
  // The head is one weight, not one a layer.
  const bool head = n == product.model->vocab;
  const int64_t copies = head ? 1 : cold_copies(*product.model, weight_bytes);
  const Weights weights(ctx, dtype, n, k, copies);
  const bool forward = op == Op::kForward;
  cost.read = weight_bytes + (forward ? x_bytes : y_bytes);
  cost.written = forward ? y_bytes : x_bytes;
  cost.working_set = weight_bytes * static_cast<double>(copies) + x_bytes + y_bytes;
  size_t turn = 0;
  measure(state, machine, cost, [&] {
    const kernels::PackedWeight& w = weights.packed[turn++ % weights.packed.size()];
    if (forward) {
      kernels::matmul_forward(ctx, {.y = y.mat, .x = x.mat, .weight = w});
    } else {
      kernels::matmul_backward_input(ctx, {.dx = x.mat, .dy = y.mat, .weight = w});
    }
  });
}

void run_pack(benchmark::State& state, const Machine& machine, const PackCase& product,
              DType dtype) {
  const Context ctx = context_of(machine);
  const int64_t n = product.n, k = product.k;
  const Buffer plain = random_buffer(n * k, 1);
  const Buffer packed(Device{}, kernels::packed_weight_bytes(Device{}, dtype, n, k));
  const Cost cost{.read = as_bytes(n * k), .written = static_cast<double>(packed.bytes())};
  measure(state, machine, cost, [&] {
    kernels::pack_weight(ctx, {.weight = Mat<const float>(plain.span<float>().data(), n, k),
                               .dtype = dtype,
                               .memory = packed.data()});
  });
}

void run_bias(benchmark::State& state, const Machine& machine, const BiasCase& c) {
  const int64_t m = c.m, n = c.n;
  const Buffer dy = random_buffer(m * n, 1), db = random_buffer(n, 2);
  Cost cost{
      .flops = static_cast<double>(m * n), .read = as_bytes(m * n + n), .written = as_bytes(n)};
  cost.working_set = cost.read;
  measure(state, machine, cost, [&] {
    kernels::bias_backward(context_of(machine),
                           {.db = {db.span<float>().data(), n},
                            .dy = Mat<const float>(dy.span<float>().data(), m, n)});
  });
}

}  // namespace

void add_matmul_cases(const Registry& registry) {
  const auto suffix = [](DType dtype) { return dtype == DType::kBF16 ? "_bf16" : ""; };
  const auto add = [&](const char* name, Op op, const ProductCase& c, int64_t m, DType dtype) {
    registry.add(fmt::format("{}/{}{}/{}/M:{}/N:{}/K:{}", c.model->name, name, suffix(dtype),
                             c.name, m, c.n, c.k),
                 [=](benchmark::State& state, const Machine& machine) {
                   run_product(state, machine, op, c, m, dtype);
                 });
  };
  for (const ProductCase& c : cases_for(kProductCases, kBench)) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const int64_t m : kMatmulBenchRows) add("matmul_forward", Op::kForward, c, m, dtype);
      add("matmul_backward_input", Op::kBackwardInput, c, kGroupTokens, dtype);
      add("matmul_backward_weight", Op::kBackwardWeight, c, kGroupTokens, dtype);
    }
  }
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    registry.add_table(
        kPackCases, kBenchForward,
        [=](const PackCase& c) { return fmt::format("pack_weight{}/{}", suffix(dtype), c.name); },
        [=](benchmark::State& state, const Machine& machine, const PackCase& c) {
          run_pack(state, machine, c, dtype);
        });
  }
  registry.add_table(
      kBiasCases, kBenchBackward,
      [](const BiasCase& c) { return fmt::format("bias_backward/T:{}", c.m); }, run_bias);
}

}  // namespace orrery::bench
