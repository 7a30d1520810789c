// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers:
// as easy as 1, 2, 3", SC'11). A draw is a pure function of (key, counter): nothing is
// carried along, so nothing has to be saved or sent.
#pragma once

#include <array>
#include <cstdint>

namespace orrery {

using PhiloxBlock = std::array<uint32_t, 4>;

/// The two halves of a 64-bit word, as Philox takes them.
constexpr uint32_t low_half(uint64_t word) { return static_cast<uint32_t>(word); }
constexpr uint32_t high_half(uint64_t word) { return static_cast<uint32_t>(word >> 32); }

/// Ten rounds of Philox4x32.
PhiloxBlock philox4x32(PhiloxBlock counter, std::array<uint32_t, 2> key);

/// What a stream of random numbers is for. The values are part of the numerics
/// contract: never renumber them.
enum class RngPurpose : uint32_t {
  kInit = 1,
  kSample = 2,
  kData = 3,
  kEnvironment = 4,
  kShuffle = 5,
  kTest = 99
};

/// Block (a, b) of the stream `purpose` of `seed`: four independent 32-bit draws.
PhiloxBlock philox_block(uint64_t seed, RngPurpose purpose, uint64_t a, uint32_t b);

/// Uniform in [0, 1) with 24 bits, exact in float32.
inline float uniform_float(uint32_t bits) { return (bits >> 8) * 0x1p-24f; }

/// Sequential draws for code that wants a generator (data generation, initialisation).
/// Satisfies UniformRandomBitGenerator; copyable; equal arguments give equal sequences
/// on every machine.
class Philox {
 public:
  using result_type = uint32_t;
  Philox(uint64_t seed, RngPurpose purpose, uint64_t stream = 0)
      : seed_(seed), purpose_(purpose), stream_(stream) {}
  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return 0xFFFFFFFFu; }
  result_type operator()();
  /// Uniform integer in [0, bound), bound >= 1, without modulo bias beyond 2^-32.
  uint32_t below(uint32_t bound) { return high_half(uint64_t{(*this)()} * bound); }
  float uniform() { return uniform_float((*this)()); }
  /// Standard normal by Box-Muller in double precision, rounded once.
  float normal();

 private:
  uint64_t seed_;
  RngPurpose purpose_;
  uint64_t stream_;
  uint32_t index_ = 0;
  PhiloxBlock block_{};
};

}  // namespace orrery
