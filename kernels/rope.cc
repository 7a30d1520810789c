#include "kernels/rope.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <numbers>

#include "core/profile.h"
#include "kernels/checks.h"
#include "kernels/cpu/rope.h"

namespace orrery::kernels {
namespace {

/// A table of more elements than this is a mistake in a size, not a model.
constexpr int64_t kMaxTableElements = int64_t{1} << 31;

void check_config(const RopeConfig& config, int64_t positions) {
  constexpr const char* kOp = "build_rope_table";
  const RopeScaling& s = config.scaling;
  const auto check = [&](bool ok, const char* name, double value, const char* wanted) {
    if (!ok) fail("{}: {} is {}; it must be {}", kOp, name, value, wanted);
  };
  const auto positive = [](double x) { return std::isfinite(x) && x > 0.0; };
  if (config.head_dim < 2 || config.head_dim % 2 != 0) {
    fail("{}: head_dim is {}; rotary embedding needs an even number, at least 2", kOp,
         config.head_dim);
  }
  check(positive(config.theta), "rope_theta", config.theta, "a positive number");
  if (positions < 0 || positions > kMaxTableElements / config.head_dim) {
    fail("{}: {} positions of head_dim {} are out of range; check max_position_embeddings", kOp,
         positions, config.head_dim);
  }
  if (s.type == RopeScaling::Type::kNone) return;
  check(positive(s.factor), "rope_scaling.factor", s.factor, "a positive number");
  if (s.type == RopeScaling::Type::kLinear) return;
  check(s.original_max_position_embeddings > 0, "rope_scaling.original_max_position_embeddings",
        s.original_max_position_embeddings, "given and positive");
  if (s.type == RopeScaling::Type::kLlama3) {
    check(positive(s.low_freq_factor), "rope_scaling.low_freq_factor", s.low_freq_factor,
          "a positive number");
    check(std::isfinite(s.high_freq_factor) && s.high_freq_factor > s.low_freq_factor,
          "rope_scaling.high_freq_factor", s.high_freq_factor, "greater than low_freq_factor");
    return;
  }
  check(config.theta > 1.0, "rope_theta", config.theta, "greater than 1 for yarn");
  check(positive(s.beta_fast), "rope_scaling.beta_fast", s.beta_fast, "a positive number");
  check(positive(s.beta_slow), "rope_scaling.beta_slow", s.beta_slow, "a positive number");
  if (s.attention_factor) {
    check(positive(*s.attention_factor), "rope_scaling.attention_factor", *s.attention_factor,
          "a positive number");
  }
  if (s.mscale)
    check(std::isfinite(*s.mscale), "rope_scaling.mscale", *s.mscale, "a finite number");
  if (s.mscale_all_dim) {
    check(std::isfinite(*s.mscale_all_dim), "rope_scaling.mscale_all_dim", *s.mscale_all_dim,
          "a finite number");
  }
}

/// Low frequencies are divided by `factor`, high ones kept, and those between
/// interpolated (Llama 3.1).
void scale_llama3(Array<double>& freqs, const RopeScaling& s) {
  const double context = s.original_max_position_embeddings;
  for (double& f : freqs) {
    const double wavelength = 2.0 * std::numbers::pi / f;
    if (wavelength < context / s.high_freq_factor) continue;
    if (wavelength > context / s.low_freq_factor) {
      f /= s.factor;
      continue;
    }
    const double smooth =
        (context / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
    f = (1.0 - smooth) * f / s.factor + smooth * f;
  }
}

/// YaRN: a linear ramp over dimensions from kept to divided frequencies.
void scale_yarn(Array<double>& freqs, const RopeConfig& config) {
  const RopeScaling& s = config.scaling;
  const double dim = config.head_dim;
  const double context = s.original_max_position_embeddings;
  // The dimension whose wavelength fits the original context `rotations` times.
  const auto correction_dim = [&](double rotations) {
    return dim * std::log(context / (rotations * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(config.theta));
  };
  double low = correction_dim(s.beta_fast);
  double high = correction_dim(s.beta_slow);
  if (s.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1.0);
  if (low == high) high += 0.001;  // as the reference avoids the division by zero
  for (int64_t i = 0; i < freqs.size(); ++i) {
    const double ramp = std::clamp((i - low) / (high - low), 0.0, 1.0);
    freqs[i] = freqs[i] / s.factor * ramp + freqs[i] * (1.0 - ramp);
  }
}

/// What YaRN multiplies cos and sin by.
double yarn_attention_factor(const RopeScaling& s) {
  if (s.attention_factor) return *s.attention_factor;
  const auto scale = [&](double mscale) {
    return s.factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(s.factor) + 1.0;
  };
  const bool both = s.mscale.value_or(0.0) != 0.0 && s.mscale_all_dim.value_or(0.0) != 0.0;
  return both ? scale(*s.mscale) / scale(*s.mscale_all_dim) : scale(1.0);
}

/// cos and sin of p * frequency as the product of two rotations, by 64 * (p / 64) and
/// by p % 64 steps: a long context needs few calls of the library, and double leaves
/// room for the product's rounding.
void fill_table(RopeTable& table, const Array<double>& freqs, double scale) {
  constexpr int64_t kStep = 64;
  const int64_t half = freqs.size();
  Array<double> fine_cos(kStep * half), fine_sin(kStep * half);
  Array<double> coarse_cos(half), coarse_sin(half);
  for (int64_t p = 0; p < std::min(kStep, table.positions); ++p) {
    for (int64_t i = 0; i < half; ++i) {
      fine_cos[p * half + i] = std::cos(p * freqs[i]);
      fine_sin[p * half + i] = std::sin(p * freqs[i]);
    }
  }
  int64_t out = 0;
  for (int64_t p = 0; p < table.positions; ++p) {
    const int64_t fine = p % kStep * half;
    for (int64_t i = 0; i < half; ++i, ++out) {
      if (fine == 0) {
        coarse_cos[i] = std::cos(p * freqs[i]);
        coarse_sin[i] = std::sin(p * freqs[i]);
      }
      const double c = coarse_cos[i] * fine_cos[fine + i] - coarse_sin[i] * fine_sin[fine + i];
      const double s = coarse_sin[i] * fine_cos[fine + i] + coarse_cos[i] * fine_sin[fine + i];
      table.cos[out] = static_cast<float>(scale * c);
      table.sin[out] = static_cast<float>(scale * s);
    }
  }
}

void check_rotation(const char* op, const Context& ctx, Heads<float> x,
                    Span<const int32_t> positions, const RopeTable& table) {
  require_cpu(ctx, op);
  require_heads(op, "x", x, positions.size(), x.heads, 2 * table.half_dim);
  const int64_t elements = table.positions * table.half_dim;
  if (table.cos.size() != elements || table.sin.size() != elements) {
    fail("{}: the table holds {} cosines for {} positions of {}; use build_rope_table", op,
         table.cos.size(), table.positions, table.half_dim);
  }
  for (int64_t i = 0; i < positions.size(); ++i) {
    if (positions[i] < 0 || positions[i] >= table.positions) {
      fail(
          "{}: token {} is at position {}, outside the table of {}; "
          "the sequence is longer than the model's context",
          op, i, positions[i], table.positions);
    }
  }
}

}  // namespace

RopeTable build_rope_table(const RopeConfig& config, int64_t positions) {
  check_config(config, positions);
  const int64_t half = config.head_dim / 2;
  Array<double> freqs(half);
  for (int64_t i = 0; i < half; ++i)
    freqs[i] = 1.0 / std::pow(config.theta, 2.0 * i / config.head_dim);
  double scale = 1.0;
  switch (config.scaling.type) {
    case RopeScaling::Type::kNone:
      break;
    case RopeScaling::Type::kLinear:
      for (double& f : freqs) f /= config.scaling.factor;
      break;
    case RopeScaling::Type::kLlama3:
      scale_llama3(freqs, config.scaling);
      break;
    case RopeScaling::Type::kYarn:
      scale_yarn(freqs, config);
      scale = yarn_attention_factor(config.scaling);
      break;
  }
  RopeTable table{.positions = positions, .half_dim = half, .cos = {}, .sin = {}};
  try {
    table.cos.resize(positions * half);
    table.sin.resize(positions * half);
  } catch (const std::bad_alloc&) {
    fail("build_rope_table: no memory for {} positions of head_dim {}; lower the maximum length",
         positions, config.head_dim);
  }
  fill_table(table, freqs, scale);
  return table;
}

void rope_forward(const Context& ctx, Heads<float> x, Span<const int32_t> positions,
                  const RopeTable& table) {
  check_rotation("rope_forward", ctx, x, positions, table);
  const ProfileOpScope profile(ctx, "rope", 0, f32_bytes(2 * x.size()));
  rope_forward_cpu(ctx, x, positions, table);
}

void rope_backward(const Context& ctx, Heads<float> dx, Span<const int32_t> positions,
                   const RopeTable& table) {
  check_rotation("rope_backward", ctx, dx, positions, table);
  const ProfileOpScope profile(ctx, "rope backward", 0, f32_bytes(2 * dx.size()));
  rope_backward_cpu(ctx, dx, positions, table);
}

}  // namespace orrery::kernels
