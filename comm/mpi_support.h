// What the communicator over MPI is made of: checked calls, waiting that leaves the
// core to others, and transfers under way. Together with its users the only code that
// sees mpi.h.
#pragma once

#define OMPI_SKIP_MPICXX 1  // the C interface only
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "comm/communicator.h"

namespace orrery::comm::mpi {

using Clock = std::chrono::steady_clock;

/// Bytes of one MPI call. MPI's counts are 32-bit, so larger data goes in pieces; and
/// pieces keep a library's temporary buffers small.
inline constexpr size_t kChunkBytes = size_t{64} << 20;

inline constexpr int kNoPeer = -1;

/// Error naming the operation, this rank and the peer unless the code is MPI_SUCCESS.
void check(int code, const char* operation, int rank, int peer = kNoPeer);

/// Pauses of a polling loop: yields for as long as a peer in step would take, then
/// sleeps that grow to a millisecond, so that a rank that waits leaves its core to
/// those that work.
class Backoff {
 public:
  void pause() {
    if (!sleeping_) {
      sched_yield();
      sleeping_ = Clock::now() - begin_ > std::chrono::microseconds(200);
      return;
    }
    std::this_thread::sleep_for(sleep_);
    sleep_ = std::min(sleep_ * 5 / 4, std::chrono::nanoseconds(std::chrono::milliseconds(1)));
  }

 private:
  Clock::time_point begin_ = Clock::now();
  bool sleeping_ = false;
  std::chrono::nanoseconds sleep_ = std::chrono::microseconds(10);
};

/// Operation that a rank waits in, and since when: written by the thread that waits,
/// read by a watchdog's. Shared by a communicator and those split from it, for a rank
/// waits in one of them at a time.
class WaitState {
 public:
  class Scope {
   public:
    Scope(WaitState& state, const char* operation) : state_(state) {
      state_.since_ = Clock::now().time_since_epoch().count();
      state_.operation_ = operation;
    }
    ~Scope() { state_.operation_ = nullptr; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    WaitState& state_;
  };
  Communicator::Waiting get() const {
    const char* operation = operation_;
    if (operation == nullptr) return {};
    const Clock::duration waited = Clock::now().time_since_epoch() - Clock::duration(since_.load());
    return {operation, std::chrono::duration<double>(waited).count()};
  }

 private:
  std::atomic<const char*> operation_ = nullptr;
  std::atomic<Clock::rep> since_ = 0;
};

/// Sends and receives under way, which belong together.
class Transfers {
 public:
  explicit Transfers(MPI_Comm comm, int rank) : comm_(comm), rank_(rank) {}

  /// The memory must stay until the transfer is finished. Larger data than an MPI call
  /// takes goes in chunks.
  void receive(int peer, std::span<std::byte> into, const char* operation);
  void send(int peer, std::span<const std::byte> data, const char* operation);
  bool test(const char* operation);    ///< whether all are finished, and then forgotten
  void finish(const char* operation);  ///< waits for all, spinning, and forgets them

 private:
  void add(MPI_Request request, int peer);
  void check_all(int code, const std::vector<MPI_Status>& statuses, const char* operation) const;

  static constexpr int kTag = 0;
  MPI_Comm comm_;
  int rank_;
  std::vector<MPI_Request> requests_;
  std::vector<int> peers_;
};

/// Takes the communicator over; collective over it.
std::unique_ptr<Communicator> make_communicator(MPI_Comm comm);

}  // namespace orrery::comm::mpi
