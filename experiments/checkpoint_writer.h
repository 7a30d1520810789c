// Writes checkpoints in the background. start() copies this rank's part of weights and
// moments; a thread of this rank's then writes and hashes its file, exchanges the
// files' entries with the other learners over a communicator of its own, and publishes.
// One save at a time. The methods are for one thread.
//
// Writing and hashing give way to whatever else computes (core/quiet_worker.h), until
// wait() is called.
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "comm/communicator.h"
#include "core/context.h"
#include "storage/checkpoint.h"

namespace orrery::experiments {

class CheckpointWriter {
 public:
  /// The same for every save of a run.
  struct Target {
    std::filesystem::path folder;     ///< RUN/checkpoints
    std::filesystem::path tokenizer;  ///< Hugging Face folder whose companion files are copied
    models::ParameterTable table;
    std::vector<Extent> extents;  ///< this rank's part, rising
    int64_t keep = 0;             ///< of remove_old_checkpoints()
    std::string chat_template;    ///< in place of the tokenizer folder's; empty: as it is there
  };

  /// Collective over `learners`; of no further use for it. Takes the memory of the copy
  /// and has it filled with pages in the background, so that the first save, too, only
  /// copies.
  CheckpointWriter(Device device, comm::Communicator& learners, Target target);
  /// Waits for the save under way. While an error unwinds, other ranks may never do
  /// their part: after some seconds the thread is then left to the end of the process,
  /// which is near.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// What is saved: all weights, of which this rank writes its part, and that part's
  /// moments one after the other.
  struct Values {
    std::span<const float> weights, adam_m, adam_v;
  };
  /// Every learner calls it; none waits for another. Begins a save of the values, which
  /// are copied before it returns. Only when no save is under way. Failures, of the
  /// copy too, are wait()'s to tell.
  void start(const Context& ctx, const storage::CheckpointInfo& info, const Values& values);

  bool busy() const { return thread_.joinable(); }  ///< started and not waited for
  bool done() const;                                ///< busy, but wait() would not block

  /// Waits for the save under way and returns the seconds that it took. An AgreedError,
  /// alike on every rank, when it failed on any: earlier checkpoints are whole. Another
  /// error is this rank's own: the job cannot go on.
  double wait();

 private:
  struct Save;
  static std::filesystem::path publish(Save& save);

  std::shared_ptr<Save> save_;  // shared with the thread, which may outlive this object
  std::thread thread_;
  std::atomic<bool> enough_pages_ = false;
  std::thread pages_;
};

}  // namespace orrery::experiments
