#include "core/parallel.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <latch>
#include <numeric>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/spin_bound.h"

#if defined(__SANITIZE_ADDRESS__)
#define ORRERY_UNDER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ORRERY_UNDER_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define ORRERY_UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ORRERY_UNDER_TSAN 1
#endif
#endif
#ifndef ORRERY_UNDER_TSAN
#define ORRERY_UNDER_TSAN 0
#endif

namespace orrery {
namespace {

Context context_of(int threads) { return Context{.threads = threads}; }

/// How often each of `count` numbers is reached by a loop of this many threads.
std::vector<int> hits_of(int threads, int64_t count, int64_t grain = 1) {
  std::vector<int> hits(
      static_cast<size_t>(count));  // parts are disjoint, or ThreadSanitizer says so
  parallel_for(context_of(threads), count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
  });
  return hits;
}

TEST(Parallel, CoversTheRangeOnce) {
  for (const int threads : {0, 1, 2, 3, 5, 8, 64, 513, 4096}) {
    for (const int64_t count : {0, 1, 2, 3, 7, 64, 1001}) {
      const std::vector<int> once(static_cast<size_t>(count), 1);
      EXPECT_EQ(hits_of(threads, count), once) << threads << " threads";
      std::vector<int> items(static_cast<size_t>(count));
      parallel_items(context_of(threads), count,
                     [&](int64_t i) { ++items[static_cast<size_t>(i)]; });
      EXPECT_EQ(items, once) << threads << " threads";
    }
  }
}

TEST(Parallel, CutsAtTheSamePlacesWhoeverRunsTheParts) {
  std::vector<std::atomic<int64_t>> ends(100);
  parallel_for(context_of(3), 100, 1,
               [&](int64_t begin, int64_t end) { ends[static_cast<size_t>(begin)] = end; });
  EXPECT_EQ(ends[0], 33);
  EXPECT_EQ(ends[33], 66);
  EXPECT_EQ(ends[66], 100);
  std::atomic<int> calls = 0;
  parallel_for(context_of(8), 100, 40, [&](int64_t, int64_t) { ++calls; });  // two are worth it
  EXPECT_EQ(calls, 2);
}

TEST(Parallel, SeveralThreadsWorkAtOnce) {
  std::latch both(2);  // each part waits for the other, which no real loop may do
  parallel_for(context_of(2), 2, 1, [&](int64_t, int64_t) { both.arrive_and_wait(); });
}

TEST(Parallel, APartThatIsSlowToStartIsTakenByOthers) {
  // One of two parts lasts until all other items are done, whoever does them.
  std::atomic<int> done = 0;
  parallel_items(context_of(2), 100, [&](int64_t i) {
    while (i == 0 && done < 99) std::this_thread::yield();
    ++done;
  });
  EXPECT_EQ(done, 100);
}

TEST(Parallel, ExceptionsReachTheCallerAndTheTeamGoesOn) {
  const Context ctx = context_of(3);
  for (int turn = 0; turn < 100; ++turn) {
    EXPECT_THROW(parallel_for(ctx, 100, 1, [](int64_t, int64_t) { fail("boom"); }), Error);
    EXPECT_THROW(parallel_items(ctx, 100, [](int64_t) { fail("boom"); }), Error);
    std::atomic<int64_t> parts = 0;
    try {
      parallel_for(ctx, 3, 1, [&](int64_t begin, int64_t) {
        ++parts;
        if (begin == turn % 3) fail("part {}", begin);
      });
      ADD_FAILURE() << "no exception";
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()), "part " + std::to_string(turn % 3));
    }
    EXPECT_EQ(parts, 3);  // the others were not cut short
    EXPECT_EQ(hits_of(3, 10), std::vector<int>(10, 1));
  }
  EXPECT_THROW(parallel_for(ctx, 3, 1, [](int64_t, int64_t) { throw 1; }), int);
  EXPECT_FALSE(inside_part());
}

TEST(Parallel, NestedLoopsRunWhereTheyAre) {
  const Context ctx = context_of(3);
  std::atomic<int> wrong = 0, items = 0;
  parallel_for(ctx, 12, 1, [&](int64_t begin, int64_t end) {
    const std::thread::id self = std::this_thread::get_id();
    for (int64_t i = begin; i < end; ++i) {
      parallel_for(ctx, 10, 1, [&](int64_t first, int64_t last) {
        if (first != 0 || last != 10 || std::this_thread::get_id() != self) ++wrong;
        parallel_items(ctx, 4, [&](int64_t) { ++items; });
      });
    }
  });
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(items, 12 * 4);
  // An exception passes through both loops, and the caller is outside afterwards.
  EXPECT_THROW(
      parallel_for(ctx, 3, 1,
                   [&](int64_t, int64_t) { parallel_items(ctx, 2, [](int64_t) { fail("x"); }); }),
      Error);
  EXPECT_FALSE(inside_part());
}

TEST(Parallel, CallersDoNotMeet) {
  std::vector<std::thread> callers;
  std::atomic<int64_t> sum = 0;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&, caller] {
      for (int turn = 0; turn < 300; ++turn) {
        const std::vector<int> hits = hits_of(2 + caller % 3, 50 + turn);
        sum += std::accumulate(hits.begin(), hits.end(), int64_t{0});
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, 4 * (300 * 50 + 299 * 300 / 2));
}

TEST(Parallel, ATeamEndsWithItsCaller) {
  const auto threads_now = [] {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
      names.insert(entry.path().filename());
    }
    return names.size();
  };
  std::thread([] {}).join();  // with the first one ThreadSanitizer starts one of its own
  const size_t before = threads_now();
  for (int turn = 0; turn < 20; ++turn) {
    std::thread([] { EXPECT_EQ(hits_of(4, 100), std::vector<int>(100, 1)); }).join();
  }
  // A joined thread's entry in /proc may outlive it by a moment.
  for (int look = 0; look < 1000 && threads_now() > before; ++look) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_LE(threads_now(), before);
}

TEST(Parallel, TeamsGrowAndShrinkFromCallToCall) {
  for (int turn = 0; turn < 200; ++turn) {
    const int threads = 1 + (turn * 7) % 11;
    ASSERT_EQ(hits_of(threads, 40 + turn), std::vector<int>(static_cast<size_t>(40 + turn), 1));
  }
}

TEST(Parallel, TinyLoopsByTheThousand) {
  constexpr int kLoops = ORRERY_UNDER_TSAN ? 20'000 : 1'000'000;
  for (const int threads : {2, 3}) {
    std::vector<int64_t> sums(static_cast<size_t>(threads) * 16);
    int64_t wanted = 0;
    for (int turn = 0; turn < kLoops / 2; ++turn) {
      parallel_for(context_of(threads), threads, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) sums[static_cast<size_t>(i) * 16] += turn;
      });
      wanted += turn;
    }
    for (int64_t i = 0; i < threads; ++i) EXPECT_EQ(sums[static_cast<size_t>(i) * 16], wanted);
  }
}

TEST(Parallel, MembersThatSleepAreWoken) {
  for (const int pause_us : {0, 20, 200, 2000, 5000}) {
    for (int turn = 0; turn < 20; ++turn) {
      std::this_thread::sleep_for(
          std::chrono::microseconds(pause_us));  // longer than anybody spins, at last
      std::latch all(3);
      parallel_for(context_of(3), 3, 1, [&](int64_t, int64_t) { all.arrive_and_wait(); });
    }
  }
}

TEST(Parallel, CallersThatSleepAreWoken) {
  for (const int part_ms : {1, 3, 10}) {
    std::vector<int> done(3);
    std::latch all(3);
    parallel_for(context_of(3), 3, 1, [&](int64_t begin, int64_t) {
      all.arrive_and_wait();  // so that each part has a thread of its own
      std::this_thread::sleep_for(std::chrono::milliseconds(begin == 0 ? 0 : part_ms * begin));
      done[static_cast<size_t>(begin)] = 1;
    });
    EXPECT_EQ(done, std::vector<int>(3, 1));
  }
}

std::atomic<int> g_held = 0;  // a signal handler's
std::atomic<bool> g_release = false;

void hold_this_thread(int) {
  ++g_held;
  const timespec moment{0, 1'000'000};
  while (!g_release) nanosleep(&moment, nullptr);
}

TEST(Parallel, NoLoopWaitsForAMemberThatDoesNotRun) {
  if (ORRERY_UNDER_TSAN) GTEST_SKIP() << "ThreadSanitizer puts signals off";
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = hold_this_thread;
  ASSERT_EQ(sigaction(SIGUSR2, &action, &before), 0);
  for (const int spinning : {0, 1}) {  // the members sleep, or have just ended a loop
    g_held = 0, g_release = false;
    std::vector<pthread_t> threads(3);
    std::latch all(3);
    parallel_for(context_of(3), 3, 1, [&](int64_t begin, int64_t) {
      threads[static_cast<size_t>(begin)] = pthread_self();
      all.arrive_and_wait();
    });
    if (spinning == 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    for (const pthread_t thread : threads) {
      if (pthread_equal(thread, pthread_self()) == 0) pthread_kill(thread, SIGUSR2);
    }
    while (g_held < 2) std::this_thread::yield();
    for (int turn = 0; turn < 100; ++turn) {
      EXPECT_EQ(hits_of(3, 100), std::vector<int>(100, 1));
      std::atomic<int> items = 0;
      parallel_items(context_of(3), 100, [&](int64_t) { ++items; });
      EXPECT_EQ(items, 100);
    }
    g_release = true;
    std::latch again(3);  // and now they do
    parallel_for(context_of(3), 3, 1, [&](int64_t, int64_t) { again.arrive_and_wait(); });
  }
  sigaction(SIGUSR2, &before, nullptr);
}

TEST(Parallel, ManyMoreThreadsThanCpus) {
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([] {
      for (int turn = 0; turn < 300; ++turn) {
        ASSERT_EQ(hits_of(8, 64), std::vector<int>(64, 1));
        int64_t sum = 0;
        std::vector<int64_t> parts(8);
        parallel_for(context_of(8), 8, 1, [&](int64_t begin, int64_t) {
          volatile int64_t work = 0;
          for (int64_t i = 0; i < 2000; ++i) work = work + i % 3;
          parts[static_cast<size_t>(begin)] = work;
        });
        for (const int64_t part : parts) sum += part;
        ASSERT_EQ(sum, 8 * parts[0]);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

TEST(Parallel, StacksDoNotDependOnTheCallers) {
  std::atomic<size_t> least = SIZE_MAX;
  const pthread_t caller = pthread_self();
  std::latch all(3);
  parallel_for(context_of(3), 3, 1, [&](int64_t, int64_t) {
    all.arrive_and_wait();
    if (pthread_equal(caller, pthread_self()) != 0) return;
    pthread_attr_t attributes;
    size_t bytes = 0;
    ASSERT_EQ(pthread_getattr_np(pthread_self(), &attributes), 0);
    pthread_attr_getstacksize(&attributes, &bytes);
    pthread_attr_destroy(&attributes);
    for (size_t seen = least; bytes < seen && !least.compare_exchange_weak(seen, bytes);) {
    }
  });
  EXPECT_GE(least, kTeamStackBytes);
}

/// The exit code of a child that runs `body`, killed after a minute.
template <class Body>
int child_exit_code(const Body& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    body();
#ifdef ORRERY_UNDER_ASAN
    std::_Exit(0);  // at exit() the leak check would wait for threads that the child does not have
#else
    std::exit(0);  // with all destructors
#endif
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST(Parallel, AChildOfAForkWorksAloneAndEnds) {
  EXPECT_EQ(hits_of(3, 100), std::vector<int>(100, 1));
  EXPECT_EQ(child_exit_code([] {
              for (int turn = 0; turn < 100; ++turn) {
                if (hits_of(3, 100) != std::vector<int>(100, 1)) std::_Exit(1);
              }
            }),
            0);
  EXPECT_EQ(hits_of(3, 100), std::vector<int>(100, 1));
}

TEST(Parallel, RunsWithFewerWhereThreadsAreRefused) {
  if (ORRERY_UNDER_TSAN) GTEST_SKIP() << "ThreadSanitizer starts a thread of its own";
  const auto refused = [] {
    const rlimit one{1, 1};  // of this user's processes and threads; it binds all users but root
    if (setrlimit(RLIMIT_NPROC, &one) != 0) std::_Exit(77);
    if (getuid() == 0 && setuid(65534) != 0) std::_Exit(77);
    try {
      std::thread([] {}).join();
      std::_Exit(77);
    } catch (const std::system_error&) {
    }
    for (int turn = 0; turn < 10; ++turn) {
      if (hits_of(4096, 5000) != std::vector<int>(5000, 1)) std::_Exit(1);
    }
    std::_Exit(0);
  };
  const int code =
      child_exit_code([&] { std::thread(refused).join(); });  // a thread that has no team yet
  if (code == 77) GTEST_SKIP() << "no user here whose threads can be refused";
  EXPECT_EQ(code, 0);
}

/// Waits for something that comes after `gap` from the start of a wait; returns whether
/// it spun till then.
bool wait_for(SpinBound& bound, SpinBound::Duration gap) {
  const bool spins = gap <= bound.get();
  if (spins) {
    bound.spun(gap);
  } else {
    bound.slept(gap + std::chrono::microseconds(50));  // which it takes to wake
  }
  return spins;
}

TEST(SpinBound, GapsOfAUsualLengthAreSpunThrough) {
  SpinBound bound;
  for (int i = 0; i < 1000; ++i)
    EXPECT_TRUE(wait_for(bound, std::chrono::microseconds(1 + i % 250)));
  for (int turn = 0; turn < 20; ++turn) {  // a few long ones between do not matter
    for (int i = 0; i < 3; ++i) wait_for(bound, std::chrono::milliseconds(20));
    int slept = 0;
    for (int i = 0; i < 100; ++i)
      slept += !wait_for(bound, std::chrono::microseconds(1 + (i * 37) % 200));
    EXPECT_LE(slept, 2) << "turn " << turn;
  }
}

TEST(SpinBound, NoWorkIsNotSpunFor) {
  SpinBound bound;
  for (int i = 0; i < 10; ++i) wait_for(bound, std::chrono::milliseconds(20));
  EXPECT_EQ(bound.get(), SpinBound::kMinBound);
  wait_for(bound, std::chrono::microseconds(60));  // and then there is again
  EXPECT_TRUE(wait_for(bound, std::chrono::microseconds(60)));
}

TEST(SpinBound, WhoeverSpinsOnTheCpuThatIsNeededSoonSleeps) {
  SpinBound bound;
  SpinBound::Duration spun{};
  for (int i = 0; i < 1000;
       ++i) {  // what is waited for comes 60 us after this thread has gone to sleep
    spun += bound.get();
    bound.slept(bound.get() + std::chrono::microseconds(60));
  }
  EXPECT_LT(spun / 1000, 3 * SpinBound::kMinBound);
  // The first gap after that is slept through, the others are not for long.
  int slept = 0;
  for (int i = 0; i < 1000; ++i) slept += !wait_for(bound, std::chrono::microseconds(60));
  EXPECT_LE(slept, SpinBound::kMaxPenalty + 1);
}

}  // namespace
}  // namespace orrery
