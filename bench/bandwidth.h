// The most bytes a second that this machine moves, by how many there are: a small
// working set stays in a core's own caches, a large one comes from memory. With the
// peak of kernels/peak.h it is the roofline (Williams, Waterman and Patterson 2009)
// that ops are measured against.
#pragma once

#include <vector>

namespace orrery::bench {

enum class Traffic {
  kRead,       ///< every byte is read
  kWrite,      ///< every byte is written: by plain or by streaming stores, whichever is faster
  kReadWrite,  ///< every byte is read and written in place, and counts twice
};

/// Bandwidth over the size of the working set, measured once at powers of two: bytes a
/// second of `threads` threads that go through their own parts of it again and again,
/// the best of several turns. One thread's time is its CPU time.
class BandwidthCurve {
 public:
  explicit BandwidthCurve(int threads);

  /// Bytes a second for a working set of `bytes`: between measured sizes by the
  /// logarithm of the size. What is measured faster on more bytes counts for fewer too,
  /// so a disturbed turn lowers nothing.
  double at(Traffic traffic, double bytes) const;

  /// Seconds to read `read` and write `written` bytes: as many as both have in common
  /// as kReadWrite, the rest as what it is.
  double seconds(double read, double written, double working_set) const;

 private:
  std::vector<double> rates_[3];  // by Traffic, by size
};

}  // namespace orrery::bench
