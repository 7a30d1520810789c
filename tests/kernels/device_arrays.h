// Operands of ops in the memory of any device, and what the ops left there.
#pragma once

#include <vector>

#include "core/buffer.h"
#include "core/transfer.h"
#include "tests/kernels/kernel_testing.h"
#include "tests/support/test_device.h"

namespace orrery::kernels::kernel_testing {

/// The devices whose bits are to be the CPU's: the debug device, and the one that
/// ORRERY_TEST_DEVICE names.
inline std::vector<Device> other_devices() {
  std::vector<Device> devices{{DeviceType::kDebug}};
  const Device named = testing_support::test_device();
  if (named.type == DeviceType::kCuda) devices.push_back(named);
  return devices;
}

/// Arrays on one device, filled with random numbers, that live as long as this.
class DeviceArrays {
 public:
  explicit DeviceArrays(const Context& ctx, uint64_t seed = 1)
      : ctx_(ctx), arena_(ctx.device), seed_(seed) {}

  const Context& ctx() const { return ctx_; }
  Arena& arena() { return arena_; }
  Vec<float> vec(int64_t size, float scale = 1.0f) {
    return kept(random_vector(size, seed_++, scale));
  }
  Vec<float> constant(int64_t size, float value) { return kept(std::vector<float>(size, value)); }
  Mat<float> mat(int64_t rows, int64_t cols, float scale = 1.0f, int64_t padding = 0) {
    const int64_t stride = cols + padding;
    return {vec(rows * stride, scale).data, rows, cols, stride};
  }
  /// f32 or bf16, rounded.
  ActMat act_mat(DType dtype, int64_t rows, int64_t cols, float scale = 1.0f) {
    if (dtype == DType::kF32) return mat(rows, cols, scale);
    std::vector<Bf16> elements;
    for (const float value : random_vector(rows * cols, seed_++, scale))
      elements.push_back(to_bf16(value));
    bf16_vecs_.push_back(upload(elements));
    return Mat<Bf16>(bf16_vecs_.back().data, rows, cols);
  }
  template <class T>
  Vec<T> upload(const std::vector<T>& values) {
    return upload_into(ctx_, arena_, Span<const T>(values));
  }
  Vec<const int32_t> ids(const std::vector<int32_t>& values) { return upload(values); }
  template <class T>
  std::vector<T> download(Vec<T> device) const {
    std::vector<T> host(static_cast<size_t>(device.size));
    orrery::download(ctx_, Span<T>(host), device);
    return host;
  }
  /// All floats, one array after the other, then those of bf16.
  std::vector<float> values() const {
    std::vector<float> all;
    for (const Vec<float>& v : vecs_) {
      const std::vector<float> host = download(v);
      all.insert(all.end(), host.begin(), host.end());
    }
    for (const Vec<Bf16>& v : bf16_vecs_) {
      for (const Bf16 element : download(v)) all.push_back(to_f32(element));
    }
    return all;
  }

 private:
  Vec<float> kept(const std::vector<float>& values) {
    vecs_.push_back(upload(values));
    return vecs_.back();
  }

  Context ctx_;
  Arena arena_;
  std::vector<Vec<float>> vecs_;
  std::vector<Vec<Bf16>> bf16_vecs_;
  uint64_t seed_;
};

}  // namespace orrery::kernels::kernel_testing
