#include "core/profile.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "core/error.h"

namespace orrery {
namespace {

void wait_a_little() { std::this_thread::sleep_for(std::chrono::milliseconds(2)); }

const Profile::Phase& phase(const Profile& profile, const std::string& name) {
  for (const Profile::Phase& p : profile.phases()) {
    if (p.name == name) return p;
  }
  throw std::out_of_range(name);
}

TEST(Profile, NestedPhasesShareTheTimeOfTheWhole) {
  Context ctx;
  Profile profile(ctx.stream());
  ctx.profile = &profile;
  const Profile::Clock::time_point begin = Profile::Clock::now();
  profile.start();
  wait_a_little();
  {
    const ProfilePhaseScope outer(ctx, "outer");
    wait_a_little();
    {
      const ProfilePhaseScope inner(ctx, "inner");
      wait_a_little();
    }
    wait_a_little();
  }
  profile.stop();
  const Profile::Clock::duration whole = Profile::Clock::now() - begin;
  const auto rest = phase(profile, Profile::kNoPhase).time, outer = phase(profile, "outer").time,
             inner = phase(profile, "inner").time;
  EXPECT_GE(rest, std::chrono::milliseconds(2));
  EXPECT_GE(outer, std::chrono::milliseconds(4));
  EXPECT_GE(inner, std::chrono::milliseconds(2));
  EXPECT_LE(rest + outer + inner, whole);
}

TEST(Profile, AnOpInsideAnotherGivesItsCountsToTheOuterOne) {
  Context ctx;
  Profile profile(ctx.stream());
  ctx.profile = &profile;
  profile.start();
  {
    const ProfilePhaseScope phase_scope(ctx, "work");
    for (int i = 0; i < 3; ++i) {
      const ProfileOpScope outer(ctx, "outer", 1, 10);
      const ProfileOpScope inner(ctx, "inner", 2, 20);
      wait_a_little();
    }
    const ProfileOpScope inner(ctx, "inner", 5, 7);
  }
  profile.stop();
  const Profile::Phase& work = phase(profile, "work");
  ASSERT_EQ(work.ops.size(), 2u);
  EXPECT_STREQ(work.ops[0].name, "outer");
  EXPECT_EQ(work.ops[0].calls, 3);
  EXPECT_EQ(work.ops[0].flops, 9);
  EXPECT_EQ(work.ops[0].bytes, 90);
  EXPECT_EQ(work.ops[1].calls, 1);
  EXPECT_EQ(work.ops[1].flops, 5);
  EXPECT_GE(work.ops[0].time, std::chrono::milliseconds(6));
  EXPECT_LE(work.ops[0].time + work.ops[1].time, work.time);
}

TEST(Profile, CountsOnlyWhileItRuns) {
  Context ctx;
  Profile profile(ctx.stream());
  ctx.profile = &profile;
  const auto work = [&] {
    const ProfilePhaseScope phase_scope(ctx, "work");
    const ProfileOpScope op(ctx, "op", 1, 1);
  };
  work();
  for (int i = 0; i < 2; ++i) {
    profile.start();
    work();
    profile.stop();
    work();
  }
  ASSERT_EQ(phase(profile, "work").ops.size(), 1u);
  EXPECT_EQ(phase(profile, "work").ops[0].calls, 2);
}

TEST(Profile, EqualNamesAtOtherAddressesAreOneEntry) {
  Context ctx;
  Profile profile(ctx.stream());
  ctx.profile = &profile;
  const std::string one = "op", two = "op";
  profile.start();
  for (const std::string* name : {&one, &two, &one})
    const ProfileOpScope op(ctx, name->c_str(), 1, 1);
  profile.stop();
  ASSERT_EQ(profile.phases()[0].ops.size(), 1u);
  EXPECT_EQ(profile.phases()[0].ops[0].calls, 3);
}

TEST(Profile, IsClosedByAnErrorThatPasses) {
  Context ctx;
  Profile profile(ctx.stream());
  ctx.profile = &profile;
  profile.start();
  EXPECT_THROW(
      {
        const ProfilePhaseScope phase_scope(ctx, "work");
        const ProfileOpScope op(ctx, "op", 1, 1);
        fail("no");
      },
      Error);
  profile.stop();  // would refuse inside of a phase
  EXPECT_EQ(phase(profile, "work").ops[0].calls, 1);
}

TEST(Profile, StartsAndStopsOutsideOfPhasesOnly) {
  Context ctx;
  Profile profile(ctx.stream());
  ctx.profile = &profile;
  EXPECT_THROW(profile.stop(), Error);
  const ProfilePhaseScope phase_scope(ctx, "work");
  EXPECT_THROW(profile.start(), Error);
}

}  // namespace
}  // namespace orrery
