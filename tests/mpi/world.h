// The ranks a test of test_mpi runs on.
#pragma once

#include "comm/communicator.h"

namespace orrery::testing_support {

/// Every rank runs the same tests in the same order; a test that uses collectives calls
/// them on all ranks.
comm::CommWorld& comm_world();
inline comm::Communicator& world() { return comm_world().world(); }

}  // namespace orrery::testing_support
