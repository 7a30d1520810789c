// Ops on rows of activations: norms, rotary positions, SwiGLU, embedding. They take as
// many rows as a decoding batch and as a group in training. Operands are where the call
// before left them, as they are in a step, where the op before has just written them.
#include <fmt/format.h>

#include <numeric>

#include "bench/ops_bench.h"
#include "bench/turns.h"
#include "kernels/embedding.h"
#include "kernels/rmsnorm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"

namespace orrery::bench {
namespace {

constexpr float kEps = 1e-5f;
constexpr double kExpFlops = 20;  // of the polynomial

struct Rows {
  Buffer memory;
  Mat<float> mat;
  Rows(int64_t rows, int64_t cols, uint32_t seed)
      : memory(random_buffer(rows * cols, seed)), mat(memory.span<float>().data(), rows, cols) {}
  double bytes() const { return as_bytes(mat.size()); }
  Vec<float> vec() const { return as_vec(mat); }
};

/// The cost of `flops` for each of `elements` numbers.
Cost cost_of(double flops, int64_t elements, double read, double written, double working_set = 0) {
  return {flops * static_cast<double>(elements), read, written, working_set};
}

void run_rmsnorm_forward(benchmark::State& state, const Machine& machine, int64_t t, int64_t d) {
  const Rows x(t, d, 1), y(t, d, 2), weight(1, d, 3), rstd(1, t, 4);
  const Cost cost = cost_of(4, t * d, x.bytes() + weight.bytes(), y.bytes() + rstd.bytes());
  measure(state, machine, cost, [&] {
    kernels::rmsnorm_forward(
        context_of(machine),
        {.y = y.mat, .rstd = rstd.vec(), .x = x.mat, .weight = weight.vec(), .eps = kEps});
  });
}

void run_rmsnorm_residual(benchmark::State& state, const Machine& machine, int64_t t, int64_t d) {
  const Rows x(t, d, 1), delta(t, d, 2), h(t, d, 3), y(t, d, 4), weight(1, d, 5), rstd(1, t, 6);
  const Cost cost = cost_of(5, t * d, x.bytes() + delta.bytes() + weight.bytes(),
                            h.bytes() + y.bytes() + rstd.bytes());
  measure(state, machine, cost, [&] {
    kernels::rmsnorm_residual_forward(context_of(machine), {.h = h.mat,
                                                            .y = y.mat,
                                                            .rstd = rstd.vec(),
                                                            .x = x.mat,
                                                            .delta = delta.mat,
                                                            .weight = weight.vec(),
                                                            .eps = kEps});
  });
}

void run_rmsnorm_backward(benchmark::State& state, const Machine& machine, int64_t t, int64_t d) {
  const Rows x(t, d, 1), dy(t, d, 2), dx(t, d, 3), weight(1, d, 4), dweight(1, d, 5), rstd(1, t, 6);
  const Cost cost =
      cost_of(11, t * d, x.bytes() + dy.bytes() + dx.bytes() + 2 * weight.bytes() + rstd.bytes(),
              dx.bytes() + dweight.bytes(), x.bytes() + dy.bytes() + dx.bytes());
  measure(state, machine, cost, [&] {
    kernels::rmsnorm_backward(context_of(machine), {.dx = dx.mat,
                                                    .dweight = dweight.vec(),
                                                    .dy = dy.mat,
                                                    .x = x.mat,
                                                    .rstd = rstd.vec(),
                                                    .weight = weight.vec(),
                                                    .accumulate = true});
  });
}

/// The norm of queries and keys that Qwen3 has.
void run_rmsnorm_heads(benchmark::State& state, const Machine& machine, const ModelShape& model,
                       int64_t t, bool backward) {
  const Rows x(t, model.q_size(), 1), y(t, model.q_size(), 2), rstd(t, model.heads, 3);
  const Rows weight(1, model.head_dim, 4), dweight(1, model.head_dim, 5);
  if (backward) {
    const Cost cost = cost_of(9, x.mat.size(), x.bytes() + y.bytes() + rstd.bytes(), y.bytes(),
                              x.bytes() + y.bytes() + rstd.bytes());
    measure(state, machine, cost, [&] {
      kernels::rmsnorm_backward(context_of(machine), {.dx = y.mat,
                                                      .dweight = dweight.vec(),
                                                      .dy = y.mat,
                                                      .x = x.mat,
                                                      .rstd = rstd.vec(),
                                                      .weight = weight.vec(),
                                                      .heads = model.heads});
    });
    return;
  }
  const Cost cost = cost_of(4, x.mat.size(), x.bytes(), y.bytes() + rstd.bytes());
  measure(state, machine, cost, [&] {
    kernels::rmsnorm_forward(context_of(machine), {.y = y.mat,
                                                   .rstd = rstd.vec(),
                                                   .x = x.mat,
                                                   .weight = weight.vec(),
                                                   .eps = kEps,
                                                   .heads = model.heads});
  });
}

/// Queries and keys, as a layer calls it.
void run_rope(benchmark::State& state, const Machine& machine, const ModelShape& model, int64_t t,
              bool backward) {
  const Context ctx = context_of(machine);
  const Rows qkv(t, model.qkv_size(), 1);
  const kernels::RopeTable table =
      kernels::build_rope_table({}, {.head_dim = model.head_dim, .scaling = {}}, 2048);
  std::vector<int32_t> positions(static_cast<size_t>(t));
  std::iota(positions.begin(), positions.end(), 0);
  const kernels::Rope q{.x = qkv.mat.col_range(0, model.q_size()),
                        .heads = model.heads,
                        .positions = {positions.data(), t},
                        .cos = table.cos,
                        .sin = table.sin};
  kernels::Rope k = q;
  k.x = qkv.mat.col_range(model.q_size(), model.q_size() + model.kv_size());
  k.heads = model.kv_heads;
  const int64_t elements = t * (model.q_size() + model.kv_size());
  const double bytes = as_bytes(elements), angles = as_bytes(t * model.head_dim);
  measure(state, machine, cost_of(3, elements, bytes + angles, bytes, bytes + angles), [&] {
    const auto rotate = backward ? kernels::rope_backward : kernels::rope_forward;
    rotate(ctx, q);
    rotate(ctx, k);
  });
}

void run_swiglu_forward(benchmark::State& state, const Machine& machine, int64_t t, int64_t f) {
  const Rows gate_up(t, 2 * f, 1), out(t, f, 2);
  measure(state, machine, cost_of(kExpFlops + 3, t * f, gate_up.bytes(), out.bytes()), [&] {
    kernels::swiglu_forward(context_of(machine), {.out = out.mat, .gate_up = gate_up.mat});
  });
}

void run_swiglu_backward(benchmark::State& state, const Machine& machine, int64_t t, int64_t f) {
  const Rows gate_up(t, 2 * f, 1), dout(t, f, 2), d_gate_up(t, 2 * f, 3);
  const Cost cost =
      cost_of(kExpFlops + 10, t * f, gate_up.bytes() + dout.bytes(), d_gate_up.bytes());
  measure(state, machine, cost, [&] {
    kernels::swiglu_backward(
        context_of(machine),
        {.d_gate_up = d_gate_up.mat, .dout = dout.mat, .gate_up = gate_up.mat});
  });
}

/// Every call takes other tokens, so that their rows come from wherever a table of this
/// size lies.
void run_embedding(benchmark::State& state, const Machine& machine, const ModelShape& model,
                   int64_t t, bool backward) {
  const Context ctx = context_of(machine);
  const Rows table(model.vocab, model.dim, 1), rows(t, model.dim, 2);
  const std::vector<int32_t> ids = random_ids(64 * t, model.vocab, 3);
  const double touched = std::min(table.bytes(), 64 * rows.bytes());
  const Cost cost = cost_of(backward ? 1 : 0, rows.mat.size(), (backward ? 2 : 1) * rows.bytes(),
                            rows.bytes(), touched + rows.bytes());
  int64_t turn = 0;
  measure(state, machine, cost, [&] {
    const Vec<const int32_t> some(ids.data() + turn++ % 64 * t, t);
    if (backward) {
      kernels::embedding_backward(ctx, {.dtable = table.mat, .dout = rows.mat, .ids = some});
    } else {
      kernels::embedding_forward(ctx, {.out = rows.mat, .table = table.mat, .ids = some});
    }
  });
}

}  // namespace

void add_row_cases(const Registry& registry, const ModelShape& model) {
  const auto add = [&](const char* op, int64_t t, auto run) {
    registry.add(fmt::format("{}/{}/T:{}", model.name, op, t),
                 [=](benchmark::State& state, const Machine& machine) { run(state, machine, t); });
  };
  using State = benchmark::State;
  for (const int64_t t : {kDecodeRows, kGroupTokens}) {
    add("rmsnorm_forward", t, [&](State& s, const Machine& m, int64_t rows) {
      run_rmsnorm_forward(s, m, rows, model.dim);
    });
    add("rmsnorm_residual_forward", t, [&](State& s, const Machine& m, int64_t rows) {
      run_rmsnorm_residual(s, m, rows, model.dim);
    });
    add("rmsnorm_heads_forward", t, [&](State& s, const Machine& m, int64_t rows) {
      run_rmsnorm_heads(s, m, model, rows, false);
    });
    add("rope_forward", t,
        [&](State& s, const Machine& m, int64_t rows) { run_rope(s, m, model, rows, false); });
    add("swiglu_forward", t, [&](State& s, const Machine& m, int64_t rows) {
      run_swiglu_forward(s, m, rows, model.ffn);
    });
    add("embedding_forward", t,
        [&](State& s, const Machine& m, int64_t rows) { run_embedding(s, m, model, rows, false); });
  }
  add("rmsnorm_backward", kGroupTokens, [&](State& s, const Machine& m, int64_t rows) {
    run_rmsnorm_backward(s, m, rows, model.dim);
  });
  add("rmsnorm_heads_backward", kGroupTokens, [&](State& s, const Machine& m, int64_t rows) {
    run_rmsnorm_heads(s, m, model, rows, true);
  });
  add("rope_backward", kGroupTokens,
      [&](State& s, const Machine& m, int64_t rows) { run_rope(s, m, model, rows, true); });
  add("swiglu_backward", kGroupTokens, [&](State& s, const Machine& m, int64_t rows) {
    run_swiglu_backward(s, m, rows, model.ffn);
  });
  add("embedding_backward", kGroupTokens,
      [&](State& s, const Machine& m, int64_t rows) { run_embedding(s, m, model, rows, true); });
}

}  // namespace orrery::bench
