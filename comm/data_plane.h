// The data plane of a communicator: collectives over device memory. Each takes the
// Context whose device the memory is on and whose stream it is in order with: it reads
// what the stream has written by then, and what is queued on the stream afterwards
// finds its result. Over MPI a collective has ended when it returns; memory that the
// host cannot touch goes through copies in host memory.
//
// All ranks call the collectives of a plane, and of the communicator that it belongs
// to, in the same order, from one thread at a time. Buffers may have any size: data
// beyond MPI's 32-bit counts goes in pieces. A failure throws an Error that names the
// operation and the peer. A rank that waits leaves its core to others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/context.h"
#include "core/dtype.h"
#include "core/extent.h"
#include "core/span.h"
#include "core/tensor.h"

namespace orrery::comm {

/// Contiguous elements in device memory, of a type that is known at run time.
struct DeviceArray {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t size = 0;

  DeviceArray(void* d, DType type, int64_t count) : data(d), dtype(type), size(count) {}
  DeviceArray(Vec<float> v) : data(v.data), size(v.size) {}  // NOLINT: a Vec is one
  int64_t element_bytes() const { return static_cast<int64_t>(dtype_bytes(dtype)); }
  Vec<std::byte> bytes() const { return {static_cast<std::byte*>(data), size * element_bytes()}; }
  /// Where in bytes() the elements are.
  Extent bytes_of(const Extent& elements) const {
    return {elements.begin * element_bytes(), elements.end * element_bytes()};
  }
};

class DataPlane {
 public:
  virtual ~DataPlane() = default;

  virtual void broadcast(const Context& ctx, DeviceArray data, int root) = 0;
  /// Each element becomes its sum over the ranks. A plain all-reduce: the library
  /// chooses the order of the sums. Error for elements that are not f32.
  virtual void all_reduce_sum(const Context& ctx, DeviceArray data) = 0;
  /// In place: owned[r] names the elements of `all` that rank r contributes. The lists
  /// are the same on every rank and do not overlap.
  virtual void all_gather(const Context& ctx, DeviceArray all,
                          Span<const std::vector<Extent>> owned) = 0;

  /// Elements `extent` of what every rank sent: parts[p], device memory, is rank p's.
  /// Valid for work that is queued on the exchange's stream before the exchange is
  /// asked for the next piece.
  struct Piece {
    Extent extent;
    Span<const float* const> parts;
  };

  /// An exchange that goes on beside the rank's other work. One thread uses it. No
  /// other collective of the plane or its communicator may be called between its
  /// creation and the wait() that gives nothing. An exchange that is destroyed before
  /// is given up, and the job with it.
  class AllToAll {
   public:
    virtual ~AllToAll() = default;
    /// Begins to send send[offsets[p] .. offsets[p + 1]) to every rank p. All ranks add
    /// the same offsets (size() + 1 of them) in the same order, each at a time of its
    /// own. What is sent must stay as it is until wait() gives nothing.
    virtual void add(Span<const int64_t> offsets) = 0;
    /// The next piece for this rank, in the order in which pieces were added; nothing
    /// when it has not arrived. Never waits. What is under way moves on only in here
    /// and in wait(), so callers ask until there is nothing.
    virtual std::optional<Piece> poll() = 0;
    /// The next piece; waits for it. Nothing: all that was added has arrived here and
    /// everywhere.
    virtual std::optional<Piece> wait() = 0;
  };
  struct AllToAllBuffers {
    Vec<const float> send;
    int64_t piece = 0;  ///< the most elements per rank in a Piece
    /// At least 2 * size() * piece elements; with more, more arrives between two calls
    /// of poll().
    Vec<float> scratch;
  };
  /// What comes for this rank are pieces of what it owns (offsets[rank()] ..
  /// offsets[rank() + 1]). It may write there while it has the piece, because that is
  /// sent to nobody.
  virtual std::unique_ptr<AllToAll> all_to_all(const Context& ctx,
                                               const AllToAllBuffers& buffers) = 0;
};

}  // namespace orrery::comm
