// The block that runs, as the emulator's own files share it. One at a time in the
// process, under the runtime's lock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/gpu/emulator/simt.h"

namespace simt {

inline constexpr unsigned kMostThreads = 1024, kWarp = 32;
inline constexpr size_t kStackBytes = size_t{256} << 10;
/// What a block may have of shared memory, without and with cudaFuncSetAttribute.
inline constexpr size_t kMostShared = size_t{48} << 10, kMostSharedAsked = size_t{227} << 10;
/// Room for gaps between its variables.
inline constexpr size_t kSharedArena = kMostSharedAsked + (size_t{16} << 10);

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
  size_t there;  ///< bytes that are read; zeros stand for the rest
  int group;
};

struct Thread {
  unsigned index = 0;
  unsigned warp_epoch = 0;  ///< how many times it was ordered with others of its warp
  const char* waits = nullptr;
  char* stack = nullptr;
  std::vector<Copy> copies;  ///< cp.async that have not arrived
  int group = 0;             ///< of the copies that it begins
};

struct Block {
  const char* kernel = "";
  dim3 grid, size, index;
  unsigned threads = 0;
  const void* arguments = nullptr;
  size_t argument_bytes = 0;
  unsigned epoch = 0;         ///< rises at each barrier, and from block to block
  unsigned serial = 0;        ///< of the block; rises for ever
  unsigned first_serial = 0;  ///< of the launch's first block
  Thread* thread = nullptr;   ///< that runs
};
extern Block block;
/// Whether this thread of the host runs a kernel.
extern thread_local bool in_kernel;

/// Runs all blocks of a launch.
void run(const Config& config, const Launch& launch);

/// A value of each lane.
using LaneValues = std::array<uint64_t, kWarp>;
/// An instruction of a whole warp: when all 32 lanes have come, `act` is called once,
/// and then all go on. A finding where lanes have ended, or never were.
void act_together(const char* what, uint64_t value, void (*act)(const LaneValues&));

/// Ends the program with a finding: `what`, and the thread that runs.
[[noreturn]] void fail_thread(const std::string& what);
[[noreturn]] void fail_program(const std::string& what);
/// The whole number that an environment variable holds, `otherwise` where it is not
/// set. Ends the program where it holds something else.
uint64_t number_of(const char* variable, uint64_t otherwise);
std::string name_of_thread(unsigned index);

/// Forgets the shared variables of the launch before; takes `dynamic` bytes of it.
void begin_shared(size_t dynamic);
/// The block's shared memory holds nothing of use.
void poison_shared();

/// Numbers from ORRERY_EMULATOR_SEED.
uint64_t draw();
inline uint64_t draw(uint64_t below) { return draw() % below; }

}  // namespace simt
