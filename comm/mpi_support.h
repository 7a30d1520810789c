// The parts of the communicator over MPI: checked calls, waiting that leaves the core
// to others, and transfers under way. Only this header's users see mpi.h.
#pragma once

#define OMPI_SKIP_MPICXX 1  // the C interface only
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "comm/data_plane.h"
#include "comm/waiting.h"
#include "core/span.h"

namespace orrery::comm::mpi {

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

/// The ranks of an MPI communicator, as one of them sees them; of a control plane and
/// the data planes that belong to it.
struct RankGroup {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0, size = 1;
  std::shared_ptr<WaitState> waiting;

  /// Waits for every rank, leaving the core to others. MPI's blocking calls spin, and
  /// nearly all of their waiting is for ranks that come late, so after this they only
  /// move data. As long as the result lives, that counts as waiting too: a rank may
  /// stop with its data half moved.
  WaitState::Scope arrive(const char* operation) const;
  void await_all(const char* operation) const;
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

/// The collectives over memory of the CPU or, through copies in host memory, of another
/// device. `group` belongs to a communicator that outlives them.
std::unique_ptr<DataPlane> make_data_plane(const RankGroup& group);

}  // namespace orrery::comm::mpi
