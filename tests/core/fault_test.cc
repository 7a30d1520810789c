#include "core/fault.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/time.h>

#include <csignal>
#include <filesystem>

#include "core/error.h"
#include "core/file.h"
#include "core/timer.h"
#include "tests/support/scratch.h"

namespace orrery {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Action = FaultAction;

class FaultTest : public testing::Test {
 protected:
  ~FaultTest() override {
    arm_faults("");
    set_fault_rank(0);
  }

  static std::vector<Action> visits(FaultPoint point, int count) {
    std::vector<Action> actions;
    for (int i = 0; i < count; ++i) actions.push_back(fault_point(point));
    return actions;
  }
};

TEST_F(FaultTest, StrikesAtTheVisitsThatAreNamed) {
  EXPECT_FALSE(faults_armed);
  arm_faults("metrics.write:enospc");
  EXPECT_TRUE(faults_armed);
  EXPECT_THAT(visits(FaultPoint::kMetricsWrite, 3),
              ElementsAre(Action::kNoSpace, Action::kNone, Action::kNone));
  EXPECT_EQ(fault_point(FaultPoint::kFileWrite), Action::kNone);
  arm_faults(" metrics.write : torn @ 2 ; file.write:enospc@2+ ");
  EXPECT_THAT(visits(FaultPoint::kMetricsWrite, 3),
              ElementsAre(Action::kNone, Action::kTorn, Action::kNone));
  EXPECT_THAT(visits(FaultPoint::kFileWrite, 3),
              ElementsAre(Action::kNone, Action::kNoSpace, Action::kNoSpace));
  arm_faults("");
  EXPECT_FALSE(faults_armed);
}

TEST_F(FaultTest, StrikesOnTheRankThatIsNamed) {
  arm_faults("weights.publish:corrupt@2+,rank=3");
  EXPECT_THAT(visits(FaultPoint::kWeightsPublish, 2), ElementsAre(Action::kNone, Action::kNone));
  set_fault_rank(3);
  EXPECT_THAT(visits(FaultPoint::kWeightsPublish, 2), ElementsAre(Action::kNone, Action::kCorrupt));
}

TEST_F(FaultTest, WhatIsWrongInTheTextIsNamed) {
  const auto problem = [](const char* text) -> std::string {
    try {
      arm_faults(text);
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), kExitUsage) << text;
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(problem("checkpoint.wirte:crash"),
              HasSubstr("no point \"checkpoint.wirte\"; the points are checkpoint.copy, "));
  EXPECT_THAT(problem("checkpoint.write:explode"),
              HasSubstr("\"explode\" is no action of checkpoint.write"));
  EXPECT_THAT(problem("engine.step:torn"), HasSubstr("its actions are crash, hang, slow, error"));
  EXPECT_THAT(problem("engine.step"), HasSubstr("is not point:action"));
  EXPECT_THAT(problem(":"), HasSubstr("no point \"\""));
  for (const char* bad : {"0", "-1", "x", "1x", "99999999999999999999", "+", ""})
    EXPECT_THAT(problem(fmt::format("engine.step:crash@{}", bad).c_str()),
                HasSubstr("whole number"));
  EXPECT_THAT(problem("engine.step:crash,rank=-1"), HasSubstr("whole number"));
  EXPECT_THAT(problem("engine.step:crash,node=1"), HasSubstr("is not rank=R"));
  EXPECT_THAT(problem("engine.step:error;engine.step:eror"), HasSubstr("eror"));
  EXPECT_FALSE(faults_armed);
}

TEST_F(FaultTest, CrashHangSlowAndError) {
  arm_faults("engine.step:crash@2");
  EXPECT_EQ(fault_point(FaultPoint::kEngineStep), Action::kNone);
  EXPECT_EXIT(fault_point(FaultPoint::kEngineStep), testing::KilledBySignal(SIGKILL),
              "crash injected at engine.step .visit 2.");
  arm_faults("engine.step:hang");
  const auto hang_for_a_moment = [] {
    const itimerval moment{{0, 0}, {0, 50'000}};
    ::setitimer(ITIMER_REAL, &moment, nullptr);
    fault_point(FaultPoint::kEngineStep);
  };
  EXPECT_EXIT(hang_for_a_moment(), testing::KilledBySignal(SIGALRM),
              "hang injected at engine.step");
  arm_faults("engine.step:slow");
  for (int i = 0; i < 2; ++i) {
    const Timer timer;
    EXPECT_EQ(fault_point(FaultPoint::kEngineStep), Action::kNone);
    EXPECT_GE(timer.seconds(), 0.1);
  }
  arm_faults("engine.step:error");
  EXPECT_THROW(fault_point(FaultPoint::kEngineStep), Error);
}

TEST_F(FaultTest, ASmallFileIsOldOrNewWhateverHappens) {
  const testing_support::ScratchFolder scratch;
  const std::filesystem::path folder = scratch.path();
  const auto path = folder / "a";
  write_file_atomic(path, "old contents");
  arm_faults("file.write:enospc");
  try {
    write_file_atomic(path, "new contents");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr(path.string()), HasSubstr("No space left on device")));
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "a.tmp"));
  EXPECT_EQ(read_file(path), "old contents");
  for (const char* fault : {"file.write:torn", "file.write:crash"}) {
    arm_faults(fault);
    EXPECT_EXIT(write_file_atomic(path, "new contents"), testing::KilledBySignal(SIGKILL),
                "injected at file.write");
    EXPECT_EQ(read_file(path), "old contents");
  }
  arm_faults("");
  write_file_atomic(path, "new contents");
  EXPECT_EQ(read_file(path), "new contents");
}

TEST_F(FaultTest, TheListNamesEveryPoint) {
  const std::string list = describe_faults();
  for (const FaultPointInfo& info : kFaultPoints) {
    EXPECT_THAT(list, HasSubstr(std::string(info.name)));
    EXPECT_THAT(list, HasSubstr(std::string(info.meaning)));
  }
}

}  // namespace
}  // namespace orrery
