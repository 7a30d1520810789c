// SIGTERM, SIGINT, SIGHUP and SIGUSR1 (Slurm's --signal=USR1@60) ask for "save and
// exit". A second one of the first three, at least a second after the first of them,
// ends the process at once. SIGUSR1 never does: it is what `orrery launch` and batch
// systems pass on, also beside a SIGTERM that they have sent already.
#pragma once

#include <array>
#include <csignal>

#include "comm/communicator.h"

namespace orrery::launch {

/// The signals that ask for it. SIGHUP does unless it was ignored when the program
/// started, as by nohup.
inline constexpr std::array kStopSignals = {SIGTERM, SIGINT, SIGUSR1, SIGHUP};

/// From now on they call `handler`; interrupted system calls go on.
void handle_stop_signals(void (*handler)(int));

/// Default actions again, for a child between fork and exec: what handle_stop_signals()
/// left ignored stays so. Async-signal-safe.
void reset_stop_signals();

/// What a signal says, of all that have come to this process. For handlers:
/// async-signal-safe.
enum class StopRequest {
  kFirst,  ///< stop
  kAgain,  ///< the same request: `timeout` and batch systems signal a process and its group
  kNow     ///< a second request: end at once
};
StopRequest note_stop_signal(int signal);

/// Handlers of a rank: the first request is remembered, a second one ends the process
/// with exit code 128 + signal. `tell`: this rank says so of the first (one rank is
/// enough).
void install_stop_handlers(bool tell);

/// For the time before that, when MPI starts: mpirun passes a SIGUSR1 on whatever its
/// ranks are at, and they would die of it.
void catch_early_stop();

/// True in this process once a signal has come.
bool stop_requested();

/// True on every rank of `comm` when any was asked to stop. Collective, so that all
/// leave the loop at the same step.
bool agree_to_stop(comm::Communicator& comm);

}  // namespace orrery::launch
