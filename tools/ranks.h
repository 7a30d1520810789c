// Running a collective job on every rank of an mpirun, or on the only one.
#pragma once

#include <cstdio>
#include <exception>

#include "comm/communicator.h"
#include "core/fault.h"
#include "core/flight_recorder.h"
#include "core/log.h"
#include "core/plain_error.h"
#include "experiments/together.h"
#include "launch/stop_signal.h"

namespace orrery::tools {

/// Returns what `work(CommWorld&)` does. An error that all ranks agree on is printed
/// once; any other ends all ranks. What a rank did last is printed after failures whose
/// cause is not plain.
template <class Work>
int run_on_ranks(Work&& work) {
  comm::CommWorld ranks;
  const comm::Communicator& world = ranks.world();
  init_log(world.rank(), world.size());
  set_fault_rank(world.rank());
  const int shown_rank = world.size() > 1 ? world.rank() : -1;
  install_crash_handlers(shown_rank);
  const auto print = [&](const char* text) {
    if (world.size() > 1) {
      std::fprintf(stderr, "orrery: rank %d: %s\n", world.rank(), text);
    } else {
      std::fprintf(stderr, "orrery: %s\n", text);
    }
  };
  PlainError failure;
  try {
    return work(ranks);
  } catch (const experiments::AgreedError& error) {
    launch::install_stop_handlers(
        /*tell=*/false);  // mpirun sends SIGTERM to the rank that is the last to leave
    if (world.rank() == 0) std::fprintf(stderr, "orrery: %s\n", error.what());
    return error.exit_code();
  } catch (const std::exception& error) {
    failure = plain_error(error);
  }
  print(failure.text.c_str());
  if (failure.unexpected) print_flight_recorder(shown_rank);
  if (world.size() == 1) return failure.exit_code;
  ranks.abort(failure.exit_code);
}

}  // namespace orrery::tools
