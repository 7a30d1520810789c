// Which inner indices a bf16 product sums, in groups of 16, each of which is a step of
// its chains: all indices in one run, or rows in runs at each of which a group begins
// anew (docs/numerics.md, "Which chains there are").
#pragma once

#include <cstdint>

#include "core/device_fn.h"

namespace orrery::kernels::cuda {

/// Inner indices of a step.
inline constexpr int kGemmGroup = 16;

/// The groups of a slice: group g is begin[g] .. begin[g] + count[g] - 1.
template <int kGroups>
struct GemmGroups {
  int begin[kGroups], count[kGroups];
  int depth;  ///< of all groups, where they lie side by side
};

/// The inner indices 0 .. k - 1. What C is added to comes after the chain.
struct OneRun {
  static constexpr bool kStartsFromC = false;
  int k = 0, groups = 0;
};

/// Rows in runs, none of them empty: by value, so that no memory has to last until the
/// kernel runs. A launch takes so many; a chain goes on from C in the next one.
struct RunRows {
  static constexpr bool kStartsFromC = true;
  static constexpr int kMost = 480;
  int groups = 0;
  int count = 0;    ///< of the runs
  int ends[kMost];  ///< of a launch's rows
};

/// The groups, slice by slice. Behind the last one they are empty.
template <class Inner>
class GemmWalk;

template <>
class GemmWalk<OneRun> {
 public:
  __device__ explicit GemmWalk(const OneRun& inner) : k_(inner.k) {}
  template <int kGroups>
  __device__ GemmGroups<kGroups> next() {
    GemmGroups<kGroups> groups;
    groups.depth = k_ - next_;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      groups.begin[g] = next_;
      groups.count[g] = k_ - next_;  // or more than a group has: all of it is there
      next_ += kGemmGroup;
    }
    return groups;
  }

 private:
  int k_, next_ = 0;
};

template <>
class GemmWalk<RunRows> {
 public:
  __device__ explicit GemmWalk(const RunRows& runs) : runs_(runs) {}
  template <int kGroups>
  __device__ GemmGroups<kGroups> next() {
    GemmGroups<kGroups> groups;
    groups.depth = 0;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      groups.begin[g] = row_;
      groups.count[g] = 0;
      if (run_ == runs_.count) continue;
      const int end = runs_.ends[run_];
      groups.count[g] = end - row_;
      row_ += kGemmGroup;
      if (row_ < end) continue;
      row_ = end;
      ++run_;
    }
    return groups;
  }

 private:
  const RunRows& runs_;
  int run_ = 0, row_ = 0;
};

}  // namespace orrery::kernels::cuda
