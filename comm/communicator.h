// How ranks talk to each other. There is one interface over a single process, MPI, and
// later NCCL. All ranks of a communicator call its collectives in the same order. Every
// MPI return code is checked; a failure throws an Error that names the operation and
// the peer. Buffers are memory of the communicator's device, of any size: data beyond
// MPI's 32-bit counts goes in pieces. A rank that waits leaves its core to others.
// Thread-safety: collectives may be called from one thread at a time, messages from any
// thread, also while a collective is under way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/context.h"
#include "core/extent.h"
#include "core/span.h"

namespace orrery::comm {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  virtual void barrier() = 0;
  virtual void broadcast(std::span<std::byte> data, int root) = 0;
  /// Each element becomes its sum over the ranks. A plain all-reduce: the library
  /// chooses the order of the sums.
  virtual void all_reduce_sum(std::span<float> data) = 0;
  virtual void all_reduce_sum(std::span<double> data) = 0;
  virtual void all_reduce_max(std::span<double> data) = 0;
  /// In place: owned[r] names the elements of `all` that rank r contributes. The lists
  /// are the same on every rank and do not overlap.
  virtual void all_gather(std::span<float> all, std::span<const std::vector<Extent>> owned) = 0;

  /// Elements `extent` of what every rank sent: parts[p] is rank p's. Valid until the
  /// exchange is asked for the next piece.
  struct Piece {
    Extent extent;
    Span<const float* const> parts;
  };

  /// An exchange that goes on beside the rank's other work. One thread uses it. No
  /// other collective of the communicator may be called between its creation and the
  /// wait() that gives nothing. An exchange that is destroyed before is given up, and
  /// the job with it.
  class AllToAll {
   public:
    virtual ~AllToAll() = default;
    /// Begins to send send[offsets[p] .. offsets[p + 1]) to every rank p. All ranks add
    /// the same offsets (size() + 1 of them) in the same order, each at a time of its
    /// own. What is sent must stay as it is until wait() gives nothing.
    virtual void add(std::span<const int64_t> offsets) = 0;
    /// The next piece for this rank, in the order in which pieces were added; nothing
    /// when it has not arrived. Never waits. What is under way moves on only in here
    /// and in wait(), so callers ask until there is nothing.
    virtual std::optional<Piece> poll() = 0;
    /// The next piece; waits for it. Nothing: all that was added has arrived here and
    /// everywhere.
    virtual std::optional<Piece> wait() = 0;
  };
  struct AllToAllBuffers {
    Span<const float> send;
    int64_t piece = 0;  ///< the most elements per rank in a Piece
    /// At least 2 * size() * piece elements; with more, more arrives between two calls
    /// of poll().
    Span<float> scratch;
  };
  /// What comes for this rank are pieces of what it owns (offsets[rank()] ..
  /// offsets[rank() + 1]). It may write there while it has the piece, because that is
  /// sent to nobody.
  virtual std::unique_ptr<AllToAll> all_to_all(const AllToAllBuffers& buffers) = 0;
  /// Every rank gets the bytes of every rank, in rank order.
  virtual std::vector<std::string> all_gather_bytes(const std::string& mine) = 0;

  /// Point to point, for control messages. send() copies the bytes; receive() blocks;
  /// try_receive() returns nothing when no message waits.
  struct Message {
    int source = 0;
    int tag = 0;
    std::string bytes;
  };
  static constexpr int kAnySource = -1, kAnyTag = -1;
  virtual void send(int destination, int tag, const std::string& bytes) = 0;
  virtual Message receive(int source, int tag) = 0;
  virtual std::optional<Message> try_receive(int source, int tag) = 0;

  /// The operation that this rank waits in at the moment: on this communicator, on the
  /// one that it was split from, or on one that was split from it. For other threads.
  struct Waiting {
    const char* operation = nullptr;  ///< null when the rank does not wait
    double seconds = 0;
  };
  virtual Waiting waiting() const { return {}; }

  /// Collective. Ranks with the same color form a new communicator, in the order of
  /// their ranks here. A rank with color < 0 gets null.
  virtual std::unique_ptr<Communicator> split(int color) = 0;

  /// Collective. A second communicator over the same ranks, for another thread of each
  /// rank: its collectives run beside this one's, and it has its own waiting().
  virtual std::unique_ptr<Communicator> duplicate() = 0;
};

/// A communicator of one rank, without any library.
std::unique_ptr<Communicator> make_local_communicator();

/// Initialises MPI when the environment says that mpirun or srun started the process
/// (MPI_THREAD_MULTIPLE; an MPI without it is an Error). Otherwise stays local and
/// never pays for MPI_Init. The destructor finalises MPI, so every other communicator
/// must be gone by then. Catch errors inside its scope and call abort(), because
/// finalising would wait for ranks that wait for this one.
///
/// abort() ends every rank at once with this exit code. Either the caller has printed
/// the error, or it passes the line, which the lowest of the ranks that fail together
/// prints.
class CommWorld {
 public:
  CommWorld();
  ~CommWorld();
  CommWorld(const CommWorld&) = delete;
  CommWorld& operator=(const CommWorld&) = delete;
  Communicator& world() { return *world_; }
  int local_ranks() const { return local_ranks_; }  ///< ranks on this host
  [[noreturn]] void abort(int exit_code);
  [[noreturn]] void abort(int exit_code, const std::string& line);

 private:
  std::unique_ptr<Communicator> world_;
  int local_ranks_ = 1;
  bool mpi_ = false;
};

}  // namespace orrery::comm
