#include "comm/ordered_reducer.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/error.h"
#include "core/parallel.h"

namespace orrery {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements worth a thread: 128 KiB

/// left += right: one rounded add an element.
void add(const Context& ctx, std::span<float> left, std::span<const float> right) {
  float* __restrict l = left.data();
  const float* __restrict r = right.data();
  parallel_for(ctx, static_cast<int64_t>(left.size()), kGrain, [l, r](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) l[i] += r[i];
  });
}

void zero(const Context& ctx, std::span<float> data) {
  parallel_for(ctx, static_cast<int64_t>(data.size()), kGrain, [&](int64_t begin, int64_t end) {
    std::memset(data.data() + begin, 0, static_cast<size_t>(end - begin) * sizeof(float));
  });
}

void copy(const Context& ctx, std::span<const float> from, std::span<float> to) {
  if (from.data() == to.data()) return;
  parallel_for(ctx, static_cast<int64_t>(to.size()), kGrain, [&](int64_t begin, int64_t end) {
    std::memcpy(to.data() + begin, from.data() + begin, static_cast<size_t>(end - begin) * sizeof(float));
  });
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

void reduce_scatter_ordered(const Context& ctx, Communicator& comm, std::span<float> gradient,
                            std::span<const int64_t> slice_offsets, std::span<float> mine, bool fast,
                            Arena& arena) {
  const int ranks = comm.size();
  const auto rank = static_cast<size_t>(comm.rank());
  ORRERY_CHECK(slice_offsets.size() == static_cast<size_t>(ranks) + 1, "{} slice offsets for {} ranks",
               slice_offsets.size(), ranks);
  ORRERY_CHECK(slice_offsets.front() == 0 && static_cast<size_t>(slice_offsets.back()) == gradient.size(),
               "slices cover [{}, {}) of {} elements", slice_offsets.front(), slice_offsets.back(),
               gradient.size());
  const int64_t begin = slice_offsets[rank], length = slice_offsets[rank + 1] - begin;
  ORRERY_CHECK(mine.size() == static_cast<size_t>(length), "slice of {} elements into {}", length,
               mine.size());
  const std::span<float> own = gradient.subspan(static_cast<size_t>(begin), mine.size());
  if (ranks == 1 || fast) {
    if (ranks > 1) comm.all_reduce_sum(gradient);
    copy(ctx, own, mine);
    return;
  }
  ORRERY_CHECK(is_power_of_two(ranks), "an ordered sum over {} ranks: not a power of two", ranks);

  const ArenaScope scope(arena);
  const std::span<float> parts =
      arena.span<float>(length * ranks);  // [ranks, length]: this slice of every rank
  std::vector<int64_t> part_offsets(slice_offsets.size());
  for (size_t r = 0; r < part_offsets.size(); ++r) part_offsets[r] = static_cast<int64_t>(r) * length;
  comm.all_to_all(gradient, slice_offsets, parts, part_offsets);
  const auto part = [&](int r) { return parts.subspan(static_cast<size_t>(r) * mine.size(), mine.size()); };
  for (int stride = 1; stride < ranks; stride *= 2) {
    for (int left = 0; left + stride < ranks; left += 2 * stride) add(ctx, part(left), part(left + stride));
  }
  copy(ctx, part(0), mine);
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
