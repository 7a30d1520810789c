// The data plane's all-to-all beside other work, over MPI. It sends point to point in
// pieces and keeps a window of receives posted, which move on whenever poll() is
// called: MPI does little outside its calls, except where the network card fetches data
// by itself.
//
// A piece of what this rank owns goes through three stages: expected (its offsets were
// added), posted (a round receives it from every other rank), and lent to the caller
// until it asks for the next one. mpi_all_to_all.cc refers to these invariants by
// number:
//   1. Pieces pass each stage in the order in which they were added. All ranks add the
//      same offsets in the same order and cut them alike, and MPI keeps the order of
//      messages between two ranks. So the n-th receive from a rank meets its n-th send.
//   2. A slot of the scratch memory belongs to one round, from posting until its piece
//      was given back, or it is in free_slots_. So no receive writes to memory that
//      another round or the caller still uses.
//   3. A rank's own part is read from `send` itself and is never sent.
//   4. wait() gives nothing once every piece was lent here and every send has ended.
//      Each rank takes all that it is sent before it waits for its own sends, so no
//      two ranks wait for each other.
#pragma once

#include <cstdint>
#include <deque>
#include <iterator>
#include <optional>

#include "comm/mpi_support.h"
#include "core/host_image.h"

namespace orrery::comm::mpi {

class MpiAllToAll final : public DataPlane::AllToAll {
 public:
  MpiAllToAll(const Context& ctx, const RankGroup& group,
              const DataPlane::AllToAllBuffers& buffers);
  void add(Span<const int64_t> offsets) override;
  std::optional<DataPlane::Piece> poll() override;
  std::optional<DataPlane::Piece> wait() override;

 private:
  /// One piece of what this rank owns, on its way from every other rank.
  struct Round {
    Extent extent;
    int64_t slot = 0;  ///< of the scratch memory
    Transfers receives;
  };
  /// Posts receives for expected pieces until `most` are posted, or slots or pieces run
  /// out.
  void post(int64_t most);
  /// Posts receives for as many expected pieces as there are free slots.
  void post_all() { post(std::ssize(posted_) + free_slots_.size()); }
  /// Lends the oldest posted piece to the caller; nothing when it has not arrived yet.
  std::optional<DataPlane::Piece> take();
  /// Takes a lent piece back.
  void release();
  /// Where in the scratch memory a round with this slot receives a piece of `size`
  /// elements from rank `from`.
  Extent place(int64_t slot, int from, int64_t size) const {
    const int64_t begin = (slot * group_.size + from) * buffers_.piece;
    return {begin, begin + size};
  }

  RankGroup group_;
  DataPlane::AllToAllBuffers buffers_;
  HostImage<const float> send_;  // of buffers_.send
  HostImage<float> scratch_;     // of buffers_.scratch
  Transfers sends_;
  std::deque<Extent> expected_;
  std::deque<Round> posted_;
  bool lent_ = false;          // the first of them, to the caller
  Array<const float*> parts_;  // of the lent piece
  // The slot that was used last is used again first: the cache still holds it.
  Array<int64_t> free_slots_;
};

}  // namespace orrery::comm::mpi
