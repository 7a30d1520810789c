// What the tests of row-wise ops share: padded matrices, a scalar lanes sum, comparison
// of bits, and a loop over every instruction set of this machine and several thread
// counts.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/context.h"
#include "core/error.h"
#include "core/rng.h"
#include "core/tensor.h"
#include "kernels/numerics.h"

namespace orrery::kernels::kernel_testing {

inline constexpr float kInf = std::numeric_limits<float>::infinity();
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// A vector's memory as an op on the CPU sees it.
template <class T>
Vec<T> vec(std::vector<T>& v) {
  return {v.data(), std::ssize(v)};
}
template <class T>
Vec<const T> vec(const std::vector<T>& v) {
  return {v.data(), std::ssize(v)};
}

/// A matrix that owns its memory, with three elements of padding a row that no op may
/// touch.
struct Matrix {
  static constexpr int64_t kPadding = 3;
  static constexpr float kUntouched = -77.25f;
  int64_t rows = 0, cols = 0;
  std::vector<float> values;

  Matrix() = default;
  Matrix(int64_t r, int64_t c)
      : rows(r), cols(c), values(static_cast<size_t>(r * (c + kPadding)), kUntouched) {}
  static Matrix random(int64_t r, int64_t c, uint64_t seed, float scale = 1.0f) {
    Matrix m(r, c);
    Philox rng(seed, RngPurpose::kTest);
    for (int64_t i = 0; i < r; ++i) {
      for (int64_t j = 0; j < c; ++j) m(i, j) = scale * rng.normal();
    }
    return m;
  }
  float& operator()(int64_t r, int64_t c) {
    return values[static_cast<size_t>(r * (cols + kPadding) + c)];
  }
  float operator()(int64_t r, int64_t c) const {
    return values[static_cast<size_t>(r * (cols + kPadding) + c)];
  }
  Mat<float> mat() { return {values.data(), rows, cols, cols + kPadding}; }
  Mat<const float> mat() const { return {values.data(), rows, cols, cols + kPadding}; }
};

inline std::vector<float> random_vector(int64_t count, uint64_t seed, float scale = 1.0f) {
  std::vector<float> v(static_cast<size_t>(count));
  Philox rng(seed, RngPurpose::kTest);
  for (float& x : v) x = scale * rng.normal();
  return v;
}

/// Lane by lane, then the tree: the whole definition of a lanes sum. term(i, acc)
/// returns acc plus element i.
inline float lanes_sum(int64_t count, const std::function<float(int64_t, float)>& term) {
  std::array<float, kSumLanes> lane{};
  for (int64_t i = 0; i < count; ++i) {
    float& acc = lane[static_cast<size_t>(i % kSumLanes)];
    acc = term(i, acc);
  }
  for (size_t step = kSumLanes / 2; step > 0; step /= 2) {
    for (size_t j = 0; j < step; ++j) lane[j] += lane[j + step];
  }
  return lane[0];
}

/// Equal bits; any NaN equals any NaN.
inline testing::AssertionResult same_bits(const std::vector<float>& got,
                                          const std::vector<float>& expected) {
  if (got.size() != expected.size()) {
    return testing::AssertionFailure() << got.size() << " elements, not " << expected.size();
  }
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(got[i]) && std::isnan(expected[i])) continue;
    if (std::bit_cast<uint32_t>(got[i]) != std::bit_cast<uint32_t>(expected[i])) {
      return testing::AssertionFailure()
             << "element " << i << " is " << got[i] << ", not " << expected[i] << " (difference "
             << got[i] - expected[i] << ")";
    }
  }
  return testing::AssertionSuccess();
}

/// |got - expected| <= tolerance * max(1, |expected|), elementwise.
inline testing::AssertionResult close(const std::vector<float>& got,
                                      const std::vector<double>& expected, double tolerance) {
  if (got.size() != expected.size()) {
    return testing::AssertionFailure() << got.size() << " elements, not " << expected.size();
  }
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::fabs(static_cast<double>(got[i]) - expected[i]);
    if (!(error <= tolerance * std::max(1.0, std::fabs(expected[i])))) {
      return testing::AssertionFailure() << "element " << i << " is " << got[i] << ", not "
                                         << expected[i] << " (difference " << error << ")";
    }
  }
  return testing::AssertionSuccess();
}

/// Runs body(ctx) with every instruction set of this machine and with 1, 2 and 3
/// threads.
inline void on_every_target(const std::function<void(const Context&)>& body) {
  for (const std::string& target : supported_cpu_targets()) {
    set_cpu_target(target);
    for (int threads = 1; threads <= 3; ++threads) {
      SCOPED_TRACE(target + ", " + std::to_string(threads) + " threads");
      body(Context{.device = {}, .threads = threads});
    }
  }
  set_cpu_target("best");
}

/// Central difference of f at x[i], in double.
inline double numeric_gradient(const std::function<double(const std::vector<double>&)>& f,
                               std::vector<double> x, size_t i, double step = 1e-5) {
  const double at = x[i];
  x[i] = at + step;
  const double above = f(x);
  x[i] = at - step;
  return (above - f(x)) / (2.0 * step);
}

inline std::vector<double> to_double(const std::vector<float>& v) { return {v.begin(), v.end()}; }

/// body() must throw an Error whose text contains `words`.
inline void expect_error(const std::function<void()>& body, const std::string& words) {
  try {
    body();
    ADD_FAILURE() << "no error; expected one with: " << words;
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr(words));
  }
}

}  // namespace orrery::kernels::kernel_testing
