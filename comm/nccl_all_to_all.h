// The data plane's all-to-all beside other work, over NCCL: rounds of grouped sends and
// receives on a stream of their own.
//
// A round holds the n-th piece of what each rank owns: this rank sends every other rank
// its piece and receives its own from all of them. A rank whose slice has fewer pieces
// receives nothing in the later rounds. A round goes through three stages: expected
// (its offsets were added), under way (the library has it), and lent (its piece is with
// the caller until the next one is asked for). nccl_all_to_all.cc refers to these
// invariants by number:
//   1. All ranks have the same rounds in the same order, as they add the same offsets
//      in the same order, and NCCL keeps the order of what goes between two ranks. So
//      the n-th receive from a rank meets its n-th send.
//   2. A round begins behind an event of the caller's stream: what it sends is written.
//   3. A slot of the scratch memory belongs to one round, from its begin until its
//      piece was given back, and the next round in it begins behind what the caller had
//      queued by then.
//   4. A rank's own part is read from `send` itself and is never sent.
//   5. A round needs of its own rank a free slot alone, which the caller's own calls
//      bring about. So no two ranks wait for each other.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "comm/nccl_group.h"
#include "core/stream.h"

namespace orrery::comm::nccl {

class NcclAllToAll final : public DataPlane::AllToAll {
 public:
  /// `stream`: for the exchange alone. It and `group` must outlive the exchange.
  NcclAllToAll(const Context& ctx, Group& group, Stream& stream,
               const DataPlane::AllToAllBuffers& buffers);
  /// Aborts the group when not all that was added has been taken.
  ~NcclAllToAll() override;
  NcclAllToAll(const NcclAllToAll&) = delete;
  NcclAllToAll& operator=(const NcclAllToAll&) = delete;

  void add(Span<const int64_t> offsets) override;
  std::optional<DataPlane::Piece> poll() override;
  std::optional<DataPlane::Piece> wait() override;

 private:
  static constexpr int64_t kNoSlot = -1;
  struct Slot {
    int64_t index = kNoSlot;
    Event free;  ///< what the caller queued while it had the piece; not recorded at first
  };
  struct Round {
    std::shared_ptr<const Array<int64_t>> offsets;  ///< as added
    int64_t begin = 0;                              ///< of the piece, in each rank's slice
    Event written;                                  ///< what is sent is there (2)
    Slot slot;
    Event done;  ///< recorded once the library has put the round on the stream
  };
  /// The elements that rank `owner` gets in the round; empty when it gets none.
  Extent piece_of(const Round& round, int owner) const;
  /// Where in the scratch memory this rank receives `size` elements from rank `from`.
  Vec<float> place(const Slot& slot, int from, int64_t size) const;
  /// Begins the rounds that can begin. Never waits.
  void advance();
  /// Gives the round to the library.
  void begin(Round round);
  /// Lends the oldest piece that has come, if any, to the caller.
  std::optional<DataPlane::Piece> take();
  /// Takes a lent piece back.
  void release();

  Context ctx_;
  Group& group_;
  Stream& stream_;
  DataPlane::AllToAllBuffers buffers_;
  std::deque<Round> expected_;
  std::deque<Round> under_way_;  // only the last may have no `done` yet
  bool lent_ = false;            // the first of them, to the caller
  Array<const float*> parts_;    // of the lent piece
  // The slot that was used last is used again first: the cache still holds it.
  Array<Slot> free_slots_;
};

}  // namespace orrery::comm::nccl
