#include "comm/ordered_reducer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "core/error.h"
#include "core/parallel.h"

namespace orrery {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements worth a thread: 128 KiB
constexpr int64_t kBlock = 512;
constexpr int64_t kMaxLevels = 16;  // at most 65,536 ranks
/// What arrives at once from all ranks: stays in the second-level cache until it is summed.
constexpr int64_t kPieceElements = 1 << 18;

/// out = left + right, one rounded add an element; out may be left or right. A loop of constant length is one
/// that compilers vectorise without being asked to favour speed.
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
void add(const Context& ctx, std::span<float> left, std::span<const float> right) {
  float* l = left.data();
  const float* r = right.data();
  parallel_for(ctx, static_cast<int64_t>(left.size()), kGrain, [l, r](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; at += kBlock)
      add_block(l + at, l + at, r + at, std::min(kBlock, end - at));
  });
}

void zero(const Context& ctx, std::span<float> data) {
  parallel_for(ctx, static_cast<int64_t>(data.size()), kGrain, [&](int64_t begin, int64_t end) {
    std::memset(data.data() + begin, 0, static_cast<size_t>(end - begin) * sizeof(float));
  });
}

/// out = the sum of a power of two of parts, at least two, in tree order, in one pass over memory: a block of
/// every part at a time. scratch: two blocks for each level of the tree. out may be one of the parts.
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

int64_t longest_slice(std::span<const int64_t> offsets) {
  int64_t longest = 0;
  for (size_t r = 0; r + 1 < offsets.size(); ++r) longest = std::max(longest, offsets[r + 1] - offsets[r]);
  return longest;
}

bool is_power_of_two(int64_t value) { return value > 0 && std::has_single_bit(static_cast<uint64_t>(value)); }

}  // namespace

ShardTree::ShardTree(Device device, int64_t elements, int64_t count) : elements_(elements), count_(count) {
  ORRERY_CHECK(elements >= 0, "a gradient of {} elements", elements);
  ORRERY_CHECK(is_power_of_two(count), "{} shards on a rank: not a power of two", count);
  ORRERY_CHECK(device.type == DeviceType::kCpu, "the ordered sum runs on the CPU only");
  const int live = std::bit_width(static_cast<uint64_t>(count));  // log2(count) + 1
  for (int i = 0; i < live; ++i) buffers_.emplace_back(device, static_cast<size_t>(elements) * sizeof(float));
}

// The buffers are a stack of finished subtrees, sizes falling; a new leaf goes on top. As with a binary
// counter, shard s ends as many subtrees as s + 1 has trailing zero bits.
std::span<float> ShardTree::sum(const Context& ctx, int64_t first,
                                const std::function<void(int64_t shard, std::span<float> buffer)>& fill) {
  size_t height = 0;
  for (int64_t s = 0; s < count_; ++s) {
    const std::span<float> leaf = buffers_[height++].span<float>();
    zero(ctx, leaf);
    fill(first + s, leaf);
    for (int merges = std::countr_zero(static_cast<uint64_t>(s) + 1); merges > 0; --merges, --height) {
      add(ctx, buffers_[height - 2].span<float>(), buffers_[height - 1].span<float>());
    }
  }
  ORRERY_CHECK(height == 1, "{} subtrees are left of {} shards", height, count_);
  return buffers_[0].span<float>();
}

size_t ShardTree::memory_bytes() const {
  return buffers_.size() * static_cast<size_t>(elements_) * sizeof(float);
}

std::span<float> reduce_scatter_ordered(const Context& ctx, Communicator& comm, std::span<float> gradient,
                                        std::span<const int64_t> slice_offsets, bool fast, Arena& arena) {
  const int ranks = comm.size();
  const auto rank = static_cast<size_t>(comm.rank());
  ORRERY_CHECK(slice_offsets.size() == static_cast<size_t>(ranks) + 1, "{} slice offsets for {} ranks",
               slice_offsets.size(), ranks);
  ORRERY_CHECK(slice_offsets.front() == 0 && static_cast<size_t>(slice_offsets.back()) == gradient.size(),
               "slices cover [{}, {}) of {} elements", slice_offsets.front(), slice_offsets.back(),
               gradient.size());
  const int64_t begin = slice_offsets[rank];
  const std::span<float> own =
      gradient.subspan(static_cast<size_t>(begin), static_cast<size_t>(slice_offsets[rank + 1] - begin));
  if (ranks == 1) return own;
  if (fast) {
    comm.all_reduce_sum(gradient);
    return own;
  }
  ORRERY_CHECK(is_power_of_two(ranks) && ranks <= 1 << kMaxLevels,
               "an ordered sum over {} ranks: not a power of two", ranks);

  // A rank never sends its own slice, so the sum may go there while the others are still being sent.
  const ArenaScope scope(arena);
  const int64_t piece = std::max<int64_t>(std::min(kPieceElements / ranks, longest_slice(slice_offsets)), 1);
  comm.all_to_all_pieces(gradient, slice_offsets, piece, arena.span<float>(2 * ranks * piece),
                         [&](int64_t at, int64_t count, std::span<const float* const> parts) {
                           tree_sum(ctx, parts,
                                    own.subspan(static_cast<size_t>(at), static_cast<size_t>(count)));
                         });
  return own;
}

std::vector<int64_t> slice_offsets(int64_t elements, int64_t chunk, int ranks) {
  ORRERY_CHECK(elements >= 0 && chunk > 0 && ranks > 0, "{} elements in chunks of {} over {} ranks", elements,
               chunk, ranks);
  const int64_t chunks = (elements + chunk - 1) / chunk;
  std::vector<int64_t> offsets(static_cast<size_t>(ranks) + 1);
  for (int r = 0; r <= ranks; ++r) {
    // Without chunks * r: no overflow whatever the sizes.
    const int64_t whole = chunks / ranks * r + chunks % ranks * r / ranks;
    offsets[static_cast<size_t>(r)] = std::min(whole * chunk, elements);
  }
  return offsets;
}

}  // namespace orrery
