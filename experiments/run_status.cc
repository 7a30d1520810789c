#include "experiments/run_status.h"

#include <cstdio>

#include "core/error.h"
#include "core/error_report.h"
#include "core/flight_recorder.h"
#include "core/log.h"
#include "experiments/on_all_ranks.h"
#include "launch/heartbeat.h"

namespace orrery::experiments {

RunStatus::RunStatus(const proto::Config& config, comm::CommWorld& ranks)
    : config_(config), ranks_(ranks), folder_(config.run_dir()) {}

std::filesystem::path RunStatus::path() const { return folder_.path() / launch::kStatusFile; }

void RunStatus::observe(std::span<const proto::RankStatus> statuses, std::span<const double> ages) {
  statuses_.assign(statuses.begin(), statuses.end());
  ages_.assign(ages.begin(), ages.end());
  if (!folder_.taken()) return;
  // A rank that ends the job may have said so while this one is still there.
  if (launch::says_failed(path())) return;
  // A disk that is full for a moment must not end the run; a stale file only says less.
  launch::write_heartbeat(path(), statuses, ages);
}

comm::WatchdogOptions RunStatus::watchdog_options() {
  comm::WatchdogOptions options;
  options.warn_seconds = config_.cluster().hang_warn_s();
  options.fatal_seconds = config_.cluster().hang_timeout_s();
  options.observe = [this](std::span<const proto::RankStatus> statuses,
                           std::span<const double> ages) { observe(statuses, ages); };
  const int rank = ranks_.world().size() > 1 ? ranks_.world().rank() : -1;
  options.last_words = [rank] { print_flight_recorder(rank); };
  options.end = [this] {
    if (folder_.taken()) launch::write_failure(path(), kExitFailure, hang_);
    ranks_.abort(kExitFailure);
  };
  return options;
}

comm::Watchdog::Report RunStatus::watchdog_report() {
  return [this](const std::string& line, bool fatal) {
    if (!fatal) {
      spdlog::warn("{}", line);
      return;
    }
    hang_ = line;
    std::fprintf(stderr, "orrery: rank 0: %s; ending all ranks\n", line.c_str());
  };
}

void RunStatus::fail(const std::exception& error) const {
  // Rank 0 tells of an error that all ranks agree on.
  const bool mine = is_main() || dynamic_cast<const AgreedError*>(&error) == nullptr;
  if (!mine || !folder_.taken() || launch::says_failed(path())) return;
  const ErrorReport report = describe_error(error);
  launch::write_failure(path(), report.exit_code, report.text);
}

void RunStatus::end(const storage::TrainState& state, bool complete) {
  if (!is_main() || statuses_.empty()) return;
  for (proto::RankStatus& status : statuses_) {
    status.set_step(state.step());
    status.set_stage(state.stage());
    status.set_stage_step(state.stage_step());
    status.set_phase("end");
    status.set_leaving(true);
    status.clear_waiting_in();
  }
  launch::write_heartbeat(path(), statuses_, ages_, {complete ? "done" : "stopped", kExitOk});
}

}  // namespace orrery::experiments
