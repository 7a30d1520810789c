// Matrix products of a layer and of the head, packing, and the bias's gradient. A
// forward product of a layer takes another copy of its weight in each call, as a
// model's layers do, so that weights come from memory.
#include <fmt/format.h>

#include "bench/ops_bench.h"
#include "bench/turns.h"
#include "kernels/matmul.h"

namespace orrery::bench {
namespace {

struct Product {
  const char* name;
  int64_t n, k;
  bool head = false;
};

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

void run_product(benchmark::State& state, const Machine& machine, Op op, const ModelShape& model,
                 const Product& product, int64_t m, DType dtype) {
  const Context ctx = context_of(machine);
  const int64_t n = product.n, k = product.k;
  const auto weight_bytes =
      static_cast<double>(kernels::packed_weight_bytes(Device{}, dtype, n, k));
  const Buffer x = random_buffer(m * k, 1), y = random_buffer(m * n, 3);
  const Mat<float> x_mat(x.span<float>().data(), m, k), y_mat(y.span<float>().data(), m, n);
  const double x_bytes = as_bytes(m * k), y_bytes = as_bytes(m * n);
  Cost cost;
  cost.flops = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  if (op == Op::kBackwardWeight) {
    const Buffer dw = random_buffer(n * k, 4);
    cost.read = x_bytes + y_bytes + as_bytes(n * k);
    cost.written = as_bytes(n * k);
    cost.working_set = cost.read;
    measure(state, machine, cost, [&] {
      kernels::matmul_backward_weight(
          ctx, {.dw = Mat<float>(dw.span<float>().data(), n, k), .dy = y_mat, .x = x_mat});
    });
    return;
  }
  const int64_t copies = product.head ? 1 : cold_copies(model, weight_bytes);
  const Weights weights(ctx, dtype, n, k, copies);
  const bool forward = op == Op::kForward;
  cost.read = weight_bytes + (forward ? x_bytes : y_bytes);
  cost.written = forward ? y_bytes : x_bytes;
  cost.working_set = weight_bytes * static_cast<double>(copies) + x_bytes + y_bytes;
  size_t turn = 0;
  measure(state, machine, cost, [&] {
    const kernels::PackedWeight& w = weights.packed[turn++ % weights.packed.size()];
    if (forward) {
      kernels::matmul_forward(ctx, {.y = y_mat, .x = x_mat, .weight = w});
    } else {
      kernels::matmul_backward_input(ctx, {.dx = x_mat, .dy = y_mat, .weight = w});
    }
  });
}

void run_pack(benchmark::State& state, const Machine& machine, const Product& product,
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

void run_bias(benchmark::State& state, const Machine& machine, int64_t n) {
  const Buffer dy = random_buffer(kGroupTokens * n, 1), db = random_buffer(n, 2);
  Cost cost{.flops = static_cast<double>(kGroupTokens * n),
            .read = as_bytes(kGroupTokens * n + n),
            .written = as_bytes(n)};
  cost.working_set = cost.read;
  measure(state, machine, cost, [&] {
    kernels::bias_backward(context_of(machine),
                           {.db = {db.span<float>().data(), n},
                            .dy = Mat<const float>(dy.span<float>().data(), kGroupTokens, n)});
  });
}

}  // namespace

void add_matmul_cases(const Registry& registry, const ModelShape& model) {
  const Product products[] = {{"qkv", model.qkv_size(), model.dim},
                              {"out", model.dim, model.q_size()},
                              {"gate_up", 2 * model.ffn, model.dim},
                              {"down", model.dim, model.ffn},
                              {"head", model.vocab, model.dim, true}};
  const auto add = [&](const char* op_name, Op op, const Product& product, int64_t m, DType dtype) {
    registry.add(
        fmt::format("{}/{}{}/{}/M:{}/N:{}/K:{}", model.name, op_name,
                    dtype == DType::kBF16 ? "_bf16" : "", product.name, m, product.n, product.k),
        [=, &model](benchmark::State& state, const Machine& machine) {
          run_product(state, machine, op, model, product, m, dtype);
        });
  };
  for (const Product& product : products) {
    for (const int64_t m : {int64_t{1}, int64_t{8}, kDecodeRows, int64_t{512}}) {
      add("matmul_forward", Op::kForward, product, m, DType::kF32);
    }
    add("matmul_forward", Op::kForward, product, 1, DType::kBF16);
    add("matmul_backward_input", Op::kBackwardInput, product, kGroupTokens, DType::kF32);
    add("matmul_backward_weight", Op::kBackwardWeight, product, kGroupTokens, DType::kF32);
  }
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const Product& product : {products[2], products[4]}) {
      registry.add(fmt::format("{}/pack_weight{}/{}", model.name,
                               dtype == DType::kBF16 ? "_bf16" : "", product.name),
                   [=](benchmark::State& state, const Machine& machine) {
                     run_pack(state, machine, product, dtype);
                   });
    }
  }
  registry.add(fmt::format("{}/bias_backward/T:{}", model.name, kGroupTokens),
               [&model](benchmark::State& state, const Machine& machine) {
                 run_bias(state, machine, model.qkv_size());
               });
}

}  // namespace orrery::bench
