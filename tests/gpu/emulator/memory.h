// Accesses of the thread that runs: whether it may touch that memory, and whether
// another thread touched it with no barrier between. The quick ways are here; what they
// do not settle, memory.cc does.
#pragma once

#include "tests/gpu/emulator/block.h"

namespace simt {

/// Memory that kernels may use, exactly as long as was asked for.
void add_allocation(void* data, size_t bytes);
void remove_allocation(void* data);
/// Whether all of it lies in one allocation or device variable.
bool is_device_memory(const void* data, size_t bytes);
/// Whether any of it lies in an allocation.
bool touches_device_memory(const void* data, size_t bytes);

enum class Access { kRead, kWrite, kAtomic };

/// Of four bytes, the last write, the last read, and one read of another thread, of
/// another warp where there was one.
struct Cell {
  struct Use {
    unsigned serial = 0, epoch = 0, warp_epoch = 0;
    uint16_t thread = 0;
    uint8_t mask = 0;  ///< which of the four bytes
    bool atomic = false;
  };
  Use write, read, other_read;
};

extern char shared_arena[kSharedArena];
/// Of the arena, per four bytes: which of them belong to a variable.
extern uint8_t shared_owned[kSharedArena / 4];
extern Cell shared_cells[kSharedArena / 4];

/// Where accesses found their allocation lately, by address.
struct Hit {
  uintptr_t begin = 1, end = 0;
  Cell* cells = nullptr;  ///< null: races are not looked for
};
inline constexpr size_t kHits = 256;
extern Hit hits[kHits];

void access_slowly(const void* data, size_t bytes, Access kind);

[[gnu::always_inline]] inline void access(const void* data, size_t bytes, Access kind) {
  const auto at = reinterpret_cast<uintptr_t>(data);
  const Thread& me = *block.thread;
  if (at - reinterpret_cast<uintptr_t>(me.stack) < kStackBytes - 16 && bytes <= 16) return;
  const uintptr_t offset = at - reinterpret_cast<uintptr_t>(shared_arena);
  if (offset >= kSharedArena) {
    const Hit& hit = hits[at >> 12 & (kHits - 1)];
    if (at >= hit.begin && at + bytes <= hit.end && hit.cells == nullptr) return;
    return access_slowly(data, bytes, kind);
  }
  if (kind == Access::kAtomic || (offset | bytes) % 4 != 0) return access_slowly(data, bytes, kind);
  const unsigned epoch = block.epoch;  // of one block alone
  const Cell::Use now{.serial = block.serial,
                      .epoch = epoch,
                      .warp_epoch = me.warp_epoch,
                      .thread = static_cast<uint16_t>(me.index),
                      .mask = 0xF};
  for (size_t i = offset / 4; i < (offset + bytes) / 4; ++i) {
    Cell& cell = shared_cells[i];
    const bool is_written = cell.write.epoch == epoch && cell.write.thread != me.index;
    if (is_written || shared_owned[i] != 0xF) return access_slowly(data, bytes, kind);
    const bool is_read = cell.read.epoch == epoch && cell.read.thread != me.index;
    if (kind == Access::kRead) {
      if (is_read &&
          (cell.other_read.epoch != epoch || cell.read.thread / kWarp != me.index / kWarp))
        cell.other_read = cell.read;
      cell.read = now;
    } else {
      if (is_read || cell.other_read.epoch == epoch || cell.write.atomic)
        return access_slowly(data, bytes, kind);
      cell.write = now;
    }
  }
}

}  // namespace simt
