#include "kernels/cpu/rmsnorm.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rmsnorm.cc"
#include "kernels/cpu/targets.h"
// After targets.h.
#include "hwy/foreach_target.h"
#include "kernels/cpu/host.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

/// Sum of squares of x, or of h = x + delta, which is then stored.
template <bool kResidual>
HWY_INLINE float sum_of_squares(const float* x, const float* delta, float* h, int64_t dim) {
  Lanes acc = set16(0.0f);
  for_each16(dim, [&](int64_t i, auto io) HWY_ATTR {
    Lanes v = io.load(x + i);
    if constexpr (kResidual) {
      v = add(v, io.load(delta + i));
      io.store(h + i, v);
    }
    acc = mul_add(v, v, acc);
  });
  return sum16(acc);
}

void rmsnorm_tokens(const cpu::NormVectors& op, int64_t begin, int64_t end) {
  const int64_t dim = op.x.head_dim;
  const bool residual = op.delta.data != nullptr;
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t head = 0; head < op.x.heads; ++head) {
      const float* x = cpu::at(op.x, t, head);
      float sum = 0.0f;
      if (residual) {
        float* h = cpu::at(op.h, t, head);
        sum = sum_of_squares<true>(x, cpu::at(op.delta, t, head), h, dim);
        x = h;
      } else {
        sum = sum_of_squares<false>(x, nullptr, nullptr, dim);
      }
      const float rstd = 1.0f / std::sqrt(sum / static_cast<float>(dim) + op.eps);
      if (op.rstd != nullptr) op.rstd[t * op.x.heads + head] = rstd;
      float* y = cpu::at(op.y, t, head);
      const Lanes scale = set16(rstd);
      for_each16(dim, [&](int64_t i, auto io) HWY_ATTR {
        io.store(y + i, mul(mul(io.load(x + i), scale), io.load(op.weight + i)));
      });
    }
  }
}

void rmsnorm_tokens_backward(const cpu::NormGradients& op, int64_t begin, int64_t end) {
  const int64_t dim = op.x.head_dim;
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t head = 0; head < op.x.heads; ++head) {
      const float* x = cpu::at(op.x, t, head);
      const float* dy = cpu::at(op.dy, t, head);
      float* dx = cpu::at(op.dx, t, head);
      const float rstd = op.rstd[t * op.x.heads + head];
      Lanes acc = set16(0.0f);
      for_each16(dim, [&](int64_t i, auto io) HWY_ATTR {
        // Missing elements give -0, which leaves every sum as it is, -0 included.
        const Lanes g = mul(io.load(dy + i, -0.0f), io.load(op.weight + i, 1.0f));
        acc = mul_add(g, io.load(x + i, 1.0f), acc);
      });
      const Lanes along = set16(sum16(acc) / static_cast<float>(dim) * rstd * rstd);
      const Lanes scale = set16(rstd);
      for_each16(dim, [&](int64_t i, auto io) HWY_ATTR {
        const Lanes g = mul(io.load(dy + i), io.load(op.weight + i));
        const Lanes across = neg_mul_add(along, io.load(x + i), g);
        io.store(dx + i,
                 op.accumulate ? mul_add(across, scale, io.load(dx + i)) : mul(across, scale));
      });
    }
  }
}

/// dweight of columns [begin, end): a chain over tokens and heads.
void rmsnorm_columns_backward(const cpu::NormGradients& op, int64_t begin, int64_t end) {
  for (int64_t t = 0; t < op.x.tokens; ++t) {
    for (int64_t head = 0; head < op.x.heads; ++head) {
      const float* x = cpu::at(op.x, t, head) + begin;
      const float* dy = cpu::at(op.dy, t, head) + begin;
      float* dweight = op.dweight + begin;
      const Lanes scale = set16(op.rstd[t * op.x.heads + head]);
      for_each16(end - begin, [&](int64_t i, auto io) HWY_ATTR {
        const Lanes normed = mul(io.load(x + i), scale);
        io.store(dweight + i, mul_add(io.load(dy + i), normed, io.load(dweight + i)));
      });
    }
  }
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/cpu/columns.h"

namespace orrery::kernels::cpu {
HWY_EXPORT(rmsnorm_tokens);
HWY_EXPORT(rmsnorm_tokens_backward);
HWY_EXPORT(rmsnorm_columns_backward);

namespace {

Heads<float> vectors(const ActMat& m, int64_t heads) { return as_heads(m.as<float>(), heads); }
Heads<const float> vectors(const ConstActMat& m, int64_t heads) {
  return as_heads(m.as<const float>(), heads);
}

/// Tokens that are worth a thread.
int64_t token_grain(const Heads<const float>& x) {
  return kStreamGrain / std::max<int64_t>(x.heads * x.head_dim, 1);
}

void norm_vectors(const Context& ctx, const NormVectors& norm) {
  parallel_for(ctx, norm.x.tokens, token_grain(norm.x), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(rmsnorm_tokens)(norm, begin, end);
  });
}

}  // namespace

void rmsnorm_forward(const Context& ctx, const RmsnormForward& op) {
  norm_vectors(ctx, {.y = vectors(op.y, op.heads),
                     .x = vectors(op.x, op.heads),
                     .rstd = op.rstd.data,
                     .weight = op.weight.data,
                     .eps = op.eps});
}

void rmsnorm_residual_forward(const Context& ctx, const RmsnormResidualForward& op) {
  norm_vectors(ctx, {.y = vectors(op.y, 1),
                     .h = vectors(op.h, 1),
                     .x = vectors(op.x, 1),
                     .delta = vectors(op.delta, 1),
                     .rstd = op.rstd.data,
                     .weight = op.weight.data,
                     .eps = op.eps});
}

void rmsnorm_backward(const Context& ctx, const RmsnormBackward& op) {
  const NormGradients norm{.dx = vectors(op.dx, op.heads),
                           .dy = vectors(op.dy, op.heads),
                           .x = vectors(op.x, op.heads),
                           .dweight = op.dweight.data,
                           .rstd = op.rstd.data,
                           .weight = op.weight.data,
                           .accumulate = op.accumulate};
  // dweight first: it needs dy, which dx may overwrite.
  parallel_columns(ctx, norm.x.tokens * norm.x.heads, norm.x.head_dim,
                   [&](int64_t begin, int64_t end) {
                     HWY_DYNAMIC_DISPATCH(rmsnorm_columns_backward)(norm, begin, end);
                   });
  parallel_for(ctx, norm.x.tokens, token_grain(norm.x), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(rmsnorm_tokens_backward)(norm, begin, end);
  });
}

}  // namespace orrery::kernels::cpu
#endif
