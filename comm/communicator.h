// Ranks talking to each other. One interface over a single process, MPI, and later
// NCCL. Collectives are called by all ranks of a communicator in the same order. Every
// MPI return code is checked; a failure throws Error naming the operation and the peer.
// Buffers are memory of the communicator's device. Any size: data beyond MPI's 32-bit
// counts goes in pieces. A rank that waits leaves its core to others. Thread-safety:
// collectives from one thread at a time; messages from any, beside a collective.
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

namespace orrery::comm {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  virtual void barrier() = 0;
  virtual void broadcast(std::span<std::byte> data, int root) = 0;
  /// data += over ranks, plain all-reduce: the order of the sums is the library's.
  virtual void all_reduce_sum(std::span<float> data) = 0;
  virtual void all_reduce_sum(std::span<double> data) = 0;
  virtual void all_reduce_max(std::span<double> data) = 0;
  /// In place: owned[r] are the elements of `all` that rank r contributes, the same
  /// lists on every rank, which do not overlap.
  virtual void all_gather(std::span<float> all, std::span<const std::vector<Extent>> owned) = 0;

  /// Elements `extent` of what every rank sent: parts[p] is rank p's. Valid until the
  /// exchange is asked for the next piece.
  struct Piece {
    Extent extent;
    std::span<const float* const> parts;
  };

  /// An exchange that goes on beside its rank's other work, for one thread. From its
  /// creation until wait() gives nothing no other collective of the communicator may be
  /// called. An exchange that does not come so far is given up, and with it the job.
  class AllToAll {
   public:
    virtual ~AllToAll() = default;
    /// send[offsets[p] .. offsets[p + 1]) goes to every rank p. All ranks add the same
    /// offsets (size() + 1) in the same order, each when it likes. Sends begin; what
    /// they read must stay until wait() gives nothing.
    virtual void add(std::span<const int64_t> offsets) = 0;
    /// The next piece for this rank, in the order in which pieces were added; nothing
    /// when it has not arrived. Never waits. What is under way moves on in here and in
    /// wait() alone, so callers ask until there is nothing.
    virtual std::optional<Piece> poll() = 0;
    /// The next piece; waits for it. Nothing: all that was added has arrived here and
    /// everywhere.
    virtual std::optional<Piece> wait() = 0;
  };
  struct AllToAllBuffers {
    std::span<const float> send;
    int64_t piece = 0;  ///< elements of each rank in a Piece, at most
    /// At least 2 * size() * piece; more lets more arrive between two poll().
    std::span<float> scratch;
  };
  /// What comes for this rank are pieces of what it owns (offsets[rank()] ..
  /// offsets[rank() + 1]). It may write there while it has the piece: nobody is sent
  /// that.
  virtual std::unique_ptr<AllToAll> all_to_all(const AllToAllBuffers& buffers) = 0;
  /// Bytes of every rank, in rank order, on every rank.
  virtual std::vector<std::string> all_gather_bytes(const std::string& mine) = 0;

  /// Point to point, for control messages. send copies; receive blocks; try_receive
  /// returns nothing when no message waits.
  struct Message {
    int source = 0;
    int tag = 0;
    std::string bytes;
  };
  static constexpr int kAnySource = -1, kAnyTag = -1;
  virtual void send(int destination, int tag, const std::string& bytes) = 0;
  virtual Message receive(int source, int tag) = 0;
  virtual std::optional<Message> try_receive(int source, int tag) = 0;

  /// What this rank waits in at the moment: on this communicator, on what it was split
  /// from, or on what was split from it. For other threads to look at.
  struct Waiting {
    const char* operation = nullptr;  ///< null: it does not wait
    double seconds = 0;
  };
  virtual Waiting waiting() const { return {}; }

  /// Ranks with equal color form a new communicator, ordered by rank here. color < 0:
  /// none (null).
  virtual std::unique_ptr<Communicator> split(int color) = 0;

  /// Collective. The same ranks once more, for another thread of each: its collectives
  /// run beside this one's, and its waiting() is its own.
  virtual std::unique_ptr<Communicator> duplicate() = 0;
};

/// One rank, no library.
std::unique_ptr<Communicator> make_local_communicator();

/// Initialises MPI (MPI_THREAD_MULTIPLE; an MPI without it is an Error) when started by
/// mpirun/srun (by environment), else stays local and never pays for MPI_Init.
/// Finalises on destruction, after every other communicator is gone. Catch errors
/// inside its scope and call abort(): finalising would wait for ranks that wait for
/// this one. abort(): ends every rank at once with this exit code; its caller has
/// already printed the error, or gives its line, which is then printed by the lowest of
/// the ranks that fail together.
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
