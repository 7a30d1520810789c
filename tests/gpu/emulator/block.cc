// A block's threads are fibers that take turns: one runs until it waits for others or
// ends. Which goes on then is drawn. A fiber whose thread ended takes another thread.
#include "tests/gpu/emulator/block.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <array>
#include <bit>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <numeric>

#include "tests/gpu/emulator/memory.h"

namespace simt {

Block block;
thread_local bool in_kernel = false;

namespace {

struct Fiber {
  jmp_buf context;
  ucontext_t first;  // where it begins
  bool started = false;
  char* stack = nullptr;
  Thread thread;
};

/// What lanes of a warp wait for together.
struct Meeting {
  unsigned mask = 0, arrived = 0;
  const char* what = nullptr;
  void (*act)(const LaneValues&) = nullptr;  // of act_together
};
struct Warp {
  unsigned alive = 0, epoch = 0;
  std::vector<Meeting> meetings;
  std::array<Fiber*, kWarp> waiting{};
  LaneValues value{}, result{};
  std::array<uint8_t, kWarp> from{};
};

struct Scheduler {
  jmp_buf host;
  const Launch* launch = nullptr;
  std::vector<Fiber*> idle;
  std::deque<Fiber*> ready;
  Fiber* running = nullptr;
  // Threads begin in the order first, first + step, ... modulo their number.
  unsigned begun = 0, first = 0, step = 1;
  bool begin_first = true;
  unsigned alive = 0;
  std::vector<Fiber*> at_barrier;
  bool any = false, any_result = false;
  std::vector<Warp> warps;
  std::map<const void*, void*> shared;
};
Scheduler& scheduler() {
  static auto* const it = new Scheduler;
  return *it;
}

[[noreturn]] void fiber_main();

Fiber* make_fiber() {
  auto* const fiber = new Fiber;
  constexpr size_t kGuard = 4096;
  void* const memory = ::mmap(nullptr, kStackBytes + kGuard, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) fail_program("no memory for a thread's stack");
  ::mprotect(memory, kGuard, PROT_NONE);
  fiber->stack = static_cast<char*>(memory) + kGuard;
  fiber->thread.stack = fiber->stack;
  ::getcontext(&fiber->first);
  fiber->first.uc_stack.ss_sp = fiber->stack;
  fiber->first.uc_stack.ss_size = kStackBytes;
  ::makecontext(&fiber->first, fiber_main, 0);
  return fiber;
}

void resume(Fiber* fiber) {
  Scheduler& s = scheduler();
  s.running = fiber;
  block.thread = &fiber->thread;
  fiber->thread.waits = nullptr;
  if (fiber->started) _longjmp(fiber->context, 1);
  fiber->started = true;
  ::setcontext(&fiber->first);
  std::abort();
}

[[noreturn]] void fail_deadlock() {
  in_kernel = false;
  Scheduler& s = scheduler();
  std::map<std::string, std::pair<unsigned, unsigned>> waits;  // the first thread, how many
  const auto count = [&](const Fiber* fiber) {
    auto& entry = waits.try_emplace(fiber->thread.waits, fiber->thread.index, 0).first->second;
    entry.first = std::min(entry.first, fiber->thread.index);
    ++entry.second;
  };
  for (const Fiber* fiber : s.at_barrier) count(fiber);
  for (const Warp& warp : s.warps) {
    for (const Fiber* fiber : warp.waiting) {
      if (fiber != nullptr) count(fiber);
    }
  }
  std::string text = "a deadlock:";
  for (const auto& [what, entry] : waits) {
    text += " " + std::to_string(entry.second) + " threads wait at " + what + " (the first is " +
            name_of_thread(entry.first) + ");";
  }
  block.thread = nullptr;
  fail_thread(text);
}

/// The next fiber to run; null when the block has ended.
Fiber* next() {
  Scheduler& s = scheduler();
  if (s.begun < block.threads && (s.begin_first || s.ready.empty())) {
    if (s.idle.empty()) s.idle.push_back(make_fiber());
    Fiber* const fiber = s.idle.back();
    s.idle.pop_back();
    return fiber;
  }
  if (s.ready.empty()) {
    if (s.alive > 0) fail_deadlock();
    return nullptr;
  }
  Fiber* fiber = nullptr;
  if (draw(2) == 0) {
    fiber = s.ready.front();
    s.ready.pop_front();
  } else {
    fiber = s.ready.back();
    s.ready.pop_back();
  }
  return fiber;
}

/// Lets others run until somebody resumes this fiber.
void leave(Fiber* fiber) {
  if (_setjmp(fiber->context) != 0) return;
  Fiber* const other = next();
  if (other == nullptr) _longjmp(scheduler().host, 1);
  resume(other);
}

void end_warp_part(unsigned index);

void fiber_main() {
  Scheduler& s = scheduler();
  for (;;) {
    Fiber* const fiber = s.running;
    Thread& thread = fiber->thread;
    // Idle fibers are woken for threads alone, but one thread that ended its fiber may
    // have taken the last.
    while (s.begun < block.threads) {
      thread.index = (s.first + s.begun++ * s.step) % block.threads;
      thread.warp_epoch = 0;
      thread.group = 0;
      s.launch->call(s.launch->arguments);
      wait_for_copies(-1);
      --s.alive;
      end_warp_part(thread.index);
    }
    s.idle.push_back(fiber);
    leave(fiber);
  }
}

void release_barrier() {
  Scheduler& s = scheduler();
  ++block.epoch;
  s.any_result = s.any;
  s.any = false;
  for (Fiber* fiber : s.at_barrier) s.ready.push_back(fiber);
  s.at_barrier.clear();
}

void complete(Warp& warp, const Meeting& meeting) {
  const unsigned members = meeting.mask & warp.alive;
  if (meeting.act != nullptr) {
    if (members != ~0u)
      fail_thread(std::string(meeting.what) + " by " + std::to_string(std::popcount(members)) +
                  " threads of a warp: all 32 must take part");
    return meeting.act(warp.value);
  }
  if (meeting.what == std::string_view("__syncwarp")) {
    ++warp.epoch;
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      if ((members >> lane & 1) != 0) warp.waiting[lane]->thread.warp_epoch = warp.epoch;
    }
  }
  unsigned ballots = 0;
  for (unsigned lane = 0; lane < kWarp; ++lane)
    if ((members >> lane & 1) != 0 && warp.value[lane] != 0) ballots |= 1u << lane;
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if ((members >> lane & 1) == 0) continue;
    if (meeting.what == std::string_view("a shuffle")) {
      if ((members >> warp.from[lane] & 1) == 0)
        fail_thread("a shuffle of lane " + std::to_string(lane) + " reads lane " +
                    std::to_string(warp.from[lane]) + ", which does not take part");
      warp.result[lane] = warp.value[warp.from[lane]];
    } else {
      warp.result[lane] = ballots;
    }
  }
}

/// Whether the meeting was complete: then all its fibers but `self` are ready.
bool complete_if_all(Warp& warp, size_t at, const Fiber* self) {
  const Meeting meeting = warp.meetings[at];
  if ((meeting.mask & warp.alive) != meeting.arrived) return false;
  complete(warp, meeting);
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if ((meeting.arrived >> lane & 1) == 0) continue;
    if (warp.waiting[lane] != self) scheduler().ready.push_back(warp.waiting[lane]);
    warp.waiting[lane] = nullptr;
  }
  warp.meetings.erase(warp.meetings.begin() + static_cast<std::ptrdiff_t>(at));
  return true;
}

/// A thread ended: those that wait for the rest may go on.
void end_warp_part(unsigned index) {
  Scheduler& s = scheduler();
  if (!s.at_barrier.empty() && s.at_barrier.size() == s.alive) release_barrier();
  Warp& warp = s.warps[index / kWarp];
  warp.alive &= ~(1u << index % kWarp);
  for (size_t i = 0; i < warp.meetings.size();) {
    if (!complete_if_all(warp, i, nullptr)) ++i;
  }
}

uint64_t meet(const char* what, unsigned mask, uint64_t value, unsigned from,
              void (*act)(const LaneValues&) = nullptr) {
  Scheduler& s = scheduler();
  Fiber* const fiber = s.running;
  const unsigned index = fiber->thread.index, lane = index % kWarp;
  Warp& warp = s.warps[index / kWarp];
  if ((mask >> lane & 1) == 0) fail_thread(std::string(what) + " whose mask lacks its own thread");
  size_t at = 0;
  while (at < warp.meetings.size() && (warp.meetings[at].mask & mask) == 0) ++at;
  if (at == warp.meetings.size()) warp.meetings.push_back({mask, 0, what, act});
  Meeting& meeting = warp.meetings[at];
  if (meeting.mask != mask || meeting.what != what)
    fail_thread(std::string(what) + " with a mask that overlaps with another one's: the other is " +
                meeting.what);
  meeting.arrived |= 1u << lane;
  warp.value[lane] = value;
  warp.from[lane] = static_cast<uint8_t>(from);
  warp.waiting[lane] = fiber;
  if (!complete_if_all(warp, at, fiber)) {
    fiber->thread.waits = what;
    leave(fiber);
  }
  return warp.result[lane];
}

void run_block(dim3 index) {
  Scheduler& s = scheduler();
  block.index = index;
  ++block.epoch;
  ++block.serial;
  poison_shared();
  const unsigned threads = block.threads;
  s.begun = 0;
  s.alive = threads;
  s.step = static_cast<unsigned>(draw(threads)) | 1;
  if (draw(2) == 0 || std::gcd(s.step, threads) != 1) s.step = draw(2) == 0 ? 1 : threads - 1;
  if (s.step == 0) s.step = 1;
  s.first = static_cast<unsigned>(draw(threads));
  s.begin_first = draw(4) != 0;
  for (unsigned w = 0; w < s.warps.size(); ++w) {
    const unsigned lanes = std::min(kWarp, threads - w * kWarp);
    s.warps[w].alive = lanes == kWarp ? ~0u : (1u << lanes) - 1;
    s.warps[w].epoch = 0;
  }
  if (_setjmp(s.host) == 0) resume(next());
}

}  // namespace

void run(const Config& config, const Launch& launch) {
  Scheduler& s = scheduler();
  s.launch = &launch;
  block.kernel = launch.kernel;
  block.grid = config.grid;
  block.size = config.block;
  block.threads = config.block.x * config.block.y * config.block.z;
  block.arguments = launch.arguments;
  block.argument_bytes = launch.bytes;
  block.first_serial = block.serial + 1;
  begin_shared(config.shared);
  s.shared.clear();
  s.warps.resize((block.threads + kWarp - 1) / kWarp);
  in_kernel = true;
  for (unsigned z = 0; z < config.grid.z; ++z) {
    for (unsigned y = 0; y < config.grid.y; ++y) {
      for (unsigned x = 0; x < config.grid.x; ++x) run_block(dim3(x, y, z));
    }
  }
  in_kernel = false;
  block.thread = nullptr;
}

dim3 thread_index() {
  const unsigned i = block.thread->index;
  if (i < block.size.x) return {i, 0, 0};
  return {i % block.size.x, i / block.size.x % block.size.y, i / block.size.x / block.size.y};
}
dim3 block_index() { return block.index; }
dim3 block_size() { return block.size; }
dim3 grid_size() { return block.grid; }
unsigned lane() { return block.thread->index % kWarp; }

int sync_block_or(int predicate) {
  Scheduler& s = scheduler();
  s.any = s.any || predicate != 0;
  if (s.at_barrier.size() + 1 == s.alive) {
    release_barrier();
  } else {
    Fiber* const fiber = s.running;
    fiber->thread.waits = "__syncthreads";
    s.at_barrier.push_back(fiber);
    leave(fiber);
  }
  return s.any_result ? 1 : 0;
}
void sync_block() { sync_block_or(0); }
void sync_warp(unsigned mask) { meet("__syncwarp", mask, 0, 0); }
uint64_t shuffle(unsigned mask, uint64_t value, unsigned from) {
  return meet("a shuffle", mask, value, from);
}
unsigned ballot(unsigned mask, bool predicate) {
  return static_cast<unsigned>(meet("a vote", mask, predicate ? 1 : 0, 0));
}
void act_together(const char* what, uint64_t value, void (*act)(const LaneValues&)) {
  meet(what, ~0u, value, 0, act);
}

namespace {

/// What a copy leaves behind it.
void deliver(const Copy& copy) {
  if (copy.there > 0) std::memcpy(copy.to, copy.from, copy.there);
  std::memset(static_cast<char*>(copy.to) + copy.there, 0, copy.bytes - copy.there);
}

}  // namespace

void copy_async(void* to, const void* from, size_t bytes, size_t there) {
  Thread& thread = *block.thread;
  if (there > bytes) fail_thread("an asynchronous copy of more bytes than it writes");
  access(to, bytes, Access::kWrite);
  if (there > 0) access(from, there, Access::kRead);
  if (reinterpret_cast<uintptr_t>(to) % bytes != 0 ||
      reinterpret_cast<uintptr_t>(from) % bytes != 0)
    fail_thread("an asynchronous copy of " + std::to_string(bytes) + " bytes that is not aligned");
  const Copy copy{to, from, bytes, there, thread.group};
  if (draw(2) == 0) {
    deliver(copy);
  } else {
    std::memset(to, 0xff, bytes);
  }
  // One that was done at once is checked again where it could have come.
  thread.copies.push_back(copy);
}
void end_copy_group() { ++block.thread->group; }
void wait_for_copies(int later) {
  Thread& thread = *block.thread;
  if (thread.copies.empty()) return;
  const int arrived = later < 0 ? thread.group : thread.group - 1 - later;
  std::erase_if(thread.copies, [&](const Copy& copy) {
    if (copy.group > arrived) return false;
    access(copy.to, copy.bytes, Access::kWrite);
    deliver(copy);
    return true;
  });
}

std::string name_of_thread(unsigned index) {
  return "thread " + std::to_string(index) + " of block (" + std::to_string(block.index.x) + ", " +
         std::to_string(block.index.y) + ", " + std::to_string(block.index.z) + ")";
}
void fail_program(const std::string& what) {
  std::fprintf(stderr, "emulator: %s\n", what.c_str());
  std::fflush(stderr);
  std::abort();
}
void fail_thread(const std::string& what) {
  const std::string where = block.thread != nullptr
                                ? name_of_thread(block.thread->index)
                                : "block (" + std::to_string(block.index.x) + ", " +
                                      std::to_string(block.index.y) + ", " +
                                      std::to_string(block.index.z) + ")";
  in_kernel = false;
  fail_program("kernel " + std::string(block.kernel) + ", " + where + ": " + what);
}

uint64_t number_of(const char* variable, uint64_t otherwise) {
  const char* const text = std::getenv(variable);
  if (text == nullptr) return otherwise;
  uint64_t number = 0;
  const char* const end = text + std::strlen(text);
  const auto result = std::from_chars(text, end, number);
  if (result.ec == std::errc() && result.ptr == end && text != end) return number;
  fail_program(std::string(variable) + " is '" + text + "': give a whole number");
}

uint64_t draw() {
  static uint64_t state = [] {
    return number_of("ORRERY_EMULATOR_SEED", 1) * 0x9E3779B97F4A7C15u + 1;
  }();
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state >> 11;
}

}  // namespace simt
