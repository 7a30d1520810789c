// CommWorld: starts MPI where a launcher did, and ends it.
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <thread>

#include "comm/mpi_support.h"
#include "core/error.h"

namespace orrery::comm {
namespace {

using mpi::check;

/// An error that every rank meets (a bad config) is printed by the lowest rank only,
/// because it waits the shortest time and then ends the others.
constexpr auto kAbortStagger = std::chrono::milliseconds(150);

constexpr unsigned kAbortSeconds = 15;

/// Whether a launcher that speaks MPI's start-up protocol started this process.
bool started_by_mpi() {
  // Open MPI's mpirun; MPICH's and Intel's, srun --mpi=pmi2; srun --mpi=pmix.
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  // Without a start-up protocol every task would take itself for the whole job and they
  // would share one run folder.
  const char* tasks = std::getenv("SLURM_STEP_NUM_TASKS");
  if (tasks != nullptr && std::atoi(tasks) > 1) {
    fail_usage(
        "srun started {} tasks without MPI's start-up: "
        "use srun --mpi=pmix, or mpirun inside the allocation",
        tasks);
  }
  return false;
}

}  // namespace

CommWorld::CommWorld() {
  if (!started_by_mpi()) {
    world_ = make_local_communicator();
    return;
  }
  // Read by Open MPI when it starts; what the user set wins. Ranks often share cores,
  // so waiting must yield; reward workers are forked before they touch anything of
  // MPI's, so its warning about fork is noise.
  setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
  setenv("OMPI_MCA_mpi_warn_on_fork", "0", 0);
  int provided = MPI_THREAD_SINGLE;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided) != MPI_SUCCESS) {
    fail(
        "MPI could not start; run the same command with mpirun -n 1 hostname to see whether MPI "
        "works on this host");
  }
  mpi_ = true;
  check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler", 0);
  check(MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler", 0);
  int rank = 0;
  check(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank", 0);
  if (provided < MPI_THREAD_MULTIPLE) {
    fail(
        "this MPI gives thread level {} but MPI_THREAD_MULTIPLE ({}) is needed: "
        "use an MPI built with thread support",
        provided, MPI_THREAD_MULTIPLE);
  }
  MPI_Comm ours = MPI_COMM_NULL;
  check(MPI_Comm_dup(MPI_COMM_WORLD, &ours), "MPI_Comm_dup", rank);
  world_ = mpi::make_communicator(ours);
  MPI_Comm host = MPI_COMM_NULL;
  check(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &host),
        "MPI_Comm_split_type", rank);
  check(MPI_Comm_size(host, &local_.size), "MPI_Comm_size", rank);
  check(MPI_Comm_rank(host, &local_.rank), "MPI_Comm_rank", rank);
  check(MPI_Comm_free(&host), "MPI_Comm_free", rank);
}

CommWorld::~CommWorld() {
  if (mpi_ && std::uncaught_exceptions() > 0) {
    // MPI_Finalize would wait for ranks that wait for us.
    std::fputs("orrery: error: a rank leaves the job because of an error; ending all ranks\n",
               stderr);
    abort(kExitFailure);
  }
  world_.reset();
  if (mpi_) MPI_Finalize();
}

void CommWorld::abort(int exit_code, const std::string& line) {
  // The other ranks' end reaches this one as SIGTERM: it must not be caught and
  // answered with a second message.
  std::signal(SIGTERM, SIG_DFL);
  std::this_thread::sleep_for(kAbortStagger * std::min(world_->rank(), 8));
  std::fprintf(stderr, "%s\n", line.c_str());
  abort(exit_code);
}

void CommWorld::abort(int exit_code) {
  // Should output or MPI itself be stuck, the alarm ends this rank, and so the job.
  if (mpi_) alarm(kAbortSeconds);
  spdlog::default_logger()->flush();
  std::fflush(nullptr);
  if (mpi_) MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

}  // namespace orrery::comm
