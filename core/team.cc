#include "core/team.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "core/parallel.h"
#include "core/spin_bound.h"

namespace orrery {
namespace {

// Pauses between two looks at the clock; a look costs as much as one or two pauses.
constexpr int kPausesPerLook = 32;
constexpr size_t kLine = 128;  // two cache lines, since they are fetched in pairs

constinit thread_local bool t_inside_part = false;

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t), "a futex is a plain word");

/// Sleeps until woken, if `word` is still `expected`; may return at any time.
void futex_wait(std::atomic<uint32_t>& word, uint32_t expected) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void futex_wake(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

/// Returns when ready() holds, or when sleep() has returned, after which the caller
/// looks again. Spins for the bound first.
template <class Ready, class Sleep>
void wait(SpinBound& bound, const Ready& ready, const Sleep& sleep) {
  for (int i = 0; i < kPausesPerLook; ++i) {
    if (ready()) return;
    pause();
  }
  const auto start = std::chrono::steady_clock::now();
  SpinBound::Duration waited{};
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (ready()) return bound.spun(waited);
      pause();
    }
    waited = std::chrono::steady_clock::now() - start;
  } while (waited < bound.get());
  sleep();
  bound.slept(std::chrono::steady_clock::now() - start);
}

// Invariants, by number; the code below refers to them. A region is one call of run().
//  1. Only the caller writes the region (function_, body_, error_), and only while no
//     slot is open and no part that was begun is unfinished.
//  2. Only the caller opens a slot, after 1 (release). Only a claim closes it, which is
//     a compare-and-exchange (acquire). So each part is begun once, by a thread that
//     sees the region. Nobody reads the region without a claim, so it does not matter
//     how late a member is, nor which region it takes this one for.
//  3. unfinished_ counts the parts that have not ended. The thread that claimed a part
//     subtracts it after the part's end (release). The caller leaves the region when it
//     has seen 0 (acquire): all that the parts wrote is visible then, and no thread
//     touches the region any more.
//  4. unclaimed_ is at least the number of open slots: it is lowered after the claim
//     and before 3. So 0 means that no slot is open, and it is exactly 0 between
//     regions.
//  5. Only a slot's own member sets it to kAsleep, and only from kIdle. Only the caller
//     replaces kAsleep, and it then wakes the member. The kernel looks at the word once
//     more before it lets a thread sleep, so no opening is slept through.
//  6. The caller sets kCallerSleeps in unfinished_ before it sleeps on that word. The
//     thread that brings the count to 0 and finds the bit wakes the caller. Waking it
//     once too often is harmless, since every sleep is in a loop.
//  7. Slots and counters live until the members have been joined.
class Team {
 public:
  Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  ~Team();

  void run(int64_t parts, PartFunction function, void* body);

 private:
  enum State : uint32_t { kIdle, kOpen, kAsleep, kQuit };
  static constexpr uint32_t kCallerSleeps = uint32_t{1} << 31;

  struct alignas(kLine) Slot {
    std::atomic<uint32_t> state = kIdle;
    Team* team = nullptr;  // the team whose member has this slot's number; the caller is 0
    uint32_t number = 0;
    pthread_t thread{};
  };

  void grow(uint32_t members);
  static void* serve(void* slot);
  void work(uint32_t member);
  void finish(uint32_t parts);

  const pid_t process_;
  const uint32_t max_members_;  // the caller is one
  uint32_t members_ = 1;
  bool refused_ = false;  // the system gave no further thread

  PartFunction function_ = nullptr;
  void* body_ = nullptr;
  std::exception_ptr error_;
  std::atomic<bool> failed_ = false;
  std::atomic<uint32_t> parts_ = 0;
  SpinBound bound_;  // the caller's

  alignas(kLine) std::atomic<uint32_t> unclaimed_ = 0;
  std::atomic<uint32_t> unfinished_ = 0;
  std::array<Slot, kMaxParts> slots_;
};

Team::Team() : process_(getpid()), max_members_(max_team_members()) {}

Team::~Team() {
  if (getpid() != process_) return;  // fork() copied no members
  for (uint32_t i = 1; i < members_; ++i) {
    if (slots_[i].state.exchange(kQuit, std::memory_order_acq_rel) == kAsleep)
      futex_wake(slots_[i].state);
  }
  for (uint32_t i = 1; i < members_; ++i) pthread_join(slots_[i].thread, nullptr);
}

/// Starts members until there are `members` of them, or the system refuses.
void Team::grow(uint32_t members) {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return;
  int error = pthread_attr_setstacksize(&attributes, kTeamStackBytes);
  while (error == 0 && members_ < members) {
    Slot& slot = slots_[members_];
    slot.team = this;
    slot.number = members_;
    error = pthread_create(&slot.thread, &attributes, serve, &slot);
    if (error == 0) ++members_;
  }
  pthread_attr_destroy(&attributes);
  if (error == 0) return;
  refused_ = true;
  static std::atomic<bool> told = false;
  if (told.exchange(true)) return;
  spdlog::warn(
      "the system refused thread {} of the {} of a loop ({}); loops run with fewer. "
      "Raise the limit (ulimit -u, a container's pids limit) or set cluster.threads lower",
      members_ + 1, members, std::strerror(error));
}

/// What a member's thread runs until it is told to quit.
void* Team::serve(void* argument) {
  Slot& slot = *static_cast<Slot*>(argument);
  pthread_setname_np(pthread_self(), "orrery team");  // for top -H
  t_inside_part = true;
  SpinBound bound;
  const auto ready = [&] { return slot.state.load(std::memory_order_acquire) != kIdle; };
  const auto sleep = [&] {  // 5
    uint32_t idle = kIdle;
    if (!slot.state.compare_exchange_strong(idle, kAsleep, std::memory_order_relaxed)) return;
    while (slot.state.load(std::memory_order_relaxed) == kAsleep) futex_wait(slot.state, kAsleep);
  };
  while (slot.state.load(std::memory_order_relaxed) != kQuit) {
    wait(bound, ready, sleep);
    slot.team->work(slot.number);  // its own part, if nobody else has begun it, or another
  }
  return nullptr;
}

/// Claims and runs parts until none is open, beginning with the member's own.
void Team::work(uint32_t member) {
  const uint32_t parts = parts_.load(std::memory_order_relaxed);
  uint32_t ended = 0;
  for (uint32_t i = 0; i < parts && unclaimed_.load(std::memory_order_relaxed) > 0; ++i) {  // 4
    const uint32_t part = (member + i) % parts;
    std::atomic<uint32_t>& state = slots_[part].state;
    uint32_t open = kOpen;
    if (state.load(std::memory_order_relaxed) != kOpen ||
        !state.compare_exchange_strong(open, kIdle, std::memory_order_acquire,
                                       std::memory_order_relaxed)) {
      continue;
    }
    unclaimed_.fetch_sub(1, std::memory_order_relaxed);
    try {
      function_(body_, part);  // 2
    } catch (...) {
      if (!failed_.exchange(true, std::memory_order_relaxed)) error_ = std::current_exception();
    }
    ++ended;
  }
  if (ended > 0) finish(ended);
}

void Team::finish(uint32_t parts) {
  if (unfinished_.fetch_sub(parts, std::memory_order_acq_rel) == (kCallerSleeps | parts)) {  // 3, 6
    futex_wake(unfinished_);
  }
}

void Team::run(int64_t parts, PartFunction function, void* body) {
  const uint32_t count = parts;  // at most kMaxParts
  const uint32_t wanted = std::min(count, max_members_);
  if (wanted > members_ && !refused_) grow(wanted);

  function_ = function;  // 1
  body_ = body;
  parts_.store(count, std::memory_order_relaxed);
  unclaimed_.store(count, std::memory_order_relaxed);
  unfinished_.store(count, std::memory_order_relaxed);
  std::array<uint16_t, kMaxParts> asleep;  // NOLINT: written below as far as it is read
  size_t sleepers = 0;
  for (uint32_t i = 0; i < count; ++i) {
    if (slots_[i].state.exchange(kOpen, std::memory_order_acq_rel) != kAsleep) continue;  // 2
    asleep[sleepers++] = i;
  }
  // A wake is a system call, so those who spin are given their work first.
  for (size_t i = 0; i < sleepers; ++i) futex_wake(slots_[asleep[i]].state);  // 5

  t_inside_part = true;
  work(0);
  t_inside_part = false;
  const auto ready = [&] { return unfinished_.load(std::memory_order_acquire) == 0; };
  const auto sleep = [&] {  // 6
    uint32_t left = unfinished_.fetch_or(kCallerSleeps, std::memory_order_acq_rel) | kCallerSleeps;
    for (; left != kCallerSleeps; left = unfinished_.load(std::memory_order_acquire))
      futex_wait(unfinished_, left);
  };
  wait(bound_, ready, sleep);
  if (failed_.load(std::memory_order_relaxed)) {
    failed_.store(false, std::memory_order_relaxed);
    std::rethrow_exception(std::exchange(error_, nullptr));
  }
}

}  // namespace

int max_team_members() { return std::min(int{kMaxParts}, kMembersPerCpu * available_cpus()); }

bool inside_part() { return t_inside_part; }

void run_parts(int64_t parts, PartFunction function, void* body) {
  ORRERY_CHECK(parts >= 1 && parts <= kMaxParts && !t_inside_part, "{} parts", parts);
  thread_local std::unique_ptr<Team> team;
  if (!team) team = std::make_unique<Team>();
  team->run(parts, function, body);
}

}  // namespace orrery
