// The ranks of an mpirun, or the only one, for a command that all of them run together.
#pragma once

#include <exception>

#include "comm/communicator.h"

namespace orrery::tools {

/// Starts MPI where mpirun started this process, and from then on log lines, injected
/// faults and the report of a crash know the rank. A command holds one and catches what
/// ends it inside its scope:
///
///   Ranks ranks;
///   try {
///     return work(ranks);
///   } catch (const std::exception& error) {
///     return ranks.fail(error);
///   }
class Ranks {
 public:
  Ranks();
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  comm::CommWorld& all() { return all_; }
  comm::Communicator& world() { return all_.world(); }
  LocalRank local() const { return all_.local(); }  ///< among the ranks on this host
  bool is_main() { return world().rank() == 0; }

  /// The exit code of a command that `error` ends. An error that all ranks agree on is
  /// printed once. Of any other, this rank prints its own and ends all ranks, so that
  /// it does not return where there are several. What the rank did last is printed
  /// after a failure whose cause is not plain.
  int fail(const std::exception& error);

 private:
  comm::CommWorld all_;
  int shown_rank_;  // in messages; -1: it is the only one
};

}  // namespace orrery::tools
