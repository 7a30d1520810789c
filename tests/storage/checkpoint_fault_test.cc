// Saves that fail or are cut short: the checkpoint before stays whole, and nothing
// half-made is taken for one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <functional>
#include <thread>

#include "core/error.h"
#include "core/fault.h"
#include "storage/checkpoint.h"
#include "tests/storage/checkpoint_fixture.h"
#include "tests/support/scratch.h"
#include "tests/support/tiny_config.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing_support::checkpoint_info;
using testing_support::error_of;
using testing_support::module_part;
using testing_support::open_error;
using testing_support::tiny_checkpoint_config;

class CheckpointFaultTest : public testing::Test {
 protected:
  CheckpointFaultTest()
      : scratch_("orrery_checkpoint_fault_"), config_(tiny_checkpoint_config()), table_(config_) {
    save(1);
  }
  ~CheckpointFaultTest() override { arm_faults(""); }

  /// Weights and moments whose every element tells the step, but for the gaps between.
  void save(int64_t step) const {
    const std::vector<float> values(static_cast<size_t>(table_.flat_size()),
                                    static_cast<float>(step));
    const CheckpointInfo info = checkpoint_info(step, config_);
    const fs::path temporary = prepare_checkpoint(folder_, step);
    const Extent all{0, table_.flat_size()};
    const ModulePart part = module_part(table_, {&all, 1}, values, values, values);
    const auto entry = write_checkpoint_part(temporary, 0, 1, {&part, 1});
    publish_checkpoint(temporary, folder_ / checkpoint_name(step), info, {&part.module, 1}, {entry},
                       {});
    remove_old_checkpoints(folder_, 2);
  }

  /// The step of the newest good checkpoint, whose every digest is right and whose
  /// weights are its own.
  int64_t newest() const {
    rejected_.clear();
    const auto found = latest_good_checkpoint(
        folder_,
        [this](const fs::path& path, const std::string& why) { rejected_ += path.string() + why; });
    if (!found) return -1;
    std::vector<float> weights(static_cast<size_t>(table_.flat_size()));
    found->read(models::kPolicy.name, table_.slices(), weights);
    for (const models::Parameter& p : table_.parameters()) {
      EXPECT_THAT(std::span<float>(table_.values(Span<float>(weights), p)),
                  testing::Each(static_cast<float>(found->info().step)));
    }
    return found->info().step;
  }

  const testing_support::ScratchPath scratch_;
  const fs::path& folder_ = scratch_.path();
  models::ModelConfig config_;
  models::ParameterTable table_;
  mutable std::string rejected_;
};

TEST_F(CheckpointFaultTest, AFullDiskAtAnyPieceLeavesTheOneBefore) {
  for (const char* point : {"checkpoint.write", "file.write"}) {
    int struck = 0;
    for (int visit = 1; visit < 20; ++visit) {
      arm_faults(fmt::format("{}:enospc@{}", point, visit));
      const std::string problem = error_of([&] { save(2); });
      if (problem == "no error") break;
      ++struck;
      EXPECT_THAT(problem, AllOf(HasSubstr("No space left on device"), HasSubstr("untouched")));
      arm_faults("");
      EXPECT_EQ(newest(), 1);
      EXPECT_EQ(rejected_, "");
    }
    EXPECT_GE(struck, 2) << point;
    EXPECT_EQ(newest(), 2);
    fs::remove_all(folder_ / checkpoint_name(2));
  }
}

TEST_F(CheckpointFaultTest, ATornWriteIsNeverPublished) {
  for (const char* fault : {"checkpoint.write:torn", "checkpoint.write:torn@3",
                            "checkpoint.publish:crash", "file.write:torn", "file.write:crash@2"}) {
    arm_faults(fault);
    EXPECT_EXIT(save(2), testing::KilledBySignal(SIGKILL), "injected at");
    arm_faults("");
    EXPECT_EQ(newest(), 1) << fault;
    EXPECT_EQ(rejected_, "") << fault;
  }
  save(2);
  EXPECT_EQ(newest(), 2);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 2)
      << "nothing is left of the others";
}

TEST_F(CheckpointFaultTest, ARemovalCutShortLeavesNoHalfCheckpoint) {
  save(2);
  arm_faults("checkpoint.remove:crash");
  EXPECT_EXIT(save(3), testing::KilledBySignal(SIGKILL), "injected at");
  arm_faults("");
  EXPECT_EQ(newest(), 3);
  EXPECT_EQ(list_checkpoints(folder_).size(), 2u);
  save(4);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 2);
}

TEST_F(CheckpointFaultTest, AWrongBitOnTheDiskIsPassedOver) {
  for (int visit = 1; visit <= 3; ++visit) {
    arm_faults(fmt::format("checkpoint.write:corrupt@{}", visit));
    save(2);
    arm_faults("");
    EXPECT_EQ(newest(), 1) << visit;
    EXPECT_THAT(rejected_, AllOf(HasSubstr("step_000002"), HasSubstr("damaged")));
  }
}

TEST_F(CheckpointFaultTest, ADiskThatReadsWronglyIsTold) {
  const fs::path path = folder_ / checkpoint_name(1);
  arm_faults("checkpoint.read:short-read");
  EXPECT_THAT(error_of([&] { Checkpoint c(path); }),
              AllOf(HasSubstr("rank_0000"), HasSubstr("bytes")));
  arm_faults("checkpoint.read:corrupt");
  EXPECT_THAT(error_of([&] { Checkpoint c(path); }),
              AllOf(HasSubstr("rank_0000"), HasSubstr("damaged")));
  arm_faults("checkpoint.read:corrupt");
  const Checkpoint late(path, Checkpoint::Verify::kOnRead);
  std::vector<float> weights(static_cast<size_t>(table_.flat_size()));
  EXPECT_THAT(error_of([&] { late.read(models::kPolicy.name, table_.slices(), weights); }),
              HasSubstr("damaged"));
  arm_faults("checkpoint.read:error");
  EXPECT_THAT(error_of([&] { Checkpoint c(path); }),
              HasSubstr("error injected at checkpoint.read"));
}

// From here on the failures are the real ones of a disk and of a process.

TEST_F(CheckpointTest, FullDiskIsOneErrorAndKeepsTheEarlierCheckpoint) {
  fs::create_directories(checkpoints());
  const auto mount_pages = [&](int64_t pages, unsigned long flags) {
    const std::string options = fmt::format("size={}", pages * 4096);
    return ::mount("tmpfs", checkpoints().c_str(), "tmpfs", flags, options.c_str()) == 0;
  };
  constexpr int64_t kRoomy = 256;
  if (!mount_pages(kRoomy, 0)) GTEST_SKIP() << "needs the right to mount a tmpfs";
  struct Unmount {
    fs::path path;
    ~Unmount() { ::umount2(path.c_str(), MNT_DETACH); }
  } const unmount{checkpoints()};
  const Buffers b = buffers(1);
  const fs::path good = save(1, b);
  struct statvfs status {};
  ASSERT_EQ(::statvfs(checkpoints().c_str(), &status), 0);
  const auto used = static_cast<int64_t>(status.f_blocks - status.f_bfree);
  int failed = 0, saved = 0;
  for (int64_t spare = 0; spare <= 2 * used + 8; ++spare) {  // full at every point of a save
    ASSERT_TRUE(mount_pages(used + spare, MS_REMOUNT));
    try {
      save(2, b);
      ++saved;
      fs::remove_all(checkpoints() / "step_000002");
    } catch (const Error& e) {
      ++failed;
      EXPECT_THAT(e.what(), HasSubstr("No space left on device")) << spare;
      EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos);
      EXPECT_EQ(open_error(good), "");
      EXPECT_EQ(list_checkpoints(checkpoints()).size(), 1u);
    }
  }
  EXPECT_GT(failed, 3);
  EXPECT_GT(saved, 0);
  EXPECT_EQ(load(good).weights, b.weights);
}

// The child meets "file too large" at several lengths of the file.
TEST_F(CheckpointTest, FailedWriteIsOneErrorAndKeepsTheEarlierCheckpoint) {
  const Buffers b = buffers(1);
  const fs::path good = save(1, b);
  const auto whole = static_cast<rlim_t>(fs::file_size(good / rank_file_name(0, 1)));
  for (const rlim_t limit : {rlim_t{0}, rlim_t{100}, rlim_t{3000}, whole / 2, whole - 1}) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    std::fflush(nullptr);  // or the child prints the buffer too
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      std::signal(SIGXFSZ, SIG_IGN);
      const rlimit size{limit, limit};
      ::setrlimit(RLIMIT_FSIZE, &size);
      std::string text = "no error";
      try {
        save(2, b);
      } catch (const Error& e) {
        text = e.what();
      }
      const ssize_t written = ::write(ends[1], text.data(), text.size());
      std::exit(written == static_cast<ssize_t>(text.size()) ? 0 : 3);  // with HDF5's own clean-up
    }
    ::close(ends[1]);
    std::string text(4096, '\0');
    const ssize_t n = ::read(ends[0], text.data(), text.size());
    ::close(ends[0]);
    text.resize(static_cast<size_t>(std::max<ssize_t>(n, 0)));
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
        << "limit " << limit << " status " << status;
    EXPECT_THAT(text,
                AllOf(HasSubstr("File too large"), HasSubstr("earlier checkpoints are untouched")))
        << limit;
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 0);
    EXPECT_EQ(latest_good_checkpoint(checkpoints(), [](const fs::path&, const std::string&) {})
                  ->info()
                  .step,
              1);
    EXPECT_EQ(load(good).weights, b.weights);
  }
}

TEST_F(CheckpointTest, KillDuringASaveLeavesAnEarlierCheckpoint) {
  const std::vector<Buffers> all = {buffers(0), buffers(1)};
  save(1, all[1]);
  for (int round = 0; round < 12; ++round) {
    std::fflush(nullptr);  // or the child prints the buffer too
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (int64_t step = 1;;
           ++step) {  // the same two steps again and again: replacing is tested too
        save(1 + step % 2, all[static_cast<size_t>((1 + step % 2) % 2)], {100, 200, 300});
        remove_old_checkpoints(checkpoints(), 2);
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5 + 7 * round));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status));
    const auto good =
        latest_good_checkpoint(checkpoints(), [](const fs::path& path, const std::string& reason) {
          ADD_FAILURE() << "a published checkpoint is bad: " << path << ": " << reason;
        });
    ASSERT_TRUE(good.has_value());
    EXPECT_EQ(load(good->folder()).weights,
              all[static_cast<size_t>(good->info().step % 2)].weights);
    remove_old_checkpoints(checkpoints(), 2);
    for (const auto& entry : fs::directory_iterator(checkpoints())) {
      EXPECT_EQ(entry.path().string().find(".tmp-"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace orrery::storage
