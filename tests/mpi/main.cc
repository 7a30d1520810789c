// Runs the tests on all ranks of an MPI job (or on one without). Rank 0 reports;
// another rank speaks only when a check of its own fails. A test that fails on any rank
// ends the job at once: the ranks may no longer agree on what comes next.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "core/error.h"
#include "core/log.h"
#include "tests/mpi/world.h"

#if defined(__SANITIZE_ADDRESS__)
// Open MPI keeps what it allocates, and its plugins are gone when leaks are counted, so
// that they cannot be suppressed by name. Our own leaks are the unit tests' to find.
extern "C" const char* __asan_default_options();  // NOLINT(bugprone-reserved-identifier)
extern "C" const char* __asan_default_options() {
  return "detect_leaks=0";
}  // NOLINT(bugprone-reserved-identifier)
#endif

namespace orrery::testing_support {

comm::CommWorld& comm_world() {
  static comm::CommWorld world;
  return world;
}

namespace {

class RankListener final : public testing::EmptyTestEventListener {
 public:
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed() || world().rank() == 0) return;
    std::fprintf(stderr, "[rank %d of %d] %s:%d: %s\n", world().rank(), world().size(),
                 result.file_name() != nullptr ? result.file_name() : "exception",
                 result.line_number(), result.message());
  }
  void OnTestEnd(const testing::TestInfo& info) override {
    if (info.result()->Passed() || info.result()->Skipped()) return;
    if (world().size() == 1) return;
    usleep(500'000);  // other ranks may be about to say what they saw
    comm_world().abort(kExitFailure,
                       fmt::format("[rank {} of {}] FAILED {}.{}", world().rank(), world().size(),
                                   info.test_suite_name(), info.name()));
  }
};

}  // namespace
}  // namespace orrery::testing_support

int main(int argc, char** argv) {
  using namespace orrery;
  comm::Communicator& world = testing_support::world();
  init_log(world.rank(), world.size(), "warn");
  testing::InitGoogleTest(&argc, argv);
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (world.rank() != 0) delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new testing_support::RankListener);
  double failed = RUN_ALL_TESTS();
  world.all_reduce_max(std::span(&failed, 1));
  return failed != 0 ? kExitFailure : kExitOk;
}
