// The parts of the communicator over MPI: checked calls, waiting that leaves the core
// to others, and transfers under way. Only this header's users see mpi.h.
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
#include "core/span.h"

namespace orrery::comm::mpi {

using Clock = std::chrono::steady_clock;

/// The most bytes that one MPI call moves. MPI's counts are 32-bit, so larger data goes
/// in chunks, which also keep a library's temporary buffers small.
inline constexpr int64_t kMaxCallBytes = int64_t{64} << 20;

inline constexpr int kNoPeer = -1;

/// Throws an Error that names the operation, this rank and the peer, unless the code is
/// MPI_SUCCESS.
void check(int code, const char* operation, int rank, int peer = kNoPeer);

/// A count as MPI takes it. REQUIRES: it fits.
int mpi_count(int64_t count);

/// Calls body(begin, count) for one chunk of `size` bytes after the other; `count` is
/// at most kMaxCallBytes.
template <class Body>
void for_chunks(int64_t size, Body&& body) {
  for (int64_t begin = 0; begin < size; begin += kMaxCallBytes)
    body(begin, mpi_count(std::min(size - begin, kMaxCallBytes)));
}

/// The pauses of a polling loop. It yields for as long as a peer that keeps pace would
/// take, and then sleeps for times that grow to a millisecond, so that a rank that
/// waits leaves its core to those that work.
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

/// The operation that a rank waits in, and since when. The thread that waits writes it;
/// a watchdog's thread reads it. A communicator shares it with those split from it,
/// because a rank waits in only one of them at a time.
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

/// A set of sends and receives under way.
class Transfers {
 public:
  explicit Transfers(MPI_Comm comm, int rank) : comm_(comm), rank_(rank) {}

  /// The memory must stay until the transfer is finished. Data larger than one MPI call
  /// takes goes in chunks.
  void receive(int peer, Span<std::byte> into, const char* operation);
  void send(int peer, Span<const std::byte> data, const char* operation);
  /// Whether all are finished; forgets them if they are.
  bool test(const char* operation);
  /// Waits for all, spinning, and forgets them.
  void finish(const char* operation);

 private:
  void add(MPI_Request request, int peer);
  void check_all(int code, const std::vector<MPI_Status>& statuses, const char* operation) const;

  static constexpr int kTag = 0;
  MPI_Comm comm_;
  int rank_;
  std::vector<MPI_Request> requests_;
  std::vector<int> peers_;
};

/// Collective over `comm`, which the result then owns.
std::unique_ptr<Communicator> make_communicator(MPI_Comm comm);

}  // namespace orrery::comm::mpi
