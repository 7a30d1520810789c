#include "comm/mpi_all_to_all.h"

#include <utility>

#include "comm/checks.h"
#include "core/error.h"
#include "core/flight_recorder.h"

namespace orrery::comm::mpi {
namespace {

constexpr const char* kOperation = "all_to_all";

/// Pieces that are posted while this rank only waits: one is summed while the next one
/// arrives, and both stay in the cache.
constexpr int64_t kPiecesWhenWaiting = 2;

}  // namespace

MpiAllToAll::MpiAllToAll(MPI_Comm comm, int rank, int size, std::shared_ptr<WaitState> waiting,
                         const Communicator::AllToAllBuffers& buffers, Communicator::PieceSink sink)
    : comm_(comm),
      rank_(rank),
      size_(size),
      waiting_(std::move(waiting)),
      buffers_(buffers),
      sink_(std::move(sink)),
      sends_(comm, rank) {
  ORRERY_CHECK(buffers.piece > 0 && 2 * size * buffers.piece <= buffers.scratch.size(),
               "all_to_all: {} elements of scratch for pieces of {}", buffers.scratch.size(),
               buffers.piece);
  const int64_t slots = buffers.scratch.size() / (size * buffers.piece);
  for (int64_t slot = slots - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

void MpiAllToAll::add(std::span<const int64_t> offsets) {
  check_offsets(offsets, size_, buffers_.send.size());
  record_event("{} of {} ranks: elements {} to {}", kOperation, size_, offsets.front(),
               offsets.back());
  const auto cut = [&](int owner, auto&& body) {
    const Extent all{offsets[owner], offsets[owner + 1]};
    for (int64_t at = all.begin; at < all.end; at += buffers_.piece)
      body(Extent{at, std::min(at + buffers_.piece, all.end)});
  };
  cut(rank_, [&](const Extent& piece) { expected_.push_back(piece); });
  post_all();
  for (int step = 1; step < size_; ++step) {  // 1, 3
    const int to = (rank_ + step) % size_;
    cut(to, [&](const Extent& piece) {
      sends_.send(to, as_bytes(part_of(buffers_.send, piece)), kOperation);
    });
  }
}

void MpiAllToAll::post(int64_t most) {
  while (!expected_.empty() && !free_slots_.empty() && std::ssize(posted_) < most) {  // 1, 2
    posted_.push_back({expected_.front(), free_slots_.back(), Transfers(comm_, rank_)});
    expected_.pop_front();
    free_slots_.pop_back();
    Round& round = posted_.back();
    for (int step = 1; step < size_; ++step) {
      const int from = (rank_ - step + size_) % size_;
      const Span<float> into(place(round.slot, from), round.extent.size());
      round.receives.receive(from, as_writable_bytes(into), kOperation);
    }
  }
}

bool MpiAllToAll::take() {
  Round& round = posted_.front();
  if (!round.receives.test(kOperation)) return false;
  Array<const float*> parts(size_);
  for (int p = 0; p < size_; ++p)
    parts[p] = p == rank_ ? buffers_.send.data() + round.extent.begin : place(round.slot, p);
  sink_(round.extent.begin, round.extent.size(), parts);
  free_slots_.push_back(round.slot);  // 2
  posted_.pop_front();
  return true;
}

void MpiAllToAll::advance() {
  while (!posted_.empty() && take()) post_all();
}

void MpiAllToAll::finish() {
  const WaitState::Scope scope(*waiting_, kOperation);
  post(kPiecesWhenWaiting);
  while (!posted_.empty()) {
    for (Backoff backoff; !take(); backoff.pause()) {
    }
    post(kPiecesWhenWaiting);
  }
  // The other ranks have sent everything, so they are about to take what is left (4).
  sends_.finish(kOperation);
}

}  // namespace orrery::comm::mpi
