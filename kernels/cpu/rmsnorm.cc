#include "kernels/cpu/rmsnorm.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rmsnorm.cc"
#include "kernels/cpu/targets.h"
// After targets.h.
#include "hwy/foreach_target.h"
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

void rmsnorm_tokens(const RmsnormForward& op, int64_t begin, int64_t end) {
  const int64_t dim = op.x.head_dim;
  const bool residual = op.delta.data != nullptr;
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t head = 0; head < op.x.heads; ++head) {
      const float* x = op.x.at(t, head);
      float sum = 0.0f;
      if (residual) {
        float* h = op.h.at(t, head);
        sum = sum_of_squares<true>(x, op.delta.at(t, head), h, dim);
        x = h;
      } else {
        sum = sum_of_squares<false>(x, nullptr, nullptr, dim);
      }
      const float rstd = 1.0f / std::sqrt(sum / static_cast<float>(dim) + op.eps);
      if (op.rstd.data != nullptr) op.rstd.row(t)[head] = rstd;
      float* y = op.y.at(t, head);
      const Lanes scale = set16(rstd);
      for_each16(dim, [&](int64_t i, auto io) HWY_ATTR {
        io.store(y + i, mul(mul(io.load(x + i), scale), io.load(op.weight + i)));
      });
    }
  }
}

void rmsnorm_tokens_backward(const RmsnormBackward& op, int64_t begin, int64_t end) {
  const int64_t dim = op.x.head_dim;
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t head = 0; head < op.x.heads; ++head) {
      const float* x = op.x.at(t, head);
      const float* dy = op.dy.at(t, head);
      float* dx = op.dx.at(t, head);
      const float rstd = op.rstd.row(t)[head];
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
void rmsnorm_columns_backward(const RmsnormBackward& op, int64_t begin, int64_t end) {
  for (int64_t t = 0; t < op.x.tokens; ++t) {
    for (int64_t head = 0; head < op.x.heads; ++head) {
      const float* x = op.x.at(t, head) + begin;
      const float* dy = op.dy.at(t, head) + begin;
      float* dweight = op.dweight + begin;
      const Lanes scale = set16(op.rstd.row(t)[head]);
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

namespace orrery::kernels {
HWY_EXPORT(rmsnorm_tokens);
HWY_EXPORT(rmsnorm_tokens_backward);
HWY_EXPORT(rmsnorm_columns_backward);

void rmsnorm_forward_cpu(const Context& ctx, const RmsnormForward& op) {
  parallel_for(ctx, op.x.tokens, kStreamGrain / std::max<int64_t>(op.x.heads * op.x.head_dim, 1),
               [&](int64_t begin, int64_t end) {
                 HWY_DYNAMIC_DISPATCH(rmsnorm_tokens)
                 (op, begin, end);
               });
}

void rmsnorm_backward_cpu(const Context& ctx, const RmsnormBackward& op) {
  // dweight first: it needs dy, which dx may overwrite.
  parallel_columns(ctx, op.x.tokens * op.x.heads, op.x.head_dim, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(rmsnorm_columns_backward)(op, begin, end);
  });
  parallel_for(ctx, op.x.tokens, kStreamGrain / std::max<int64_t>(op.x.heads * op.x.head_dim, 1),
               [&](int64_t begin, int64_t end) {
                 HWY_DYNAMIC_DISPATCH(rmsnorm_tokens_backward)(op, begin, end);
               });
}

}  // namespace orrery::kernels
#endif
