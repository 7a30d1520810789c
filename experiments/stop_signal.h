// SIGTERM, SIGINT and SIGUSR1 (Slurm's --signal=USR1@60) ask for "save and exit"; a second SIGINT ends at
// once.
#pragma once

#include "comm/communicator.h"

namespace orrery {

/// `tell`: this rank says so on stderr (one rank is enough).
void install_stop_handlers(bool tell);

/// True on this rank once a signal has come.
bool stop_requested();

/// True on every rank of `comm` when any was asked to stop. Collective, so that all leave the loop at the
/// same step.
bool agree_to_stop(Communicator& comm);

}  // namespace orrery
