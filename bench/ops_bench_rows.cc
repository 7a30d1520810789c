// Ops on rows: norms, rotary positions, SwiGLU, embedding, copies. They take as
// many rows as a decoding batch and as a group in training. Operands are where the call
// before left them, as they are in a step, where the op before has just written them.
#include <fmt/format.h>

#include <numeric>

#include "bench/ops_bench.h"
#include "bench/turns.h"
#include "kernels/embedding.h"
#include "kernels/rmsnorm.h"
#include "kernels/rope.h"
#include "kernels/rows.h"
#include "kernels/swiglu.h"
#include "tests/kernels/cases/embedding_cases.h"
#include "tests/kernels/cases/rmsnorm_cases.h"
#include "tests/kernels/cases/rope_cases.h"
#include "tests/kernels/cases/rows_cases.h"
#include "tests/kernels/cases/swiglu_cases.h"

namespace orrery::bench {
namespace {

using namespace kernels::cases;

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

void run_rmsnorm_forward(benchmark::State& state, const Machine& machine, const RmsnormCase& c) {
  const int64_t t = c.tokens, d = c.dim;
  const Rows x(t, d, 1), y(t, d, 2), weight(1, d, 3), rstd(1, t, 4);
  const Cost cost = cost_of(4, t * d, x.bytes() + weight.bytes(), y.bytes() + rstd.bytes());
  measure(state, machine, cost, [&] {
    kernels::rmsnorm_forward(
        context_of(machine),
        {.y = y.mat, .rstd = rstd.vec(), .x = x.mat, .weight = weight.vec(), .eps = kEps});
  });
}

void run_rmsnorm_residual(benchmark::State& state, const Machine& machine, const RmsnormCase& c) {
  const int64_t t = c.tokens, d = c.dim;
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

void run_rmsnorm_backward(benchmark::State& state, const Machine& machine, const RmsnormCase& c) {
  const int64_t t = c.tokens, d = c.dim;
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
void run_rmsnorm_heads_forward(benchmark::State& state, const Machine& machine,
                               const RmsnormCase& c) {
  const int64_t cols = c.heads * c.dim;
  const Rows x(c.tokens, cols, 1), y(c.tokens, cols, 2), rstd(c.tokens, c.heads, 3);
  const Rows weight(1, c.dim, 4);
  const Cost cost = cost_of(4, x.mat.size(), x.bytes(), y.bytes() + rstd.bytes());
  measure(state, machine, cost, [&] {
    kernels::rmsnorm_forward(context_of(machine), {.y = y.mat,
                                                   .rstd = rstd.vec(),
                                                   .x = x.mat,
                                                   .weight = weight.vec(),
                                                   .eps = kEps,
                                                   .heads = c.heads});
  });
}

void run_rmsnorm_heads_backward(benchmark::State& state, const Machine& machine,
                                const RmsnormCase& c) {
  const int64_t cols = c.heads * c.dim;
  const Rows x(c.tokens, cols, 1), y(c.tokens, cols, 2), rstd(c.tokens, c.heads, 3);
  const Rows weight(1, c.dim, 4), dweight(1, c.dim, 5);
  const Cost cost = cost_of(9, x.mat.size(), x.bytes() + y.bytes() + rstd.bytes(), y.bytes(),
                            x.bytes() + y.bytes() + rstd.bytes());
  measure(state, machine, cost, [&] {
    kernels::rmsnorm_backward(context_of(machine), {.dx = y.mat,
                                                    .dweight = dweight.vec(),
                                                    .dy = y.mat,
                                                    .x = x.mat,
                                                    .rstd = rstd.vec(),
                                                    .weight = weight.vec(),
                                                    .heads = c.heads});
  });
}

/// Queries and keys, as a layer calls it.
void run_rope_backward(benchmark::State& state, const Machine& machine, const RopeCase& c) {
  const Context ctx = context_of(machine);
  const int64_t t = c.tokens, q_size = c.heads * c.head_dim, kv_size = c.kv_heads * c.head_dim;
  const Rows dqkv(t, q_size + 2 * kv_size, 1);
  const kernels::RopeTable table =
      kernels::build_rope_table({}, {.head_dim = c.head_dim, .scaling = {}}, 2048);
  std::vector<int32_t> positions(static_cast<size_t>(t));
  std::iota(positions.begin(), positions.end(), 0);
  const kernels::RopeBackward op{
      .dx = dqkv.mat.col_range(0, q_size + kv_size),
      .heads = c.heads + c.kv_heads,
      .rotation = {.positions = {positions.data(), t}, .cos = table.cos, .sin = table.sin}};
  const int64_t elements = t * (q_size + kv_size);
  const double bytes = as_bytes(elements), angles = as_bytes(t * c.head_dim);
  measure(state, machine, cost_of(3, elements, bytes + angles, bytes, bytes + angles),
          [&] { kernels::rope_backward(ctx, op); });
}

void run_swiglu_forward(benchmark::State& state, const Machine& machine, const SwigluCase& c) {
  const int64_t t = c.tokens, f = c.width;
  const Rows gate_up(t, 2 * f, 1), out(t, f, 2);
  measure(state, machine, cost_of(kExpFlops + 3, t * f, gate_up.bytes(), out.bytes()), [&] {
    kernels::swiglu_forward(context_of(machine), {.out = out.mat, .gate_up = gate_up.mat});
  });
}

void run_swiglu_backward(benchmark::State& state, const Machine& machine, const SwigluCase& c) {
  const int64_t t = c.tokens, f = c.width;
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
void run_embedding(benchmark::State& state, const Machine& machine, const EmbeddingCase& c,
                   bool backward) {
  const Context ctx = context_of(machine);
  const int64_t t = c.tokens;
  const Rows table(c.vocab, c.dim, 1), rows(t, c.dim, 2);
  const std::vector<int32_t> ids = random_ids(64 * t, c.vocab, 3);
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

enum class Copy { kRange, kGather, kScatterAdd };

/// Rows of a group's hidden states that the head takes, or gives back.
void run_copies(benchmark::State& state, const Machine& machine, const RowsCase& c, Copy copy) {
  const Context ctx = context_of(machine);
  const Rows all(c.from_rows, c.dim, 1), some(c.count, c.dim, 2);
  std::vector<int32_t> rows(static_cast<size_t>(c.count));
  std::iota(rows.begin(), rows.end(), static_cast<int32_t>(c.from_rows - c.count));
  const Vec<const int32_t> which(rows.data(), c.count);
  const bool adds = copy == Copy::kScatterAdd;
  const double bytes = some.bytes();
  const Cost cost =
      cost_of(adds ? 1 : 0, some.mat.size(), (adds ? 2 : 1) * bytes, bytes, 2 * bytes);
  measure(state, machine, cost, [&] {
    switch (copy) {
      case Copy::kRange:
        return kernels::copy_rows(ctx, {.to = some.mat, .from = all.mat.row_range(0, c.count)});
      case Copy::kGather:
        return kernels::gather_rows(ctx, {.to = some.mat, .from = all.mat, .rows = which});
      case Copy::kScatterAdd:
        return kernels::scatter_add_rows(ctx, {.to = all.mat, .from = some.mat, .rows = which});
    }
  });
}

/// Every second row, twice: each call spreads what the one before left.
void run_spread(benchmark::State& state, const Machine& machine, const SpreadCase& c) {
  const Context ctx = context_of(machine);
  const Rows y(c.count, c.dim, 1);
  std::vector<int32_t> source;
  for (int64_t i = 0; i < c.count; ++i) source.push_back(static_cast<int32_t>(i / 2));
  const Cost cost = cost_of(0, y.mat.size(), y.bytes() / 2, y.bytes(), y.bytes());
  measure(state, machine, cost, [&] {
    kernels::spread_rows(ctx, {.y = y.mat, .source = {source.data(), c.count}});
  });
}

void add_rmsnorm(const Registry& registry) {
  for (const RmsnormCase& c : cases_for(kRmsnormCases, kBench)) {
    const auto add = [&](const char* op, auto* run) {
      registry.add(
          fmt::format("{}/{}/T:{}", c.model->name, op, c.tokens),
          [=](benchmark::State& state, const Machine& machine) { run(state, machine, c); });
    };
    const bool backward = (c.use & kBenchBackward) != 0;
    if (c.heads > 1) {
      add("rmsnorm_heads_forward", run_rmsnorm_heads_forward);
      if (backward) add("rmsnorm_heads_backward", run_rmsnorm_heads_backward);
      continue;
    }
    add("rmsnorm_forward", run_rmsnorm_forward);
    add("rmsnorm_residual_forward", run_rmsnorm_residual);
    if (backward) add("rmsnorm_backward", run_rmsnorm_backward);
  }
}

}  // namespace

void add_row_cases(const Registry& registry) {
  add_rmsnorm(registry);
  const auto tokens = [](const char* op) {
    return [=](const auto& c) { return fmt::format("{}/T:{}", op, c.tokens); };
  };
  const auto rows = [](const char* op) {
    return [=](const auto& c) { return fmt::format("{}/R:{}", op, c.count); };
  };
  const auto with = [](auto* run, auto how) {
    return [=](benchmark::State& state, const Machine& machine, const auto& c) {
      run(state, machine, c, how);
    };
  };
  registry.add_table(kRopeCases, kBenchBackward, tokens("rope_backward"), run_rope_backward);
  registry.add_table(kSwigluCases, kBenchForward, tokens("swiglu_forward"), run_swiglu_forward);
  registry.add_table(kSwigluCases, kBenchBackward, tokens("swiglu_backward"), run_swiglu_backward);
  registry.add_table(kEmbeddingCases, kBenchForward, tokens("embedding_forward"),
                     with(run_embedding, false));
  registry.add_table(kEmbeddingCases, kBenchBackward, tokens("embedding_backward"),
                     with(run_embedding, true));
  registry.add_table(kRowsCases, kBenchForward, rows("copy_rows"), with(run_copies, Copy::kRange));
  registry.add_table(kRowsCases, kBenchForward, rows("gather_rows"),
                     with(run_copies, Copy::kGather));
  registry.add_table(kRowsCases, kBenchForward, rows("scatter_add_rows"),
                     with(run_copies, Copy::kScatterAdd));
  registry.add_table(kSpreadCases, kBenchForward, rows("spread_rows"), run_spread);
}

}  // namespace orrery::bench
