// How ranks talk to each other: the control plane (messages, small values and texts in
// host memory, waiting, splitting) and, through data(), the data plane (collectives
// over device memory, comm/data_plane.h). There is one interface over a single process,
// MPI, and NCCL for the data (comm/plane_choice.h). All ranks of a communicator call
// its collectives, those of its data planes included, in the same order. Every MPI
// return code is checked; a failure throws an Error that names the operation and the
// peer. A rank that waits leaves its core to others.
//
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
#include <utility>
#include <vector>

#include "comm/data_plane.h"
#include "comm/waiting.h"
#include "core/context.h"
#include "core/device.h"

namespace orrery::comm {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  virtual void barrier() = 0;
  virtual void broadcast(std::span<std::byte> data, int root) = 0;  ///< small: headers
  /// Each element becomes the sum, or the largest, of the ranks' values. The library
  /// chooses the order of the sums.
  virtual void all_reduce_sum(std::span<double> data) = 0;
  virtual void all_reduce_max(std::span<double> data) = 0;
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
  virtual Waiting waiting() const { return {}; }
  /// Calls done() until it says so, and leaves the core to others meanwhile. That
  /// counts as waiting in `operation`, a literal. For a data plane whose library is
  /// polled.
  virtual void wait(const char* operation, const std::function<bool()>& done) = 0;

  /// Collective. Ranks with the same color form a new communicator, in the order of
  /// their ranks here. A rank with color < 0 gets null.
  virtual std::unique_ptr<Communicator> split(int color) = 0;

  /// Collective. A second communicator over the same ranks, for another thread of each
  /// rank: its collectives run beside this one's, and it has its own waiting().
  virtual std::unique_ptr<Communicator> duplicate() = 0;

  /// The collectives over memory of `device`. They are these ranks', and live as long
  /// as this communicator. The first call for a device makes them, and is collective;
  /// an Error for a device that this build lacks.
  DataPlane& data(Device device);

  /// Makes a plane of another library for the device, or null where it has none for it.
  /// Collective over the communicator.
  using PlaneMaker = std::function<std::unique_ptr<DataPlane>(Communicator&, Device)>;
  /// Collective in that all ranks set the same. Counts where data() has made no plane
  /// yet, here and in communicators that are split or duplicated from this one from now
  /// on. Without it planes are of the communicator's own library, which for a CUDA
  /// device goes through host memory.
  void set_plane_maker(PlaneMaker maker) { plane_maker_ = std::move(maker); }

 protected:
  /// `made`, which comes of this communicator, with its plane maker.
  std::unique_ptr<Communicator> as_offspring(std::unique_ptr<Communicator> made) const {
    made->plane_maker_ = plane_maker_;
    return made;
  }

 private:
  virtual std::unique_ptr<DataPlane> make_data_plane(Device device) = 0;
  PlaneMaker plane_maker_;
  std::vector<std::pair<Device, std::unique_ptr<DataPlane>>> planes_;
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
  LocalRank local() const { return local_; }  ///< among the ranks on this host
  [[noreturn]] void abort(int exit_code);
  [[noreturn]] void abort(int exit_code, const std::string& line);

 private:
  std::unique_ptr<Communicator> world_;
  LocalRank local_;
  bool mpi_ = false;
};

}  // namespace orrery::comm
