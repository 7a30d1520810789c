#include "kernels/cpu/rmsnorm.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rmsnorm.cc"
#include "kernels/cpu/targets.h"
// After targets.h.
#include "hwy/foreach_target.h"
#include "kernels/cpu/columns.h"
#include "kernels/cpu/host.h"
#include "kernels/cpu/lanes_sum-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

/// Sum of squares of x, or of h = x + delta, which is then stored.
template <bool kResidual, class X>
HWY_INLINE float sum_of_squares(const X* x, const float* delta, float* h, int64_t dim,
                                NumericsClass numerics) {
  return lanes_sum(numerics, dim, [&](int64_t i, auto io, Lanes acc) HWY_ATTR {
    Lanes v = io.load(x + i);
    if constexpr (kResidual) {
      v = add(v, io.load(delta + i));
      io.store(h + i, v);
    }
    return mul_add(v, v, acc);
  });
}

/// y = x * rstd * weight; returns rstd.
template <class X, class Y>
HWY_INLINE float scale_by_rstd(Y* y, const X* x, float sum, const cpu::NormVectors& op,
                               int64_t dim) {
  const float rstd = 1.0f / std::sqrt(sum / static_cast<float>(dim) + op.eps);
  const Lanes scale = set16(rstd);
  const float* const weight = op.weight;
  for_each16(dim, [&](int64_t i, auto io) HWY_ATTR {
    io.store(y + i, mul(mul(io.load(x + i), scale), io.load(weight + i)));
  });
  return rstd;
}

template <class X, class Y>
HWY_INLINE void norm_tokens(const cpu::NormVectors& op, int64_t begin, int64_t end) {
  const auto xs = as_heads(op.x.as<const X>(), op.heads);
  const auto ys = as_heads(op.y.as<Y>(), op.heads);
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t head = 0; head < op.heads; ++head) {
      const X* const x = cpu::at(xs, t, head);
      const float sum = sum_of_squares<false, X>(x, nullptr, nullptr, xs.head_dim, op.numerics);
      const float rstd = scale_by_rstd(cpu::at(ys, t, head), x, sum, op, xs.head_dim);
      if (op.rstd != nullptr) op.rstd[t * op.heads + head] = rstd;
    }
  }
}

template <class Y>
HWY_INLINE void norm_residual_tokens(const cpu::NormVectors& op, int64_t begin, int64_t end) {
  const auto xs = op.x.as<const float>();
  const auto ys = op.y.as<Y>();
  for (int64_t t = begin; t < end; ++t) {
    float* const h = cpu::row(op.h, t);
    const float sum = sum_of_squares<true, float>(cpu::row(xs, t), cpu::row(op.delta, t), h,
                                                  xs.cols, op.numerics);
    const float rstd = scale_by_rstd<float>(cpu::row(ys, t), h, sum, op, xs.cols);
    if (op.rstd != nullptr) op.rstd[t] = rstd;
  }
}

void rmsnorm_tokens(const cpu::NormVectors& op, int64_t begin, int64_t end) {
  const bool rounds = op.y.dtype == DType::kBF16;
  if (op.delta.data != nullptr) {
    rounds ? norm_residual_tokens<Bf16>(op, begin, end)
           : norm_residual_tokens<float>(op, begin, end);
  } else if (op.x.dtype == DType::kBF16) {
    norm_tokens<Bf16, Bf16>(op, begin, end);
  } else {
    rounds ? norm_tokens<float, Bf16>(op, begin, end) : norm_tokens<float, float>(op, begin, end);
  }
}

/// The gradient of one vector. With kRounded it is stored to `rounded` too.
template <bool kAccumulate, bool kRounded, class T>
HWY_INLINE void norm_vector_backward(T* dx, Bf16* rounded, const T* dy, const T* x,
                                     const float* weight, float rstd, int64_t dim,
                                     NumericsClass numerics) {
  const float sum = lanes_sum(numerics, dim, [&](int64_t i, auto io, Lanes acc) HWY_ATTR {
    // Missing elements give -0, which leaves every sum as it is, -0 included.
    const Lanes g = mul(io.load(dy + i, -0.0f), io.load(weight + i, 1.0f));
    return mul_add(g, io.load(x + i, 1.0f), acc);
  });
  const Lanes along = set16(sum / static_cast<float>(dim) * rstd * rstd);
  const Lanes scale = set16(rstd);
  for_each16(dim, [&](int64_t i, auto io) HWY_ATTR {
    const Lanes g = mul(io.load(dy + i), io.load(weight + i));
    const Lanes across = neg_mul_add(along, io.load(x + i), g);
    Lanes d = mul(across, scale);
    if constexpr (kAccumulate) d = mul_add(across, scale, io.load(dx + i));
    io.store(dx + i, d);
    if constexpr (kRounded) io.store(rounded + i, d);
  });
}

template <bool kAccumulate, bool kRounded, class T>
HWY_INLINE void norm_tokens_backward(const RmsnormBackward& op, int64_t begin, int64_t end) {
  const auto xs = as_heads(op.x.as<const T>(), op.heads);
  const auto dys = as_heads(op.dy.as<const T>(), op.heads);
  const auto dxs = as_heads(op.dx.as<T>(), op.heads);
  Heads<Bf16> rounded;
  if constexpr (kRounded) rounded = as_heads(op.dx_rounded.as<Bf16>(), op.heads);
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t head = 0; head < op.heads; ++head) {
      norm_vector_backward<kAccumulate, kRounded>(
          cpu::at(dxs, t, head), kRounded ? cpu::at(rounded, t, head) : nullptr,
          cpu::at(dys, t, head), cpu::at(xs, t, head), op.weight.data,
          op.rstd.data[t * op.heads + head], xs.head_dim, op.numerics);
    }
  }
}

void rmsnorm_tokens_backward(const RmsnormBackward& op, int64_t begin, int64_t end) {
  const bool rounds = op.dx_rounded.data != nullptr;
  if (op.x.dtype == DType::kBF16) {
    norm_tokens_backward<false, false, Bf16>(op, begin, end);
  } else if (op.accumulate) {
    rounds ? norm_tokens_backward<true, true, float>(op, begin, end)
           : norm_tokens_backward<true, false, float>(op, begin, end);
  } else {
    rounds ? norm_tokens_backward<false, true, float>(op, begin, end)
           : norm_tokens_backward<false, false, float>(op, begin, end);
  }
}

template <class T>
HWY_INLINE void norm_columns_backward(const RmsnormBackward& op, float* dweight, cpu::Rows rows,
                                      int64_t begin, int64_t end) {
  const auto xs = as_heads(op.x.as<const T>(), op.heads);
  const auto dys = as_heads(op.dy.as<const T>(), op.heads);
  for (int64_t t = rows.begin; t < rows.end; ++t) {
    for (int64_t head = 0; head < op.heads; ++head) {
      const T* x = cpu::at(xs, t, head) + begin;
      const T* dy = cpu::at(dys, t, head) + begin;
      const Lanes scale = set16(op.rstd.data[t * op.heads + head]);
      for_each16(end - begin, [&](int64_t i, auto io) HWY_ATTR {
        const Lanes normed = mul(io.load(x + i), scale);
        io.store(dweight + i, mul_add(io.load(dy + i), normed, io.load(dweight + i)));
      });
    }
  }
}

/// dweight of columns [begin, end): a chain over tokens and heads, from what is there.
void rmsnorm_columns_backward(const RmsnormBackward& op, float* dweight, cpu::Rows rows,
                              int64_t begin, int64_t end) {
  op.x.dtype == DType::kBF16 ? norm_columns_backward<Bf16>(op, dweight, rows, begin, end)
                             : norm_columns_backward<float>(op, dweight, rows, begin, end);
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace orrery::kernels::cpu {
HWY_EXPORT(rmsnorm_tokens);
HWY_EXPORT(rmsnorm_tokens_backward);
HWY_EXPORT(rmsnorm_columns_backward);

namespace {

/// Tokens that are worth a thread.
int64_t token_grain(const ConstActMat& x) { return kStreamGrain / std::max<int64_t>(x.cols, 1); }

void norm_vectors(const Context& ctx, const NormVectors& norm) {
  parallel_for(ctx, norm.x.rows, token_grain(norm.x), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(rmsnorm_tokens)(norm, begin, end);
  });
}

}  // namespace

void rmsnorm_forward(const Context& ctx, const RmsnormForward& op) {
  norm_vectors(ctx, {.y = op.y,
                     .x = op.x,
                     .heads = op.heads,
                     .rstd = op.rstd.data,
                     .weight = op.weight.data,
                     .eps = op.eps,
                     .numerics = op.numerics});
}

void rmsnorm_residual_forward(const Context& ctx, const RmsnormResidualForward& op) {
  norm_vectors(ctx, {.y = op.y,
                     .h = op.h,
                     .x = op.x,
                     .delta = op.delta,
                     .rstd = op.rstd.data,
                     .weight = op.weight.data,
                     .eps = op.eps,
                     .numerics = op.numerics});
}

void rmsnorm_backward(const Context& ctx, const RmsnormBackward& op) {
  const auto add_rows = [&](float* sums, Rows rows, int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(rmsnorm_columns_backward)(op, sums, rows, begin, end);
  };
  // dweight first: it needs dy, which dx may overwrite.
  parallel_columns(ctx, op.x.rows * op.heads, op.x.cols / op.heads,
                   [&](int64_t begin, int64_t end) {
                     if (!op.accumulate_dweight)
                       std::fill(op.dweight.data + begin, op.dweight.data + end, 0.0f);
                     add_runs(op.dweight.data, op.run_ends, op.x.rows, begin, end, add_rows);
                   });
  parallel_for(ctx, op.x.rows, token_grain(op.x), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(rmsnorm_tokens_backward)(op, begin, end);
  });
}

}  // namespace orrery::kernels::cpu
#endif
