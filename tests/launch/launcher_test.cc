// The parts of `orrery launch` that need no process: when to restart, whom to blame,
// the command line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "launch/heartbeat.h"
#include "launch/mpi_job.h"
#include "launch/restart_policy.h"
#include "launch/supervision.h"
#include "tests/support/scratch.h"

namespace orrery::launch {
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

TEST(RestartPolicy, ADivergedPolicyIsFinalWhateverWasSaved) {
  RestartPolicy policy({});
  EXPECT_TRUE(policy.after({1, "a", 7}).restart);
  const auto end =
      policy.after({kExitDiverged, "step 9 (grpo 9): the policy has diverged: ...", 8, 9});
  EXPECT_FALSE(end.restart) << "a new checkpoint forgives other failures";
  EXPECT_EQ(end.exit_code, kExitDiverged);
  EXPECT_THAT(end.reason, HasSubstr("diverged"));
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
  EXPECT_EQ(end.reason,
            "9 restart(s) in a row brought no new checkpoint (the newest is of step 20)");
}

TEST(RestartPolicy, ProgressForgivesWhatWasBefore) {
  RestartPolicy policy({.max_restarts = 2, .backoff = 1});
  for (int64_t step = 1; step < 50; ++step) {
    const auto first = policy.after({137, "", step});
    ASSERT_TRUE(first.restart);
    EXPECT_EQ(first.wait_seconds, 1);
    const auto second =
        policy.after({137, "", step / 2});  // died before it was where the last one had been
    ASSERT_TRUE(second.restart);
    EXPECT_EQ(second.wait_seconds, 2);
  }
  EXPECT_FALSE(policy.after({137, "", 49}).restart);
}

TEST(RestartPolicy, StepsDoneAgainAreNoProgress) {
  RestartPolicy policy({.max_restarts = 3, .backoff = 0});
  for (int64_t step : {10, 20, 30}) EXPECT_TRUE(policy.after({137, "", 4, step}).restart);
  EXPECT_FALSE(policy.after({137, "", 4, 40}).restart);

  RestartPolicy full({});
  EXPECT_TRUE(
      full.after({1, "cannot write step_000064.tmp-3f2a: 12288 of 16384 bytes", 8, 63}).restart);
  EXPECT_TRUE(
      full.after({1, "cannot write step_000065.tmp-99c1: 4096 of 16384 bytes", 8, 64}).restart);
  const auto end = full.after({1, "cannot write step_000061.tmp-0b17: 0 of 16384 bytes", 8, 60});
  EXPECT_FALSE(end.restart);
  EXPECT_THAT(end.reason, HasSubstr("3 times in the same way, now at about step 60: cannot write"));
}

TEST(RestartPolicy, WhatMpirunCannotStartIsNotTriedAgain) {
  RestartPolicy policy({});
  const auto wrong = policy.after({1, "unknown option", 0, 0, false});
  EXPECT_FALSE(wrong.restart);
  EXPECT_EQ(wrong.exit_code, kExitFailure);
  EXPECT_EQ(wrong.reason, "mpirun could not start the ranks: unknown option");
  const auto nothing = policy.after({kExitOk, "", 0, 0, false});
  EXPECT_EQ(nothing.exit_code, kExitFailure);
  EXPECT_THAT(nothing.reason, HasSubstr("no rank has run"));
}

TEST(RestartPolicy, NumbersInErrorsAreMasked) {
  EXPECT_EQ(mask_numbers("rank 12: loss 1.5e-05 at 10:31:07"), "rank #: loss # at #");
  EXPECT_EQ(mask_numbers("rank 3: loss 0.25 at 9:59:59"), "rank #: loss # at #");
  EXPECT_EQ(mask_numbers("step_000064.tmp-a3f1/slice7, pid 991"),
            mask_numbers("step_000002.tmp-19/slice12, pid 4"));
  EXPECT_EQ(mask_numbers("at 0x7ffd10 of libc6"), "at # of libc#");
  EXPECT_NE(mask_numbers("added 3 bad rows"), mask_numbers("added 3 good rows"));
  EXPECT_EQ(mask_numbers(""), "");
}

TEST(RestartPolicy, TheSameErrorWithoutANewCheckpointIsTheEnd) {
  RestartPolicy policy({});
  EXPECT_TRUE(policy.after({1, "rank 0: loss 3.5 diverged", 7}).restart);
  EXPECT_TRUE(policy.after({1, "rank 1: loss 12.25 diverged", 7}).restart);
  const auto end = policy.after({1, "rank 0: loss 9 diverged", 7});
  EXPECT_FALSE(end.restart);
  EXPECT_EQ(end.exit_code, kExitFailure);
  EXPECT_EQ(end.reason,
            "it failed 3 times in the same way, now at about step 7: rank 0: loss 9 diverged");

  RestartPolicy other({});
  for (const char* error : {"a", "b", "a", "b"})
    EXPECT_TRUE(other.after({1, error, 7}).restart) << error;
  EXPECT_TRUE(other.after({1, "b", 8}).restart) << "a new checkpoint";
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
  status.set_stage("grpo");
  status.set_stage_step(21);
  status.set_host("elsewhere");
  status.set_pid(123);
  return status;
}

TEST(Heartbeat, AFailureStaysWithItsReason) {
  const testing_support::ScratchFolder scratch;
  std::filesystem::create_directories(scratch.path());
  const auto path = scratch.path() / kStatusFile;
  const auto read = [&] { return nlohmann::json::parse(read_file(path)); };
  EXPECT_FALSE(says_failed(path));
  ASSERT_TRUE(write_failure(path, 2, "the data are wrong")) << "before any heartbeat";
  EXPECT_EQ(read()["error"], "the data are wrong");
  EXPECT_TRUE(says_failed(path));

  const std::vector<proto::RankStatus> ranks(2);
  const std::vector<double> ages = {0, 0};
  ASSERT_TRUE(write_heartbeat(path, ranks, ages));
  EXPECT_FALSE(says_failed(path));
  EXPECT_EQ(read()["state"], "running");
  EXPECT_TRUE(read()["error"].is_null());
  ASSERT_TRUE(write_failure(path, 1, "rank 1 lost its disk"));
  EXPECT_EQ(read()["state"], "failed");
  EXPECT_EQ(read()["exit_code"], 1);
  EXPECT_EQ(read()["error"], "rank 1 lost its disk");
  EXPECT_EQ(read()["ranks"].size(), 2u) << "what they said last";
  ASSERT_TRUE(write_final_state(path, {"failed", 1, ""}));
  EXPECT_EQ(read()["error"], "rank 1 lost its disk");
  ASSERT_TRUE(write_final_state(path, {"done", 0, ""}));
  EXPECT_TRUE(read()["error"].is_null());
  ASSERT_TRUE(write_failure(path, 1, "x"));
  forget_failure(path);
  EXPECT_EQ(read()["state"], "running");
  EXPECT_TRUE(read()["error"].is_null());
  EXPECT_FALSE(Heartbeat::parse(read_file(path))) << "no rank of the new job has spoken";
  EXPECT_FALSE(write_failure(scratch.path() / "none" / kStatusFile, 1, "x"));
  write_file_atomic(path, "[1]");
  EXPECT_FALSE(says_failed(path));
  EXPECT_TRUE(write_failure(path, 1, "x"));
}

TEST(Supervision, IsOfOneRunFolder) {
  EXPECT_EQ(supervised_attempt("runs/a"), 0);
  announce_attempt("runs/a", 3);
  EXPECT_EQ(supervised_attempt("runs/a"), 3);
  EXPECT_EQ(supervised_attempt(std::filesystem::current_path() / "runs" / "b" / ".." / "a"), 3);
  EXPECT_EQ(supervised_attempt("runs/b"), 0);
  for (const char* other : {"", "x", "3", ":runs/a", "3runs/a"}) {
    setenv(kSupervision, other, 1);
    EXPECT_EQ(supervised_attempt("runs/a"), 0) << other;
  }
  unsetenv(kSupervision);
}

TEST(Heartbeat, IsReadAsWrittenAndNothingElseIs) {
  const testing_support::ScratchPath scratch("run");
  const std::filesystem::path& folder = scratch.path();
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
  EXPECT_THAT(text, HasSubstr("\"step\": 41,\n \"stage\": \"grpo\",\n \"stage_step\": 21,"));
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
}

TEST(Heartbeat, NamesWhoStandsStill) {
  Heartbeat heartbeat;
  heartbeat.ranks = {rank("update step 3", 1, "all_reduce", 30),
                     rank("generate step 3, prompts 4..7", 2)};
  heartbeat.ages = {0, 1};
  EXPECT_EQ(diagnose(heartbeat, 1, 10, 20), "");
  EXPECT_EQ(
      diagnose(heartbeat, 11, 10, 20),
      "rank 0 has been silent for 11 s, last in 'update step 3'; rank 1 was in 'generate step 3, "
      "prompts 4..7' as of 12 s before");
  EXPECT_EQ(diagnose(heartbeat, 11, 0, 0), "");
  heartbeat.ages[1] = 25;
  EXPECT_THAT(diagnose(heartbeat, 1, 10, 20),
              HasSubstr("rank 1 has been silent for 26 s, last in 'generate step 3, prompts 4..7'; "
                        "rank 0 waits in all_reduce"));
  heartbeat.ages[1] = 0;
  heartbeat.ranks[1].set_still_seconds(40);
  EXPECT_THAT(diagnose(heartbeat, 1, 10, 20),
              HasSubstr("rank 1 has been in 'generate step 3, prompts 4..7' for 41 s"));
}

TEST(Heartbeat, EndsWithHowTheRunEnded) {
  const testing_support::ScratchFolder scratch;
  const std::filesystem::path folder = scratch.path();
  const auto file = folder / kStatusFile;
  EXPECT_FALSE(write_final_state(file, {"failed", 1})) << "no such file";
  const std::vector<proto::RankStatus> ranks = {rank("update step 3", 0.25)};
  ASSERT_TRUE(write_heartbeat(file, ranks, std::vector<double>{0}));
  EXPECT_THAT(read_file(file), HasSubstr("\"state\": \"running\",\n \"exit_code\": null"));
  ASSERT_TRUE(write_final_state(file, {"failed", 1}));
  EXPECT_THAT(read_file(file), HasSubstr("\"state\": \"failed\",\n \"exit_code\": 1"));
  ASSERT_TRUE(Heartbeat::parse(read_file(file)));
  EXPECT_EQ(Heartbeat::parse(read_file(file))->ranks[0].phase(), "update step 3");
  ASSERT_TRUE(write_heartbeat(file, ranks, std::vector<double>{0}, {"stopped", kExitOk}));
  ASSERT_TRUE(write_final_state(file, {"done", kExitOk}));
  EXPECT_THAT(read_file(file), HasSubstr("\"stopped\"")) << "rank 0 knows better";
  write_file_atomic(file, "[1");
  EXPECT_FALSE(write_final_state(file, {"done", kExitOk}));
}

/// A program in mpirun's place: what it prints on stderr is what real ones do.
class MpirunWords : public testing::Test {
 protected:
  static std::string cause_of(const std::string& words, int code, bool* seen = nullptr) {
    MpiJob job({"sh", "-c", "cat >&2 <<'EOF'\n" + words + "EOF\nexit " + std::to_string(code)});
    testing::internal::CaptureStderr();
    while (job.run_for(std::chrono::milliseconds(20))) {
    }
    testing::internal::GetCapturedStderr();
    EXPECT_EQ(job.exit_code(), code);
    if (seen != nullptr) *seen = job.rank_seen();
    return job.cause();
  }
};

TEST_F(MpirunWords, AreTheCauseWhenNoRankSaysOne) {
  const std::string dashes(74, '-');
  bool seen = true;
  EXPECT_EQ(
      cause_of(
          dashes +
              "\nOpen RTE was unable to open the hostfile:\n    /nonexist\n\nCheck the path.\n" +
              dashes + "\n" + dashes + "\nAn internal error\n" + dashes + "\n",
          1, &seen),
      "Open RTE was unable to open the hostfile: /nonexist Check the path.");
  EXPECT_FALSE(seen);
  EXPECT_EQ(cause_of("mpirun: Error: unknown option \"--x\"\nType 'mpirun --help' for usage.\n", 1),
            "mpirun: Error: unknown option \"--x\" Type 'mpirun --help' for usage.");
  // A log line of several lines is no cause.
  EXPECT_EQ(cause_of("10:31:07 info [rank 0] ranks    2\nSFT step    64 examples\n", 143, &seen),
            "mpirun ended with exit code 143");
  EXPECT_TRUE(seen);
}

TEST_F(MpirunWords, OfAnErrorComeBeforeThoseOfAnInjectedFault) {
  EXPECT_EQ(
      cause_of("orrery: enospc injected at file.write (visit 2)\norrery: rank 0: the disk is full\n"
               "orrery: rank 1: rank 0 has gone\n",
               1),
      "rank 0: the disk is full");
  EXPECT_EQ(cause_of("orrery: hang injected at engine.step (visit 2)\n", 1),
            "hang injected at engine.step (visit 2)");
  EXPECT_EQ(
      cause_of(
          "orrery: error injected at engine.step (visit 2), as ORRERY_FAULT asks\norrery: other\n",
          1),
      "error injected at engine.step (visit 2), as ORRERY_FAULT asks");
}

TEST(MpirunCommand, HasSaneFlagsThatTheUserMayReplace) {
  const std::vector<std::string> program = {"/bin/orrery", "train", "a.yaml"};
  EXPECT_THAT(mpirun_command({2, {}, 4, false}, program),
              ElementsAre("mpirun", "-n", "2", "--bind-to", "none", "--mca",
                          "btl_vader_single_copy_mechanism", "none", "--use-hwthread-cpus", "-x",
                          "ORRERY_LAUNCH", "/bin/orrery", "train", "a.yaml"));
  EXPECT_THAT(mpirun_command({8, {}, 4, false}, program), Contains("--oversubscribe"));
  EXPECT_THAT(mpirun_command({8, {}, 4, true}, program), Not(Contains("--oversubscribe")));
  const auto own = mpirun_command({2, {"--bind-to", "core", "--hostfile", "h"}, 4, true}, program);
  EXPECT_THAT(own, Not(Contains("none").Times(2)));
  EXPECT_THAT(own, Contains("core"));
  EXPECT_TRUE(hosts_are_given({"--hostfile", "h"}));
  EXPECT_TRUE(hosts_are_given({"-H", "a,b"}));
}

}  // namespace
}  // namespace orrery::launch
