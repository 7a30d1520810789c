#include "kernels/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/profile.h"
#include "core/transfer.h"
#include "kernels/checks.h"
#include "kernels/cpu/rope.h"
#include "kernels/cuda/rope.h"
#include "kernels/dispatch.h"

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

/// Positions per upload.
constexpr int64_t kStep = 64;

/// cos and sin of p * frequency as the product of two rotations, by 64 * (p / 64) and
/// by p % 64 steps: a long context needs few calls of the library, and double leaves
/// room for the product's rounding.
class TableRows {
 public:
  TableRows(const Array<double>& freqs, double scale)
      : freqs_(freqs), scale_(scale), fine_cos_(kStep * half()), fine_sin_(kStep * half()) {
    for (int64_t p = 0; p < kStep; ++p) {
      for (int64_t i = 0; i < half(); ++i) {
        fine_cos_[p * half() + i] = std::cos(p * freqs_[i]);
        fine_sin_[p * half() + i] = std::sin(p * freqs_[i]);
      }
    }
  }

  /// Rows [begin, begin + kStep) of the table. begin: a multiple of kStep.
  void compute(int64_t begin, Array<float>& cos, Array<float>& sin) const {
    for (int64_t i = 0; i < half(); ++i) {
      const double coarse_cos = std::cos(begin * freqs_[i]);
      const double coarse_sin = std::sin(begin * freqs_[i]);
      for (int64_t at = i; at < kStep * half(); at += half()) {
        const double c = coarse_cos * fine_cos_[at] - coarse_sin * fine_sin_[at];
        const double s = coarse_sin * fine_cos_[at] + coarse_cos * fine_sin_[at];
        cos[at] = static_cast<float>(scale_ * c);
        sin[at] = static_cast<float>(scale_ * s);
      }
    }
  }

 private:
  int64_t half() const { return freqs_.size(); }
  const Array<double>& freqs_;
  double scale_;
  Array<double> fine_cos_, fine_sin_;
};

}  // namespace

RopeTable build_rope_table(Device device, const RopeConfig& config, int64_t positions) {
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
  const int64_t elements = positions * half;
  RopeTable table;
  table.memory = Buffer(device, 2 * elements * sizeof(float));
  float* const memory = table.memory.vec<float>().data;
  table.cos = {memory, positions, half};
  table.sin = {memory + elements, positions, half};

  const Context ctx{.device = device};
  const TableRows rows(freqs, scale);
  Array<float> cos(kStep * half), sin(kStep * half);
  for (int64_t p = 0; p < positions; p += kStep) {
    rows.compute(p, cos, sin);
    const int64_t begin = p * half, count = std::min(kStep * half, elements - begin);
    upload(ctx, Vec<float>(memory + begin, count), Span<const float>(cos).first(count));
    upload(ctx, Vec<float>(memory + elements + begin, count), Span<const float>(sin).first(count));
  }
  return table;
}

void check_rotation(const char* op, const Rotation& rotation, int64_t rows, int64_t head_dim) {
  const Mat<const float>& cos = rotation.cos;
  require_vec(op, "positions", rotation.positions, rows);
  if (2 * cos.cols != head_dim) {
    fail("{}: cos has {} columns; heads of {} elements need half as many", op, cos.cols, head_dim);
  }
  require_mat(op, "cos", cos, cos.rows, cos.cols);
  require_mat(op, "sin", rotation.sin, cos.rows, cos.cols);
}

void rope_backward(const Context& ctx, const RopeBackward& op) {
  constexpr const char* kOp = "rope_backward";
  const ActMat& dx = op.dx;
  const int64_t head_dim = 2 * op.rotation.cos.cols;
  require_positive(kOp, "heads", op.heads);
  require_mat(kOp, "dx", dx, dx.rows, op.heads * head_dim);
  require_f32_or_bf16(kOp, "dx", dx.dtype);
  check_rotation(kOp, op.rotation, dx.rows, head_dim);
  const ProfileOpScope profile(ctx, "rope backward", 0, 2 * mat_bytes(dx));
  dispatch<cpu::rope_backward, cuda::rope_backward>(ctx, kOp, op);
}

}  // namespace orrery::kernels
