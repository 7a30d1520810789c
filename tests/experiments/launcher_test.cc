// The parts of `orrery launch` that need no process: when to restart, whom to blame, the command line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "core/error.h"
#include "core/file.h"
#include "experiments/heartbeat.h"
#include "experiments/mpi_job.h"
#include "experiments/restart_policy.h"

namespace orrery {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

TEST(RestartPolicy, EndsWhenDoneOrMisconfigured) {
  RestartPolicy policy({});
  const auto done = policy.after({kExitOk, "", 10});
  EXPECT_FALSE(done.restart);
  EXPECT_EQ(done.exit_code, kExitOk);
  EXPECT_EQ(done.reason, "");
  const auto wrong = policy.after({kExitUsage, "model.path is not set", 0});
  EXPECT_FALSE(wrong.restart);
  EXPECT_EQ(wrong.exit_code, kExitUsage);
  EXPECT_THAT(wrong.reason, HasSubstr("config"));
}

TEST(RestartPolicy, BacksOffAndGivesUpWithoutProgress) {
  RestartPolicy policy({.max_restarts = 9, .backoff = 0.5});
  std::vector<double> waits;
  for (int i = 0; i < 9; ++i) {
    const auto decision = policy.after({137, "", 20});
    ASSERT_TRUE(decision.restart);
    EXPECT_EQ(decision.restarts, i + 1);
    waits.push_back(decision.wait_seconds);
  }
  EXPECT_THAT(waits, ElementsAre(0.5, 1, 2, 4, 8, 16, 32, 60, 60));
  const auto end = policy.after({137, "", 20});
  EXPECT_FALSE(end.restart);
  EXPECT_EQ(end.exit_code, kExitFailure);
  EXPECT_EQ(end.reason, "9 restart(s) in a row got no further than step 20");
}

TEST(RestartPolicy, ProgressForgivesWhatWasBefore) {
  RestartPolicy policy({.max_restarts = 2, .backoff = 1});
  for (int64_t step = 1; step < 50; ++step) {
    const auto first = policy.after({137, "", step});
    ASSERT_TRUE(first.restart);
    EXPECT_EQ(first.wait_seconds, 1);
    const auto second = policy.after({137, "", step / 2});  // died before it was where the last one had been
    ASSERT_TRUE(second.restart);
    EXPECT_EQ(second.wait_seconds, 2);
  }
  EXPECT_FALSE(policy.after({137, "", 49}).restart);
}

TEST(RestartPolicy, TheSameErrorAtTheSameStepIsTheEnd) {
  RestartPolicy policy({});
  EXPECT_TRUE(policy.after({1, "rank 0: loss 3.5 diverged", 7}).restart);
  EXPECT_TRUE(policy.after({1, "rank 1: loss 12.25 diverged", 7}).restart);
  const auto end = policy.after({1, "rank 0: loss 9 diverged", 7});
  EXPECT_FALSE(end.restart);
  EXPECT_EQ(end.exit_code, kExitFailure);
  EXPECT_EQ(end.reason, "it failed 3 times in the same way at step 7: rank 0: loss 9 diverged");

  RestartPolicy other({});
  for (const char* error : {"a", "b", "a", "b"}) EXPECT_TRUE(other.after({1, error, 7}).restart) << error;
  EXPECT_TRUE(other.after({1, "b", 8}).restart) << "one step further";
  EXPECT_TRUE(other.after({1, "b", 8}).restart);
  EXPECT_FALSE(other.after({1, "b", 8}).restart);

  RestartPolicy none({.max_restarts = 0});
  EXPECT_FALSE(none.after({1, "a", 7}).restart);
}

proto::RankStatus rank(const std::string& phase, double still, const std::string& waiting = "",
                       double waited = 0) {
  proto::RankStatus status;
  status.set_phase(phase);
  status.set_phase_seconds(still + 1);
  status.set_still_seconds(still);
  status.set_waiting_in(waiting);
  status.set_waiting_seconds(waited);
  status.set_step(41);
  status.set_host("elsewhere");
  status.set_pid(123);
  return status;
}

TEST(Heartbeat, IsReadAsWrittenAndNothingElseIs) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "orrery_heartbeat_test";
  std::filesystem::remove_all(folder);
  const std::vector<proto::RankStatus> ranks = {rank("generate step 12, prompts 96..103", 0.25),
                                                rank("caf\xe9 \"x\"", 2, "barrier", 1.5)};
  const std::vector<double> ages = {0, 0.75};
  EXPECT_FALSE(write_heartbeat(folder / kStatusFile, ranks, ages)) << "no such folder";
  std::filesystem::create_directories(folder);
  ASSERT_TRUE(write_heartbeat(folder / kStatusFile, ranks, ages));
  const std::string text = read_file(folder / kStatusFile);
  const auto heartbeat = Heartbeat::parse(text);
  ASSERT_TRUE(heartbeat);
  EXPECT_EQ(heartbeat->step, 41);
  EXPECT_EQ(heartbeat->ages, ages);
  ASSERT_EQ(heartbeat->ranks.size(), 2u);
  EXPECT_EQ(heartbeat->ranks[0].phase(), ranks[0].phase());
  EXPECT_EQ(heartbeat->ranks[1].waiting_in(), "barrier");
  EXPECT_EQ(heartbeat->ranks[1].waiting_seconds(), 1.5);
  EXPECT_EQ(heartbeat->ranks[1].pid(), 123);
  for (size_t cut = 0; cut + 2 < text.size(); cut += 7)
    EXPECT_FALSE(Heartbeat::parse(text.substr(0, cut))) << cut;
  for (const char* bad :
       {"[]", "{\"step\": 1, \"ranks\": []}", "{\"step\": \"x\", \"ranks\": [{}]}", "null"}) {
    EXPECT_FALSE(Heartbeat::parse(bad)) << bad;
  }
  std::filesystem::remove_all(folder);
}

TEST(Heartbeat, NamesWhoStandsStill) {
  Heartbeat heartbeat;
  heartbeat.ranks = {rank("update step 3", 1, "all_reduce", 30), rank("generate step 3, prompts 4..7", 2)};
  heartbeat.ages = {0, 1};
  EXPECT_EQ(diagnose(heartbeat, 1, 10, 20), "");
  EXPECT_EQ(diagnose(heartbeat, 11, 10, 20),
            "rank 0 has been silent for 11 s, last in 'update step 3'; rank 1 was in 'generate step 3, "
            "prompts 4..7'");
  EXPECT_EQ(diagnose(heartbeat, 11, 0, 0), "");
  heartbeat.ages[1] = 25;
  EXPECT_THAT(diagnose(heartbeat, 1, 10, 20), HasSubstr("rank 1 has been silent for 26 s, last in 'generate "
                                                        "step 3, prompts 4..7'; rank 0 waits in all_reduce"));
  heartbeat.ages[1] = 0;
  heartbeat.ranks[1].set_still_seconds(40);
  EXPECT_THAT(diagnose(heartbeat, 1, 10, 20),
              HasSubstr("rank 1 has been in 'generate step 3, prompts 4..7' for 41 s"));
}

TEST(MpirunCommand, HasSaneFlagsThatTheUserMayReplace) {
  const std::vector<std::string> program = {"/bin/orrery", "train", "a.yaml"};
  EXPECT_THAT(
      mpirun_command({2, {}, 4, false}, program),
      ElementsAre("mpirun", "-n", "2", "--bind-to", "none", "--mca", "btl_vader_single_copy_mechanism",
                  "none", "--use-hwthread-cpus", "/bin/orrery", "train", "a.yaml"));
  EXPECT_THAT(mpirun_command({8, {}, 4, false}, program), Contains("--oversubscribe"));
  EXPECT_THAT(mpirun_command({8, {}, 4, true}, program), Not(Contains("--oversubscribe")));
  const auto own = mpirun_command({2, {"--bind-to", "core", "--hostfile", "h"}, 4, true}, program);
  EXPECT_THAT(own, Not(Contains("none").Times(2)));
  EXPECT_THAT(own, Contains("core"));
  EXPECT_TRUE(hosts_are_given({"--hostfile", "h"}));
  EXPECT_TRUE(hosts_are_given({"-H", "a,b"}));
}

}  // namespace
}  // namespace orrery
