#include "kernels/cpu/pairs.h"

#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>

#include "core/dtype.h"
#include "core/log.h"
#include "kernels/cpu/amx.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace orrery::kernels::cpu {
namespace {

constexpr float kSmallest = std::numeric_limits<float>::min();

float flush_subnormal(float x) { return std::fabs(x) < kSmallest ? std::copysign(0.0f, x) : x; }

/// `result` unless it is tiny after rounding. `scaled` is the same operation on
/// operands 2^64 larger, which rounds as if exponents had no lower bound. The thread
/// may flush in its own way, so where it matters the result is taken from there.
template <class Scaled>
float flush_tiny(float result, const Scaled& scaled) {
  if (!(std::fabs(result) <= kSmallest)) return result;
  const float large = scaled();
  if (large == 0.0f) return result;
  if (std::fabs(large) < kSmallest * 0x1p64f) return std::copysign(0.0f, large);
  return large * 0x1p-64f;
}

}  // namespace

float flushed_fma(float a, float b, float c) {
  a = flush_subnormal(a), b = flush_subnormal(b), c = flush_subnormal(c);
  return flush_tiny(std::fma(a, b, c), [=] {
    // The smaller factor: the larger one might overflow.
    return std::fabs(a) < std::fabs(b) ? std::fma(a * 0x1p64f, b, c * 0x1p64f)
                                       : std::fma(a, b * 0x1p64f, c * 0x1p64f);
  });
}

float flushed_add(float a, float b) {
  a = flush_subnormal(a), b = flush_subnormal(b);
  return flush_subnormal(a + b);  // a sum of two floats that is subnormal is exact
}

float flushed_mul(float a, float b) {
  a = flush_subnormal(a), b = flush_subnormal(b);
  return flush_tiny(
      a * b, [=] { return std::fabs(a) < std::fabs(b) ? a * 0x1p64f * b : a * (b * 0x1p64f); });
}

#if defined(__x86_64__)

namespace {

/// c += the block of pairs, element by element; flushed by software.
void reference_tile(float* c, const Bf16* a, const Bf16* b) {
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) {
      float even = 0.0f, odd = 0.0f;
      for (int p = 0; p < 16; ++p) {
        even = flushed_fma(to_f32(a[i * 32 + 2 * p]), to_f32(b[p * 32 + 2 * j]), even);
        odd = flushed_fma(to_f32(a[i * 32 + 2 * p + 1]), to_f32(b[p * 32 + 2 * j + 1]), odd);
      }
      c[i * 16 + j] = flushed_add(c[i * 16 + j], flushed_add(even, odd));
    }
  }
}

bool cpu_has_amx() {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  constexpr uint32_t kOsxsave = 1u << 27, kTile = 1u << 24, kBf16 = 1u << 22;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kOsxsave) == 0) return false;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & kTile) == 0 || (d & kBf16) == 0) return false;
  uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr uint32_t kTileState = 3u << 17;
  return (low & kTileState) == kTileState;
}

/// Linux gives the tiles' memory to processes that ask.
bool ask_for_tiles() {
  constexpr int64_t kArchReqXcompPerm = 0x1023, kXtileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXtileData) == 0;
}

/// A tile of ordinary numbers, zeros, subnormals and numbers whose products are.
bool tile_gives_the_recipe() {
  alignas(64) std::array<Bf16, 512> a, b;
  alignas(64) std::array<float, 256> c, expected;
  uint32_t state = 1;
  const auto next = [&] { return state = state * 1664525u + 1013904223u, state >> 16; };
  for (int i = 0; i < 512; ++i) {
    // Signs and fractions at random; exponents near 0, or near those that flush.
    const uint32_t exponent = i % 8 == 7   ? next() % 2
                              : i % 4 == 3 ? 60 + next() % 8
                                           : 124 + next() % 6;
    a[i].bits = (next() & 0x807Fu) | exponent << 7;
    b[i].bits = (next() & 0x807Fu) | (i % 4 == 3 ? 60 + next() % 8 : 124 + next() % 6) << 7;
  }
  for (int i = 0; i < 256; ++i)
    c[i] = i % 16 == 5 ? 1e-39f : (static_cast<float>(next() & 0xFFFFu) - 32768.0f) * 0x1p-14f;
  expected = c;
  reference_tile(expected.data(), a.data(), b.data());
  AmxTiles::configure();
  AmxTiles::load<0>(c.data(), 64);
  AmxTiles::load<4>(a.data(), 64);
  AmxTiles::load<6>(b.data(), 64);
  AmxTiles::multiply<0, 4, 6>();
  AmxTiles::store<0>(c.data(), 64);
  using Bits = std::array<uint32_t, 256>;
  return std::bit_cast<Bits>(c) == std::bit_cast<Bits>(expected);
}

}  // namespace

bool has_amx() {
  static const bool has = [] {
    if (!cpu_has_amx() || !ask_for_tiles()) return false;
    if (tile_gives_the_recipe()) return true;
    spdlog::warn(
        "this CPU's AMX gives other bits than the ones defined (docs/numerics.md): bf16 "
        "products take AVX-512 instead");
    return false;
  }();
  return has;
}

#endif

namespace {

/// Not chosen yet.
constexpr int kUnset = -1;
std::atomic<int> engine{kUnset};

}  // namespace

PairsEngine pairs_engine() {
  int chosen = engine.load(std::memory_order_relaxed);
  if (chosen == kUnset) {
    chosen = static_cast<int>(has_amx() ? PairsEngine::kAmx : PairsEngine::kVectors);
    engine.store(chosen, std::memory_order_relaxed);
  }
  return static_cast<PairsEngine>(chosen);
}

void set_pairs_engine(PairsEngine wanted) {
  engine.store(static_cast<int>(wanted), std::memory_order_relaxed);
}

}  // namespace orrery::kernels::cpu
