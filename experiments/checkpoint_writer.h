// Writes checkpoints in the background. start() copies this rank's part of the weights
// and moments of every module that is trained. A thread of this rank then writes and
// hashes its file, exchanges the files' entries with the other learners over a
// communicator of its own, and publishes the checkpoint. There is one save at a time.
// Only one thread may call the methods.
//
// Writing and hashing give way to whatever else computes (core/low_priority_worker.h),
// until wait() is called.
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
  /// A module that is trained, and the stretches of its flat buffers that are this
  /// rank's, in rising order.
  struct Module {
    models::ParameterTable table;
    std::vector<Extent> extents;
  };
  /// What is the same for every save of a run.
  struct Target {
    std::filesystem::path folder;     ///< RUN/checkpoints
    std::filesystem::path tokenizer;  ///< Hugging Face folder whose companion files are copied
    std::vector<Module> modules;      ///< the policy first
    int64_t keep = 0;                 ///< how many checkpoints remove_old_checkpoints() keeps
    std::string chat_template;        ///< replaces the tokenizer folder's, unless it is empty
  };

  /// Collective over `learners`, which is not used afterwards. Allocates host memory
  /// for the copy and has its pages filled in the background, so that the first save,
  /// too, only has to copy.
  CheckpointWriter(comm::Communicator& learners, Target target);
  /// Waits for the save under way. While an exception unwinds, other ranks may never do
  /// their part of it, so after some seconds the thread is left to the end of the
  /// process, which is near.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// What is saved of a module, device memory: all weights, of which this rank writes
  /// its part, and the moments of that part, one after the other.
  struct Values {
    Vec<const float> weights, adam_m, adam_v;
  };
  /// Begins a save of the values, one set for each of the target's modules, which are
  /// copied before it returns. Every learner calls it, and none waits for another.
  /// wait() reports failures, including those of the copy. REQUIRES: no save is under
  /// way.
  void start(const Context& ctx, const storage::CheckpointInfo& info,
             std::span<const Values> values);

  bool busy() const { return thread_.joinable(); }  ///< started and not waited for
  bool done() const;                                ///< busy, but wait() would not block

  /// Waits for the save under way and returns the seconds that it took. Throws the same
  /// AgreedError on every rank when the save failed on any; earlier checkpoints are
  /// then still whole. Any other error is this rank's own, and the job cannot go on.
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
