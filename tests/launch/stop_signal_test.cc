#include "launch/stop_signal.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <initializer_list>

namespace orrery::launch {
namespace {

// Each in a process of its own: what came to one is remembered.

constexpr int kAsked = 10, kNotAsked = 11;

/// Sends the signals, with pauses of 1.1 s for 0, and leaves.
[[noreturn]] void send(std::initializer_list<int> signals, bool announce = true) {
  install_stop_handlers(announce);
  for (const int signal : signals) {
    if (signal == 0) {
      usleep(1'100'000);
    } else {
      std::raise(signal);
    }
  }
  _exit(stop_requested() ? kAsked : kNotAsked);
}

TEST(StopSignalDeathTest, EachAsks) {
  EXPECT_EXIT(send({}), testing::ExitedWithCode(kNotAsked), "^$");
  EXPECT_EXIT(send({SIGTERM}), testing::ExitedWithCode(kAsked),
              "orrery: asked to stop by SIGTERM: saving");
  EXPECT_EXIT(send({SIGINT}), testing::ExitedWithCode(kAsked), "asked to stop by SIGINT: saving");
  EXPECT_EXIT(send({SIGHUP}), testing::ExitedWithCode(kAsked), "asked to stop by SIGHUP: saving");
  EXPECT_EXIT(send({SIGUSR1}), testing::ExitedWithCode(kAsked), "asked to stop by SIGUSR1: saving");
  EXPECT_EXIT(send({SIGTERM}, /*announce=*/false), testing::ExitedWithCode(kAsked), "^$");
}

TEST(StopSignalDeathTest, TwoWithinASecondAreOneRequest) {
  EXPECT_EXIT(send({SIGTERM, SIGTERM, SIGINT, SIGHUP}), testing::ExitedWithCode(kAsked),
              "by SIGTERM: saving[^\n]*\n$");
}

TEST(StopSignalDeathTest, ASecondOneEndsItNow) {
  EXPECT_EXIT(send({SIGTERM, 0, SIGTERM}), testing::ExitedWithCode(128 + SIGTERM),
              "again, by SIGTERM: ending at once");
  EXPECT_EXIT(send({SIGTERM, 0, SIGINT}), testing::ExitedWithCode(128 + SIGINT),
              "again, by SIGINT");
  EXPECT_EXIT(send({SIGINT, SIGINT, 0, SIGHUP}, /*announce=*/false),
              testing::ExitedWithCode(128 + SIGHUP), "again, by SIGHUP");
}

TEST(StopSignalDeathTest, WhatIsPassedOnNeverIsTheSecond) {
  EXPECT_EXIT(send({SIGTERM, 0, SIGUSR1, 0, SIGUSR1}), testing::ExitedWithCode(kAsked), "");
  EXPECT_EXIT(send({SIGUSR1, 0, SIGTERM}), testing::ExitedWithCode(kAsked), "")
      << "its warning, then the end of its time";
  EXPECT_EXIT(send({SIGUSR1, 0, SIGTERM, 0, SIGTERM}), testing::ExitedWithCode(128 + SIGTERM), "");
}

TEST(StopSignalDeathTest, AHangUpThatWasIgnoredStaysSo) {
  EXPECT_EXIT(
      {
        std::signal(SIGHUP, SIG_IGN);
        send({SIGHUP});
      },
      testing::ExitedWithCode(kNotAsked), "^$");
}

TEST(StopSignalDeathTest, AChildStartsWithDefaultsButForWhatWasIgnored) {
  EXPECT_EXIT(
      {
        install_stop_handlers(/*announce=*/false);
        reset_stop_signals();
        std::raise(SIGTERM);
        _exit(0);
      },
      testing::KilledBySignal(SIGTERM), "");
  EXPECT_EXIT(
      {
        std::signal(SIGHUP, SIG_IGN);
        install_stop_handlers(/*announce=*/false);
        reset_stop_signals();
        std::raise(SIGHUP);
        _exit(0);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace orrery::launch
