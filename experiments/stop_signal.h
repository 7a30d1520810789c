// SIGTERM, SIGINT and SIGUSR1 (Slurm's --signal=USR1@60) ask for "save and exit"; a second SIGINT ends at
// once.
#pragma once

#include <array>
#include <csignal>

#include "comm/communicator.h"

namespace orrery {

/// The signals that ask for it.
inline constexpr std::array kStopSignals = {SIGTERM, SIGINT, SIGUSR1};

/// From now on they call `handler`; interrupted system calls go on.
void handle_stop_signals(void (*handler)(int));

/// `tell`: this rank says so on stderr (one rank is enough).
void install_stop_handlers(bool tell);

/// True on this rank once a signal has come.
bool stop_requested();

/// True on every rank of `comm` when any was asked to stop. Collective, so that all leave the loop at the
/// same step.
bool agree_to_stop(Communicator& comm);

}  // namespace orrery
