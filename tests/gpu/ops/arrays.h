// Operands of ops in host or device memory, and what the ops left there: a sequence of
// ops runs on the CPU first, which keeps a copy of all arrays after each op, and then
// on the GPU, whose arrays are compared with those copies and set to them.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/context.h"
#include "core/rng.h"
#include "core/tensor.h"

namespace orrery::ops_check {

inline void require(cudaError_t result, const char* what) {
  if (result == cudaSuccess) return;
  std::printf("CUDA error: %s: %s\n", what, cudaGetErrorString(result));
  std::fflush(stdout);
  std::_Exit(3);
}

/// What is known of an op's checks so far.
struct OpResult {
  int64_t cases = 0, elements = 0, differing = 0, failed_cases = 0;
  std::string first;  ///< the first difference
};
using Results = std::map<std::string, OpResult>;

/// Words that differ; two NaNs are equal.
inline int64_t differences(const uint32_t* a, const uint32_t* b, int64_t count, bool floats,
                           int64_t* first) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (a[i] == b[i]) continue;
    if (floats && (a[i] & 0x7fffffffu) > 0x7f800000u && (b[i] & 0x7fffffffu) > 0x7f800000u)
      continue;
    if (found++ == 0) *first = i;
  }
  return found;
}

inline float as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

/// Arrays with names, of elements of 4 bytes or of bf16. Those of bf16 are kept and
/// compared as the f32 of the same value.
class Arrays {
 public:
  struct Snapshot {
    std::string op;
    std::vector<std::vector<uint32_t>> arrays;
  };

  /// With `expected` the arrays are the GPU's and are compared.
  Arrays(const Context& ctx, uint64_t seed, std::vector<Snapshot>* record,
         const std::vector<Snapshot>* expected, Results* results, std::string case_name)
      : ctx_(ctx),
        seed_(seed),
        record_(record),
        expected_(expected),
        results_(results),
        case_(std::move(case_name)) {}
  ~Arrays() {
    for (const Entry& e : entries_) release(e.data);
    for (void* p : bytes_) release(p);
  }
  Arrays(const Arrays&) = delete;
  Arrays& operator=(const Arrays&) = delete;

  const Context& ctx() const { return ctx_; }
  bool gpu() const { return expected_ != nullptr; }

  Vec<float> vec(const char* name, int64_t size, float scale = 1.0f) {
    std::vector<float> values(static_cast<size_t>(size));
    Philox rng(seed_++, RngPurpose::kTest);
    for (float& x : values) x = scale * rng.normal();
    return {static_cast<float*>(add(name, values.data(), size, true)), size};
  }
  Vec<float> constant(const char* name, int64_t size, float value) {
    const std::vector<float> values(static_cast<size_t>(size), value);
    return {static_cast<float*>(add(name, values.data(), size, true)), size};
  }
  Vec<float> of(const char* name, const std::vector<float>& values) {
    const auto size = static_cast<int64_t>(values.size());
    return {static_cast<float*>(add(name, values.data(), size, true)), size};
  }
  Mat<float> mat(const char* name, int64_t rows, int64_t cols, float scale = 1.0f,
                 int64_t padding = 0) {
    const int64_t stride = cols + padding;
    return {vec(name, rows * stride, scale).data, rows, cols, stride};
  }
  /// About N(0, 1), as bf16.
  Mat<Bf16> bf16_mat(const char* name, int64_t rows, int64_t cols, int64_t padding = 0) {
    const int64_t stride = cols + padding;
    std::vector<Bf16> values;
    Philox rng(seed_++, RngPurpose::kTest);
    for (int64_t i = 0; i < rows * stride; ++i) values.push_back(to_bf16(rng.normal()));
    return {of_bf16(name, values), rows, cols, stride};
  }
  Bf16* of_bf16(const char* name, const std::vector<Bf16>& values) {
    return static_cast<Bf16*>(
        add(name, values.data(), static_cast<int64_t>(values.size()), true, sizeof(Bf16)));
  }
  Vec<int32_t> ids(const char* name, const std::vector<int32_t>& values) {
    const auto size = static_cast<int64_t>(values.size());
    return {static_cast<int32_t*>(add(name, values.data(), size, false)), size};
  }
  /// Memory that is not compared.
  void* bytes(int64_t size) {
    bytes_.push_back(allocate(size));
    return bytes_.back();
  }
  template <class T>
  Vec<T> upload(const T* values, int64_t count) {
    T* const data = static_cast<T*>(bytes(count * static_cast<int64_t>(sizeof(T))));
    copy(data, values, count * static_cast<int64_t>(sizeof(T)));
    return {data, count};
  }

  /// After an op: keeps its results, or compares with those that were kept.
  void step(const char* op) {
    if (!gpu()) {
      Snapshot snapshot{op, {}};
      for (const Entry& e : entries_) snapshot.arrays.push_back(host(e));
      record_->push_back(std::move(snapshot));
      return;
    }
    require(cudaGetLastError(), op);
    require(cudaDeviceSynchronize(), op);
    const Snapshot& wanted = expected_->at(step_++);
    OpResult& result = (*results_)[op];
    ++result.cases;
    bool failed = false;
    for (size_t i = 0; i < entries_.size(); ++i) {
      const Entry& e = entries_[i];
      const std::vector<uint32_t> got = host(e), &want = wanted.arrays[i];
      int64_t first = 0;
      const int64_t found = differences(got.data(), want.data(), e.size, e.floats, &first);
      result.elements += e.size;
      if (found == 0) continue;
      result.differing += found;
      failed = true;
      if (result.first.empty()) {
        char text[400];
        std::snprintf(text, sizeof text,
                      "case %s, array %s (of %lld): %lld differ, first [%lld]: gpu %08x %.9g, cpu "
                      "%08x %.9g",
                      case_.c_str(), e.name.c_str(), static_cast<long long>(e.size),
                      static_cast<long long>(found), static_cast<long long>(first), got[first],
                      as_float(got[first]), want[first], as_float(want[first]));
        result.first = text;
      }
      put(e, want);
    }
    result.failed_cases += failed;
  }
  /// A number that an op returned.
  void answer(const char* name, double value) {
    uint64_t bits;
    std::memcpy(&bits, &value, 8);
    const std::vector<int32_t> words{static_cast<int32_t>(bits), static_cast<int32_t>(bits >> 32)};
    ids(name, words);
  }

 private:
  struct Entry {
    std::string name;
    void* data;
    int64_t size;
    bool floats;
    size_t each;  // bytes of an element: 4, or 2 of bf16
  };
  void* add(const char* name, const void* values, int64_t size, bool floats, size_t each = 4) {
    const int64_t bytes = size * static_cast<int64_t>(each);
    void* const data = allocate(bytes);
    copy(data, values, bytes);
    entries_.push_back({name, data, size, floats, each});
    return data;
  }
  void* allocate(int64_t size) {
    void* data = nullptr;
    if (gpu()) {
      // Not a byte more than the array has: the emulator sees what lies beyond.
      require(cudaMalloc(&data, static_cast<size_t>(std::max<int64_t>(size, 1))), "cudaMalloc");
    } else {
      data = std::aligned_alloc(64, (static_cast<size_t>(size) + 127) / 64 * 64);
    }
    return data;
  }
  void release(void* data) {
    if (gpu()) {
      cudaFree(data);
    } else {
      std::free(data);
    }
  }
  void copy(void* to, const void* from, int64_t size) {
    if (size == 0) return;
    if (gpu()) {
      require(cudaMemcpy(to, from, static_cast<size_t>(size), cudaMemcpyHostToDevice), "upload");
    } else {
      std::memcpy(to, from, static_cast<size_t>(size));
    }
  }
  std::vector<uint32_t> host(const Entry& e) const {
    std::vector<uint32_t> out(static_cast<size_t>(e.size));
    if (e.size == 0) return out;
    if (e.each == 4) {
      fetch(out.data(), e.data, out.size() * 4);
      return out;
    }
    std::vector<uint16_t> bits(out.size());
    fetch(bits.data(), e.data, bits.size() * 2);
    for (size_t i = 0; i < bits.size(); ++i) out[i] = uint32_t{bits[i]} << 16;
    return out;
  }
  void fetch(void* to, const void* from, size_t bytes) const {
    if (gpu()) {
      require(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "download");
    } else {
      std::memcpy(to, from, bytes);
    }
  }
  /// Sets an array to what host() said of another.
  void put(const Entry& e, const std::vector<uint32_t>& words) {
    if (e.each == 4) return copy(e.data, words.data(), e.size * 4);
    std::vector<uint16_t> bits(words.size());
    for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint16_t>(words[i] >> 16);
    copy(e.data, bits.data(), e.size * 2);
  }

  Context ctx_;
  uint64_t seed_;
  std::vector<Snapshot>* record_;
  const std::vector<Snapshot>* expected_;
  Results* results_;
  std::string case_;
  size_t step_ = 0;
  std::vector<Entry> entries_;
  std::vector<void*> bytes_;
};

}  // namespace orrery::ops_check
