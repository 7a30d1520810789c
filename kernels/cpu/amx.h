// Intel AMX: eight registers of 16 rows of 64 bytes, and a product of two of them.
// AmxTiles is the machine's; EmulatedTiles (kernels/cpu/pairs-inl.h) has the same
// interface and does the same in memory on any CPU, so that the kernels above them are
// tested everywhere.
#pragma once

#include <cstdint>

namespace orrery::kernels::cpu {

#if defined(__x86_64__)

/// Rows of a tile, and bytes of its rows.
inline constexpr int kAmxRows = 16, kAmxRowBytes = 64;

/// What `ldtilecfg` reads: every tile has all its rows.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

/// The machine's tiles. Assembly, for g++'s intrinsics take literals alone and want the
/// whole function built for AMX.
struct AmxTiles {
  /// Sets this thread's tiles up, once.
  static void configure() {
    thread_local bool configured = false;
    if (configured) return;
    TileConfig config;
    for (int i = 0; i < 8; ++i) {
      config.row_bytes[i] = kAmxRowBytes;
      config.rows[i] = kAmxRows;
    }
    asm volatile("ldtilecfg %0" ::"m"(config));
    configured = true;
  }
  template <int kTile>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
  }
  /// Rows are `stride` bytes apart.
  template <int kTile>
  static void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  static void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(kTile) : "memory");
  }
  /// C [16][16] f32 += A [16][32] bf16 times B [16][16][2] bf16, a block of pairs.
  template <int kC, int kA, int kB>
  static void multiply() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kC), "i"(kA), "i"(kB));
  }
};

/// Whether this CPU and system have AMX for bf16, the system has given this process
/// leave to use it, and a tile gave the bits of the recipe. Asked once; a CPU whose
/// tile differs is not trusted, which a warning says.
bool has_amx();

#else

inline bool has_amx() { return false; }

#endif

}  // namespace orrery::kernels::cpu
