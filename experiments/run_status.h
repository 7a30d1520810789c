// The run's folder and its status.json, from the moment a run begins until it has
// ended: what every rank does, said by rank 0's watchdog once a second, and how the run
// ended.
#pragma once

#include <exception>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/watchdog.h"
#include "launch/run_folder.h"
#include "proto/config.pb.h"
#include "storage/train_state.h"

namespace orrery::experiments {

/// On every rank. Must outlive the watchdog that it sets up, and `config` and `ranks`
/// must outlive it.
class RunStatus {
 public:
  RunStatus(const proto::Config& config, comm::CommWorld& ranks);

  launch::RunFolder& folder() { return folder_; }

  /// How the watchdog looks at the ranks and where it says so: heartbeats to
  /// status.json, and a hang ends all ranks with exit code 1.
  comm::WatchdogOptions watchdog_options();
  comm::Watchdog::Report watchdog_report();

  /// Writes "failed" when `error` is this rank's to tell. The first that fails has the
  /// reason; what other ranks meet then follows from it.
  void fail(const std::exception& error) const;

  /// Writes how the run ended, on rank 0. Only when the watchdog is gone. `complete`:
  /// false when it was asked to stop.
  void end(const storage::TrainState& state, bool complete);

 private:
  void observe(std::span<const proto::RankStatus> statuses, std::span<const double> ages);
  std::filesystem::path path() const;
  bool is_main() const { return ranks_.world().rank() == 0; }

  const proto::Config& config_;
  comm::CommWorld& ranks_;
  launch::RunFolder folder_;
  // What all ranks said last. The watchdog's thread writes it until the watchdog is
  // gone.
  std::vector<proto::RankStatus> statuses_;
  std::vector<double> ages_;
  std::string hang_;  // for which the watchdog ends the job
};

}  // namespace orrery::experiments
