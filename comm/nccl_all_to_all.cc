#include "comm/nccl_all_to_all.h"

#include <algorithm>
#include <utility>

#include "comm/checks.h"
#include "core/error.h"
#include "core/flight_recorder.h"

namespace orrery::comm::nccl {
namespace {

constexpr const char* kAllToAll = "all_to_all";

template <class T>
auto bytes_of(Vec<T> values) {
  using Byte = std::conditional_t<std::is_const_v<T>, const std::byte, std::byte>;
  return Vec<Byte>(reinterpret_cast<Byte*>(values.data), values.size * int64_t{sizeof(T)});
}

}  // namespace

NcclAllToAll::NcclAllToAll(const Context& ctx, Group& group, Stream& stream,
                           const DataPlane::AllToAllBuffers& buffers)
    : ctx_(ctx), group_(group), stream_(stream), buffers_(buffers), parts_(group.size()) {
  ORRERY_CHECK(buffers.piece > 0 && 2 * group.size() * buffers.piece <= buffers.scratch.size,
               "all_to_all: {} elements of scratch for pieces of {}", buffers.scratch.size,
               buffers.piece);
  const int64_t slots = buffers.scratch.size / (group.size() * buffers.piece);
  for (int64_t slot = slots - 1; slot >= 0; --slot) free_slots_.push_back({slot, Event()});
}

NcclAllToAll::~NcclAllToAll() {
  if (!expected_.empty() || std::ssize(under_way_) > (lent_ ? 1 : 0)) group_.abort();
}

Extent NcclAllToAll::piece_of(const Round& round, int owner) const {
  const Array<int64_t>& offsets = *round.offsets;
  const int64_t begin = offsets[owner] + round.begin, end = offsets[owner + 1];
  if (begin >= end) return {end, end};
  return {begin, std::min(begin + buffers_.piece, end)};
}

Vec<float> NcclAllToAll::place(const Slot& slot, int from, int64_t size) const {
  return buffers_.scratch.part((slot.index * group_.size() + from) * buffers_.piece, size);
}

void NcclAllToAll::add(Span<const int64_t> offsets) {
  check_offsets(offsets, group_.size(), buffers_.send.size);
  record_event("{} of {} ranks over NCCL: elements {} to {}", kAllToAll, group_.size(),
               offsets.front(), offsets.back());
  const auto kept = std::make_shared<Array<int64_t>>(offsets.size());
  std::ranges::copy(offsets, kept->begin());
  int64_t longest = 0;
  for (int p = 0; p < group_.size(); ++p) longest = std::max(longest, offsets[p + 1] - offsets[p]);
  const Event written = ctx_.stream().record();
  for (int64_t begin = 0; begin < longest; begin += buffers_.piece)
    expected_.push_back({kept, begin, written, Slot(), Event()});
  advance();
}

void NcclAllToAll::advance() {
  const auto note_queued = [&] {
    if (under_way_.empty() || under_way_.back().done.is_recorded()) return true;
    if (!group_.is_queued()) return false;
    under_way_.back().done = stream_.record();
    return true;
  };
  while (note_queued() && !expected_.empty()) {  // 1
    Round& round = expected_.front();
    if (piece_of(round, group_.rank()).size() > 0) {
      if (free_slots_.empty()) return;  // 5
      round.slot = free_slots_.back();
      free_slots_.pop_back();
    }
    begin(std::move(round));
    expected_.pop_front();
  }
}

void NcclAllToAll::begin(Round round) {
  stream_.wait(round.written);                                       // 2
  if (round.slot.free.is_recorded()) stream_.wait(round.slot.free);  // 3
  group_.begin(kAllToAll, stream_);
  const Extent mine = piece_of(round, group_.rank());
  for (int step = 1; step < group_.size(); ++step) {  // 4
    const int to = (group_.rank() + step) % group_.size();
    const int from = (group_.rank() - step + group_.size()) % group_.size();
    const Extent theirs = piece_of(round, to);
    if (theirs.size() > 0) group_.send(to, bytes_of(elements_of(buffers_.send, theirs)));
    if (mine.size() > 0) group_.receive(from, bytes_of(place(round.slot, from, mine.size())));
  }
  group_.end();
  under_way_.push_back(std::move(round));
}

void NcclAllToAll::release() {
  if (!lent_) return;
  lent_ = false;
  Slot slot = under_way_.front().slot;
  slot.free = ctx_.stream().record();  // 3
  free_slots_.push_back(slot);
  under_way_.pop_front();
}

std::optional<DataPlane::Piece> NcclAllToAll::take() {
  while (!under_way_.empty()) {
    const Round& round = under_way_.front();
    // The host has seen the event, so that what it queues from now on finds the data.
    if (!round.done.is_recorded() || !stream_.is_done(round.done)) return std::nullopt;
    const Extent mine = piece_of(round, group_.rank());
    if (mine.size() == 0) {
      under_way_.pop_front();
      continue;
    }
    lent_ = true;
    for (int p = 0; p < group_.size(); ++p) {
      parts_[p] = p == group_.rank() ? buffers_.send.data + mine.begin
                                     : place(round.slot, p, mine.size()).data;
    }
    return DataPlane::Piece{mine, parts_};
  }
  return std::nullopt;
}

std::optional<DataPlane::Piece> NcclAllToAll::poll() {
  release();
  advance();
  return take();
}

std::optional<DataPlane::Piece> NcclAllToAll::wait() {
  release();
  std::optional<DataPlane::Piece> piece;
  group_.await(kAllToAll, [&] {
    advance();
    piece = take();
    return piece || (expected_.empty() && under_way_.empty());
  });
  return piece;
}

}  // namespace orrery::comm::nccl
