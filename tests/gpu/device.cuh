// The few calls of the CUDA runtime that the self-test needs, with errors that end it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace orrery::selftest {

inline void require(cudaError_t result, const char* what) {
  if (result == cudaSuccess) return;
  std::fprintf(stderr, "error: %s: %s\n", what, cudaGetErrorString(result));
  std::exit(1);
}

/// Waits for the kernels launched so far, and ends the program if one failed.
inline void finish(const char* what) {
  require(cudaGetLastError(), what);
  require(cudaDeviceSynchronize(), what);
}

/// Device memory of `size` elements, zeroed; freed at the end.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(int64_t size) : size_(size) {
    require(cudaMalloc(&data_, bytes()), "cudaMalloc");
    require(cudaMemset(data_, 0, bytes()), "cudaMemset");
  }
  explicit DeviceArray(const std::vector<T>& host)
      : DeviceArray(static_cast<int64_t>(host.size())) {
    require(cudaMemcpy(data_, host.data(), bytes(), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return data_; }
  int64_t size() const { return size_; }
  /// `count` elements from `first` on, copied to the host; all by default.
  std::vector<T> host(int64_t first = 0, int64_t count = -1) const {
    std::vector<T> out(static_cast<size_t>(count < 0 ? size_ - first : count));
    require(cudaMemcpy(out.data(), data_ + first, out.size() * sizeof(T), cudaMemcpyDeviceToHost),
            "cudaMemcpy");
    return out;
  }

 private:
  size_t bytes() const { return static_cast<size_t>(size_) * sizeof(T); }
  T* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace orrery::selftest
