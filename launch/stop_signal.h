// The signals that ask a run to save and exit: SIGTERM, SIGINT, SIGHUP and SIGUSR1
// (Slurm's --signal=USR1@60). A second one of the first three, at least a second after
// the first of them, ends the process at once. SIGUSR1 never does, because `orrery
// launch` and batch systems pass it on, sometimes beside a SIGTERM that they have sent
// already.
#pragma once

#include <array>
#include <csignal>

#include "comm/communicator.h"

namespace orrery::launch {

/// The signals that ask for a stop. SIGHUP does not when it was ignored at the
/// program's start, as by nohup.
inline constexpr std::array kStopSignals = {SIGTERM, SIGINT, SIGUSR1, SIGHUP};

/// From now on these signals call `handler`; interrupted system calls go on.
void handle_stop_signals(void (*handler)(int));

/// Gives the signals their default actions again, for a child between fork and exec.
/// What handle_stop_signals() left ignored stays ignored. Async-signal-safe.
void reset_stop_signals();

/// What a signal means, in view of those that have come to this process before it. For
/// handlers: async-signal-safe.
enum class StopRequest {
  kFirst,  ///< stop
  kAgain,  ///< the same request: `timeout` and batch systems signal a process and its group
  kNow     ///< a second request: end at once
};
StopRequest note_stop_signal(int signal);

/// Installs a rank's handlers: the first request is remembered, and a second one ends
/// the process with exit code 128 + signal. With `announce` this rank prints a line
/// about the first request (one rank is enough).
void install_stop_handlers(bool announce);

/// For the time before that, while MPI starts: mpirun passes a SIGUSR1 on whatever its
/// ranks are doing, and they would die of it.
void catch_early_stop();

/// True in this process once a signal has come.
bool stop_requested();

/// True on every rank of `comm` when any of them was asked to stop. Collective, so that
/// all leave the loop at the same step.
bool agree_to_stop(comm::Communicator& comm);

}  // namespace orrery::launch
