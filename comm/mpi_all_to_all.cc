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
                         const Communicator::AllToAllBuffers& buffers)
    : comm_(comm),
      rank_(rank),
      size_(size),
      waiting_(std::move(waiting)),
      buffers_(buffers),
      sends_(comm, rank),
      parts_(size) {
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
      sends_.send(to, as_bytes(elements_of(buffers_.send, piece)), kOperation);
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

void MpiAllToAll::release() {
  if (!lent_) return;
  lent_ = false;
  free_slots_.push_back(posted_.front().slot);  // 2
  posted_.pop_front();
}

std::optional<Communicator::Piece> MpiAllToAll::take() {
  Round& round = posted_.front();
  if (!round.receives.test(kOperation)) return std::nullopt;
  lent_ = true;
  for (int p = 0; p < size_; ++p)
    parts_[p] = p == rank_ ? buffers_.send.data() + round.extent.begin : place(round.slot, p);
  return Communicator::Piece{round.extent, parts_};
}

std::optional<Communicator::Piece> MpiAllToAll::poll() {
  release();
  post_all();
  if (posted_.empty()) return std::nullopt;
  return take();
}

std::optional<Communicator::Piece> MpiAllToAll::wait() {
  const WaitState::Scope scope(*waiting_, kOperation);
  release();
  post(kPiecesWhenWaiting);
  if (posted_.empty()) {
    // The other ranks have sent everything, so they are about to take what is left (4).
    sends_.finish(kOperation);
    return std::nullopt;
  }
  for (Backoff backoff;; backoff.pause()) {
    if (auto piece = take()) return piece;
  }
}

}  // namespace orrery::comm::mpi
