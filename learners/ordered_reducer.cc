#include "learners/ordered_reducer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "core/error.h"
#include "core/parallel.h"
#include "core/profile.h"

namespace orrery::learners {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements worth a thread: 128 KiB
constexpr int64_t kBlock = 512;
constexpr int64_t kMaxLevels = 16;  // at most 65,536 ranks
/// What is summed at once, of all ranks: stays in the second-level cache from its
/// arrival on.
constexpr int64_t kPieceElements = 1 << 18;
/// Pieces that may arrive while this rank computes: 16 MiB.
constexpr int64_t kPiecesUnderWay = 16;

/// out = left + right, one rounded add an element; out may be left or right. A loop of
/// constant length is one that compilers vectorise without being asked to favour speed.
void add_block(float* out, const float* left, const float* right, int64_t count) {
  if (count == kBlock) {
#ifndef __clang__  // which does not know it, and is here for sanitizers, not for speed
#pragma GCC ivdep
#endif
    for (int64_t i = 0; i < kBlock; ++i) out[i] = left[i] + right[i];
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = left[i] + right[i];
  }
}

/// left += right
void add(const Context& ctx, std::span<float> left, const float* right) {
  const ProfileScope profile(ctx, "add shards", 0, f32_bytes(3 * left.size()));
  parallel_for(ctx, static_cast<int64_t>(left.size()), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; at += kBlock) {
      float* l = left.data() + at;
      add_block(l, l, right + at, std::min(kBlock, end - at));
    }
  });
}

void zero(const Context& ctx, std::span<float> data) {
  const ProfileScope profile(ctx, "zero gradient", 0, f32_bytes(data.size()));
  parallel_for(ctx, static_cast<int64_t>(data.size()), kGrain, [&](int64_t begin, int64_t end) {
    std::memset(data.data() + begin, 0, static_cast<size_t>(end - begin) * sizeof(float));
  });
}

/// out = the sum of a power of two of parts, at least two, in tree order, in one pass
/// over memory: a block of every part at a time. scratch: two blocks for each level of
/// the tree. out may be one of the parts.
void tree_sum_block(std::span<const float* const> parts, int64_t begin, int64_t count, float* out,
                    float* scratch) {
  const size_t half = parts.size() / 2;
  if (half == 1) {
    add_block(out, parts[0] + begin, parts[1] + begin, count);
    return;
  }
  tree_sum_block(parts.first(half), begin, count, scratch, scratch + 2 * kBlock);
  tree_sum_block(parts.subspan(half), begin, count, scratch + kBlock, scratch + 2 * kBlock);
  add_block(out, scratch, scratch + kBlock, count);
}

void tree_sum(const Context& ctx, std::span<const float* const> parts, std::span<float> out) {
  parallel_for(ctx, static_cast<int64_t>(out.size()), kGrain, [&](int64_t begin, int64_t end) {
    std::array<float, 2 * kBlock * kMaxLevels> scratch;
    for (int64_t at = begin; at < end; at += kBlock)
      tree_sum_block(parts, at, std::min(kBlock, end - at), out.data() + at, scratch.data());
  });
}

bool is_power_of_two(int64_t value) {
  return value > 0 && std::has_single_bit(static_cast<uint64_t>(value));
}

}  // namespace

ShardTree::ShardTree(Device device, std::vector<int64_t> regions, int64_t count)
    : device_(device), regions_(std::move(regions)), count_(count) {
  ORRERY_CHECK(regions_.size() >= 2 && regions_.front() == 0 &&
                   std::is_sorted(regions_.begin(), regions_.end()),
               "{} bounds of regions", regions_.size());
  ORRERY_CHECK(is_power_of_two(count), "{} shards on a rank: not a power of two", count);
  ORRERY_CHECK(device.type == DeviceType::kCpu, "the ordered sum runs on the CPU only");
  const auto live = static_cast<size_t>(std::countr_zero(static_cast<uint64_t>(count))) + 1;
  memory_ = Buffer(device,
                   std::max<size_t>(live - 1, 1) * static_cast<size_t>(elements()) * sizeof(float));
}

std::span<float> ShardTree::buffer(size_t index) const {
  const auto begin = static_cast<int64_t>(index) * elements();
  return part_of(memory_.span<float>(), {begin, begin + elements()});
}

std::span<float> ShardTree::last_buffer(int64_t size) {
  const size_t bytes = static_cast<size_t>(size) * sizeof(float);
  if (last_.bytes() < bytes) {
    last_ = Buffer();  // before the larger one is taken
    last_ = Buffer(device_, bytes);
  }
  return part_of(last_.span<float>(), {0, size});
}

// The buffers are a stack of finished subtrees, sizes falling; a new leaf goes on top.
// As with a binary counter, shard s ends as many subtrees as s + 1 has trailing zero
// bits. A leaf that ends none stays, and is whole; one that does is added to what lies
// under it as it becomes final, and needs no more than a window.
void ShardTree::sum(const Context& ctx, int64_t first, const Fill& fill, const ByRegion& by_region,
                    const FinalFrom& final_from) {
  size_t height = 0;  // of the stack, without the leaf
  for (int64_t s = 0; s < count_; ++s) {
    const auto merges = static_cast<size_t>(std::countr_zero(static_cast<uint64_t>(s) + 1));
    const bool stays = merges == 0;
    const bool windowed = !stays && by_region(first + s);
    const std::span<float> leaf =
        stays ? buffer(height)
              : last_buffer(windowed ? FlatView::window_size(regions_) : elements());
    const FlatView view = windowed ? FlatView(leaf, regions_) : FlatView(leaf);
    zero(ctx, leaf);
    // [begin, end), of one region if the leaf is in a window
    const auto merge_extent = [&](const Extent& extent) {
      if (stays) return;
      add(ctx, part_of(buffer(height - 1), extent), view.at(extent.begin));
      for (size_t right = height - 1; right > height - merges; --right)
        add(ctx, part_of(buffer(right - 1), extent), part_of(buffer(right), extent).data());
    };
    int64_t known = elements();
    auto region = regions_.end() - 1;  // the first bound that is not below what is known
    const FinalFrom merge = [&](int64_t begin) {
      ORRERY_CHECK(0 <= begin && begin <= known, "final from {} after {}", begin, known);
      for (; windowed && begin < known; known = *region) {
        --region;
        ORRERY_CHECK(begin <= *region, "final from {}, within a region", begin);
        merge_extent({*region, known});
        if (region != regions_.begin())
          zero(ctx, {view.at(*region), static_cast<size_t>(known - *region)});
      }
      if (begin < known) merge_extent({begin, known});
      known = begin;
      if (s + 1 == count_ && final_from) final_from(begin);
    };
    fill(first + s, view, merge);
    merge(0);
    height = height + 1 - merges;
  }
  ORRERY_CHECK(height == 1, "{} subtrees are left of {} shards", height, count_);
}

OrderedReduceScatter::OrderedReduceScatter(const Context& ctx, comm::Communicator& comm,
                                           std::span<float> gradient, const SlicePlan& plan,
                                           bool fast, Arena& arena)
    : ctx_(ctx),
      comm_(comm),
      gradient_(gradient),
      plan_(plan),
      fast_(fast),
      waiting_buckets_(std::ssize(plan.buckets)) {
  const int ranks = comm.size();
  ORRERY_CHECK(plan.ranks() == ranks && static_cast<size_t>(plan.elements()) == gradient.size(),
               "slices of {} elements for {} ranks, there are {} and {}", plan.elements(),
               plan.ranks(), gradient.size(), ranks);
  if (ranks == 1 || fast) return;
  ORRERY_CHECK(is_power_of_two(ranks) && ranks <= 1 << kMaxLevels,
               "an ordered sum over {} ranks: not a power of two", ranks);
  // The largest bucket is the first one.
  const int64_t slice = (plan.buckets.front().back() + ranks - 1) / ranks;
  const int64_t piece = std::max<int64_t>(std::min(kPieceElements / ranks, slice), 1);
  exchange_ =
      comm.all_to_all({gradient, piece, arena.span<float>(kPiecesUnderWay * ranks * piece)});
}

void OrderedReduceScatter::send(int64_t begin) {
  if (!exchange_) return;
  const PhaseScope phase(ctx_, "reduce");
  for (; waiting_buckets_ > 0; --waiting_buckets_) {
    const auto& last = plan_.buckets[waiting_buckets_ - 1];
    if (last.front() < begin) break;
    exchange_->add(last);
  }
  while (const auto piece = exchange_->poll()) sum(*piece);
}

// A rank is never sent its own slice, so the sum may go there while the others' slices
// are still being sent.
void OrderedReduceScatter::sum(const comm::Communicator::Piece& piece) {
  tree_sum(ctx_, piece.parts, part_of(gradient_, piece.extent));
}

void OrderedReduceScatter::finish() {
  if (fast_) comm_.all_reduce_sum(gradient_);
  if (!exchange_) return;
  ORRERY_CHECK(waiting_buckets_ == 0, "the first {} buckets of the gradient are not final",
               waiting_buckets_);
  while (const auto piece = exchange_->wait()) sum(*piece);
}

}  // namespace orrery::learners
