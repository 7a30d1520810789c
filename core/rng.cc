#include "core/rng.h"

#include <cmath>
#include <numbers>

namespace orrery {

PhiloxBlock philox4x32(PhiloxBlock c, std::array<uint32_t, 2> k) {
  constexpr uint64_t kMul0 = 0xD2511F53u, kMul1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = kMul0 * c[0], p1 = kMul1 * c[2];
    c = {high_half(p1) ^ c[1] ^ k[0], low_half(p1), high_half(p0) ^ c[3] ^ k[1], low_half(p0)};
    k[0] += kWeyl0;
    k[1] += kWeyl1;
  }
  return c;
}

PhiloxBlock philox_block(uint64_t seed, RngPurpose purpose, uint64_t a, uint32_t b) {
  return philox4x32({low_half(a), high_half(a), b, static_cast<uint32_t>(purpose)},
                    {low_half(seed), high_half(seed)});
}

Philox::result_type Philox::operator()() {
  if (index_ % 4 == 0) block_ = philox_block(seed_, purpose_, stream_, index_ / 4);
  return block_[index_++ % 4];
}

float Philox::normal() {
  const double u1 = ((*this)() + 1.0) * 0x1p-32;  // in (0, 1]
  const double u2 = (*this)() * 0x1p-32;
  return std::sqrt(-2.0 * std::log(u1)) * std::cos(2.0 * std::numbers::pi * u2);
}

}  // namespace orrery
