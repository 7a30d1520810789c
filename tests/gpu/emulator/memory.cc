// What the quick ways of memory.h do not settle: the first access of an allocation,
// what lies in none, and races.
#include "tests/gpu/emulator/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>

extern "C" {
// Of the linker: the program's constants lie before __bss_start, and device variables
// in a section of their own.
extern char __executable_start, __bss_start;
extern char __start_emulated_device __attribute__((weak));
extern char __stop_emulated_device __attribute__((weak));
}

namespace simt {

alignas(256) char shared_arena[kSharedArena];
uint8_t shared_owned[kSharedArena / 4];
Cell shared_cells[kSharedArena / 4];
Hit hits[kHits];

namespace {

struct Allocation {
  uintptr_t end = 0;
  Cell* cells = nullptr;
};
struct Memory {
  std::map<uintptr_t, Allocation> allocations;
  size_t shared_used = 0, shared_static = 0, dynamic = 0;
  std::vector<std::pair<const void*, void*>> variables;
};
Memory& memory() {
  static auto* const it = new Memory;
  return *it;
}

bool watches(const char* name, bool otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : *text != '0';
}
/// Races through the device's memory: needs ten times its size.
bool watches_global() {
  static const bool on = watches("ORRERY_EMULATOR_GLOBAL_RACES", false);
  return on;
}

size_t cells_of(size_t bytes) { return (bytes + 3) / 4 * sizeof(Cell); }

bool within(uintptr_t at, size_t bytes, const void* begin, size_t size) {
  const uintptr_t offset = at - reinterpret_cast<uintptr_t>(begin);
  return offset <= size && bytes <= size - offset;
}

bool is_device_variable(uintptr_t at, size_t bytes) {
  return &__start_emulated_device != nullptr &&
         within(at, bytes, &__start_emulated_device,
                static_cast<size_t>(&__stop_emulated_device - &__start_emulated_device));
}

std::string described(const void* data, size_t bytes, Access kind) {
  char address[32];
  std::snprintf(address, sizeof address, "%p", data);
  const char* const verb = kind == Access::kRead    ? "reads "
                           : kind == Access::kWrite ? "writes "
                                                    : "changes (atomic) ";
  return verb + std::to_string(bytes) + " bytes at " + address;
}

[[noreturn]] void fail_access(const void* data, size_t bytes, Access kind) {
  const auto at = reinterpret_cast<uintptr_t>(data);
  const auto& all = memory().allocations;
  std::string where = "which is no memory of the device";
  auto it = all.upper_bound(at);
  if (it != all.begin()) {
    const auto& [begin, allocation] = *--it;
    constexpr uintptr_t kNear = 1 << 20;
    if (at < allocation.end + kNear)
      where = "which is byte " + std::to_string(at - begin) + " of an allocation of " +
              std::to_string(allocation.end - begin) + " bytes";
  }
  if (within(at, 1, block.arguments, block.argument_bytes)) where = "in its arguments";
  if (within(at, 1, &__executable_start, static_cast<size_t>(&__bss_start - &__executable_start)))
    where = "in a constant or a variable of the program";
  fail_thread(described(data, bytes, kind) + ", " + where);
}

bool same_warp(unsigned a, unsigned b) { return a / kWarp == b / kWarp; }

/// Whether the running thread's access comes after one of its launch.
bool ordered(const Cell::Use& use, bool global) {
  const Thread& me = *block.thread;
  if (use.serial != block.serial) return !global || use.serial < block.first_serial;
  if (use.epoch != block.epoch || use.thread == me.index) return true;
  return same_warp(use.thread, me.index) && use.warp_epoch != me.warp_epoch;
}

[[noreturn]] void fail_race(const void* data, size_t bytes, Access kind, const Cell::Use& use,
                            bool wrote, bool global) {
  std::string other = "thread " + std::to_string(use.thread);
  if (use.serial != block.serial) other += " of another block";
  const auto offset = static_cast<const char*>(data) - shared_arena;
  fail_thread("a race: " + described(data, bytes, kind) +
              (global ? "" : " (shared memory + " + std::to_string(offset) + ")") + ", which " +
              other + (wrote ? " wrote" : " read") + " with no barrier between");
}

void note(Cell& cell, uint8_t mask, const void* data, size_t bytes, Access kind, bool global) {
  const Thread& me = *block.thread;
  const Cell::Use now{.serial = block.serial,
                      .epoch = block.epoch,
                      .warp_epoch = me.warp_epoch,
                      .thread = static_cast<uint16_t>(me.index),
                      .mask = mask,
                      .atomic = kind == Access::kAtomic};
  const auto meets = [&](const Cell::Use& use) {
    return (use.mask & mask) != 0 && !(use.atomic && now.atomic) && !ordered(use, global);
  };
  if (meets(cell.write)) fail_race(data, bytes, kind, cell.write, true, global);
  if (kind == Access::kRead) {
    Cell::Use& last = cell.read;
    const bool is_mine = last.serial == now.serial && last.thread == now.thread;
    // As the quick way has it.
    if (!is_mine && !ordered(last, global) &&
        (ordered(cell.other_read, global) || !same_warp(last.thread, now.thread) ||
         last.serial != now.serial))
      cell.other_read = last;
    const uint8_t before = is_mine && last.epoch == now.epoch ? last.mask : 0;
    last = now;
    last.mask |= before;
    return;
  }
  if (meets(cell.read)) fail_race(data, bytes, kind, cell.read, false, global);
  if (meets(cell.other_read)) fail_race(data, bytes, kind, cell.other_read, false, global);
  const bool is_mine = cell.write.serial == now.serial && cell.write.epoch == now.epoch &&
                       cell.write.thread == now.thread && cell.write.atomic == now.atomic;
  const uint8_t before = is_mine ? cell.write.mask : 0;
  cell.write = now;
  cell.write.mask |= before;
}

/// Calls body(cell's number, mask) for the cells of bytes from `offset` on.
template <class Body>
void for_each_cell(size_t offset, size_t bytes, const Body& body) {
  const size_t end = offset + bytes;
  for (size_t cell = offset / 4; cell * 4 < end; ++cell) {
    unsigned mask = 0xF;
    if (cell * 4 < offset) mask &= 0xFu << (offset - cell * 4);
    if (cell * 4 + 4 > end) mask &= 0xFu >> (cell * 4 + 4 - end);
    body(cell, static_cast<uint8_t>(mask));
  }
}

void access_shared(const void* data, size_t offset, size_t bytes, Access kind) {
  if (offset + bytes > kSharedArena) fail_access(data, bytes, kind);
  for_each_cell(offset, bytes, [&](size_t i, uint8_t mask) {
    if ((mask & ~shared_owned[i]) != 0)
      fail_thread(described(data, bytes, kind) + ", which is shared memory + " +
                  std::to_string(offset) + ", beyond the end of a variable");
    note(shared_cells[i], mask, data, bytes, kind, false);
  });
}

void own(size_t offset, size_t bytes) {
  for_each_cell(offset, bytes, [](size_t i, uint8_t mask) { shared_owned[i] |= mask; });
}

}  // namespace

void access_slowly(const void* data, size_t bytes, Access kind) {
  const auto at = reinterpret_cast<uintptr_t>(data);
  if (within(at, bytes, block.thread->stack, kStackBytes)) return;
  if (const uintptr_t offset = at - reinterpret_cast<uintptr_t>(shared_arena);
      offset < kSharedArena)
    return access_shared(data, offset, bytes, kind);
  Memory& m = memory();
  Hit& hit = hits[at >> 12 & (kHits - 1)];
  if (at < hit.begin || at + bytes > hit.end) {
    auto it = m.allocations.upper_bound(at);
    if (it == m.allocations.begin() || at + bytes > (--it)->second.end) {
      if (is_device_variable(at, bytes)) return;
      if (kind == Access::kRead && (within(at, bytes, block.arguments, block.argument_bytes) ||
                                    (at >= reinterpret_cast<uintptr_t>(&__executable_start) &&
                                     at + bytes <= reinterpret_cast<uintptr_t>(&__bss_start))))
        return;
      fail_access(data, bytes, kind);
    }
    hit = {it->first, it->second.end, it->second.cells};
  }
  if (hit.cells == nullptr) return;
  for_each_cell(at - hit.begin, bytes,
                [&](size_t i, uint8_t mask) { note(hit.cells[i], mask, data, bytes, kind, true); });
}

void begin_shared(size_t dynamic) {
  Memory& m = memory();
  m.variables.clear();
  std::memset(shared_owned, 0, sizeof shared_owned);
  m.dynamic = dynamic;
  m.shared_static = 0;
  own(0, dynamic);
  m.shared_used = dynamic;
}

void poison_shared() { std::memset(shared_arena, 0xff, memory().shared_used); }

void* dynamic_shared() { return shared_arena; }

void* shared_variable(const void* key, size_t bytes, size_t align) {
  Memory& m = memory();
  for (const auto& [its, data] : m.variables) {
    if (its == key) return data;
  }
  constexpr size_t kGap = 16;
  const size_t at = (m.shared_used + kGap + align - 1) / align * align;
  m.shared_static += bytes;
  if (m.shared_static > kMostShared || m.shared_static + m.dynamic > kMostSharedAsked)
    fail_thread(std::to_string(m.shared_static) + " bytes of static and " +
                std::to_string(m.dynamic) + " of dynamic shared memory, more than there is");
  m.shared_used = at + bytes;
  if (m.shared_used > kSharedArena) fail_program("no room for the gaps between shared variables");
  own(at, bytes);
  std::memset(shared_arena + at, 0xff, bytes);
  m.variables.emplace_back(key, shared_arena + at);
  return m.variables.back().second;
}

void add_allocation(void* data, size_t bytes) {
  Memory& m = memory();
  const auto begin = reinterpret_cast<uintptr_t>(data);
  Cell* cells = nullptr;
  if (watches_global() && bytes > 0) {
    void* const shadow = ::mmap(nullptr, cells_of(bytes), PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (shadow != MAP_FAILED) cells = static_cast<Cell*>(shadow);
  }
  m.allocations[begin] = {begin + bytes, cells};
  std::fill(std::begin(hits), std::end(hits), Hit{});
}

void remove_allocation(void* data) {
  Memory& m = memory();
  const auto it = m.allocations.find(reinterpret_cast<uintptr_t>(data));
  if (it->second.cells != nullptr) ::munmap(it->second.cells, cells_of(it->second.end - it->first));
  m.allocations.erase(it);
  std::fill(std::begin(hits), std::end(hits), Hit{});
}

bool is_device_memory(const void* data, size_t bytes) {
  const auto at = reinterpret_cast<uintptr_t>(data);
  if (is_device_variable(at, bytes)) return true;
  const auto& all = memory().allocations;
  auto it = all.upper_bound(at);
  return it != all.begin() && at + bytes <= (--it)->second.end;
}

bool touches_device_memory(const void* data, size_t bytes) {
  const auto at = reinterpret_cast<uintptr_t>(data);
  const auto& all = memory().allocations;
  auto it = all.lower_bound(at);
  if (it != all.end() && it->first < at + bytes) return true;
  return it != all.begin() && at < (--it)->second.end;
}

}  // namespace simt
