#include "comm/mpi_all_to_all.h"

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

MpiAllToAll::MpiAllToAll(const Context& ctx, const RankGroup& group,
                         const DataPlane::AllToAllBuffers& buffers)
    : group_(group),
      buffers_(buffers),
      send_(ctx, buffers.send, HostUser::kLibrary),
      scratch_(ctx, buffers.scratch, HostUser::kLibrary),
      sends_(group.comm, group.rank),
      parts_(group.size) {
  ORRERY_CHECK(buffers.piece > 0 && 2 * group.size * buffers.piece <= buffers.scratch.size,
               "all_to_all: {} elements of scratch for pieces of {}", buffers.scratch.size,
               buffers.piece);
  const int64_t slots = buffers.scratch.size / (group.size * buffers.piece);
  for (int64_t slot = slots - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

void MpiAllToAll::add(Span<const int64_t> offsets) {
  check_offsets(offsets, group_.size, buffers_.send.size);
  record_event("{} of {} ranks: elements {} to {}", kOperation, group_.size, offsets.front(),
               offsets.back());
  const auto cut = [&](int owner, auto&& body) {
    const Extent all{offsets[owner], offsets[owner + 1]};
    for (int64_t at = all.begin; at < all.end; at += buffers_.piece)
      body(Extent{at, std::min(at + buffers_.piece, all.end)});
  };
  cut(group_.rank, [&](const Extent& piece) { expected_.push_back(piece); });
  post_all();
  for (int step = 1; step < group_.size; ++step) {  // 1, 3
    const int to = (group_.rank + step) % group_.size;
    cut(to,
        [&](const Extent& piece) { sends_.send(to, as_bytes(send_.fetch(piece)), kOperation); });
  }
}

void MpiAllToAll::post(int64_t most) {
  while (!expected_.empty() && !free_slots_.empty() && std::ssize(posted_) < most) {  // 1, 2
    posted_.push_back({expected_.front(), free_slots_.back(), Transfers(group_.comm, group_.rank)});
    expected_.pop_front();
    free_slots_.pop_back();
    Round& round = posted_.back();
    for (int step = 1; step < group_.size; ++step) {
      const int from = (group_.rank - step + group_.size) % group_.size;
      const Extent into = place(round.slot, from, round.extent.size());
      round.receives.receive(from, as_writable_bytes(scratch_.values(into)), kOperation);
    }
  }
}

void MpiAllToAll::release() {
  if (!lent_) return;
  lent_ = false;
  free_slots_.push_back(posted_.front().slot);  // 2
  posted_.pop_front();
}

std::optional<DataPlane::Piece> MpiAllToAll::take() {
  Round& round = posted_.front();
  if (!round.receives.test(kOperation)) return std::nullopt;
  lent_ = true;
  for (int p = 0; p < group_.size; ++p) {
    if (p == group_.rank) {
      parts_[p] = buffers_.send.data + round.extent.begin;
      continue;
    }
    const Extent at = place(round.slot, p, round.extent.size());
    scratch_.commit(at);
    parts_[p] = buffers_.scratch.data + at.begin;
  }
  return DataPlane::Piece{round.extent, parts_};
}

std::optional<DataPlane::Piece> MpiAllToAll::poll() {
  release();
  post_all();
  if (posted_.empty()) return std::nullopt;
  return take();
}

std::optional<DataPlane::Piece> MpiAllToAll::wait() {
  const WaitState::Scope scope(*group_.waiting, kOperation);
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
