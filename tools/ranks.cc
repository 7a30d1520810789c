#include "tools/ranks.h"

#include <cstdio>

#include "core/error_report.h"
#include "core/fault.h"
#include "core/flight_recorder.h"
#include "core/log.h"
#include "experiments/on_all_ranks.h"
#include "launch/stop_signal.h"

namespace orrery::tools {

Ranks::Ranks() : shown_rank_(world().size() > 1 ? world().rank() : -1) {
  init_log(world().rank(), world().size());
  set_fault_rank(world().rank());
  install_crash_handlers(shown_rank_);
}

int Ranks::fail(const std::exception& error) {
  if (const auto* agreed = dynamic_cast<const experiments::AgreedError*>(&error)) {
    // mpirun sends SIGTERM to the rank that is the last to leave.
    launch::install_stop_handlers(/*announce=*/false);
    if (is_main()) std::fprintf(stderr, "orrery: %s\n", agreed->what());
    return agreed->exit_code();
  }
  const ErrorReport report = describe_error(error);
  if (shown_rank_ >= 0) {
    std::fprintf(stderr, "orrery: rank %d: %s\n", shown_rank_, report.text.c_str());
  } else {
    std::fprintf(stderr, "orrery: %s\n", report.text.c_str());
  }
  if (report.unexpected) print_flight_recorder(shown_rank_);
  if (world().size() > 1) all_.abort(report.exit_code);
  return report.exit_code;
}

}  // namespace orrery::tools
