#include "learners/ordered_reducer.h"

#include <algorithm>
#include <bit>

#include "core/error.h"
#include "core/profile.h"
#include "kernels/elementwise.h"

namespace orrery::learners {
namespace {

/// How much a rank receives at once.
struct Pieces {
  int64_t elements;   ///< summed per call, over all ranks
  int64_t under_way;  ///< pieces that may arrive while the rank computes
};
/// 16 MiB: a piece stays in the second-level cache after it arrives.
constexpr Pieces kPiecesOnCpu{.elements = 1 << 18, .under_way = 16};
/// 256 MiB: each piece costs launches, and a round of the library with every rank.
constexpr Pieces kPiecesOnCuda{.elements = 1 << 24, .under_way = 4};

const Pieces& pieces_on(Device device) {
  return device.type == DeviceType::kCuda ? kPiecesOnCuda : kPiecesOnCpu;
}

constexpr Buffer::Purpose kGradients{
    "gradients", "use more learner ranks, or fewer shards a rank (cluster.gradient_shards)"};

size_t byte_size(int64_t floats) { return static_cast<size_t>(floats) * sizeof(float); }

/// Zero bits below the lowest one-bit of value > 0.
int64_t trailing_zeros(int64_t value) { return std::countr_zero(static_cast<uint64_t>(value)); }

/// Floats in whole cache lines, as arenas align what they give.
int64_t whole_lines(int64_t floats) { return (floats + 15) / 16 * 16; }

bool is_power_of_two(int64_t value) { return value > 0 && value >> trailing_zeros(value) == 1; }

}  // namespace

ShardTree::ShardTree(Device device, std::vector<int64_t> regions, int64_t count)
    : device_(device), regions_(std::move(regions)), count_(count) {
  ORRERY_CHECK(regions_.size() >= 2 && regions_.front() == 0 &&
                   std::is_sorted(regions_.begin(), regions_.end()),
               "{} bounds of regions", regions_.size());
  ORRERY_CHECK(is_power_of_two(count), "{} shards on a rank: not a power of two", count);
}

int64_t ShardTree::stack_size() const {
  return std::max<int64_t>(trailing_zeros(count_), 1) * elements();
}

Vec<float> ShardTree::memory() {
  if (stack_.empty()) {
    memory_ = Buffer(device_, byte_size(stack_size()), kGradients);
    stack_ = memory_.vec<float>();
  }
  return stack_;
}

void ShardTree::release_memory() {
  memory_ = Buffer();
  last_ = Buffer();
  stack_ = lent_last_ = {};
}

Vec<float> ShardTree::use_memory(Vec<float> memory, bool by_region) {
  release_memory();
  const int64_t last = count_ == 1 ? 0 : by_region ? FlatView::window_size(regions_) : elements();
  const int64_t all = whole_lines(stack_size() + last);
  if (all > memory.size) {
    fail(
        "out of memory: the gradients of {} shard(s) of {} parameters need {:.1f} MiB on {} and "
        "{:.1f} are left; use more learner ranks, or fewer shards a rank (cluster.gradient_shards){}",
        count_, elements(), byte_size(all) * 0x1p-20, device_name(device_),
        byte_size(memory.size) * 0x1p-20,
        by_region ? ""
                  : ", or raise actor.ppo_max_token_len_per_gpu until a shard is one batch, which "
                    "needs less");
  }
  stack_ = memory.part(0, stack_size());
  lent_last_ = memory.part(stack_size(), last);
  return memory.part(all, memory.size - all);
}

Vec<float> ShardTree::buffer(int64_t index) const {
  return stack_.part(index * elements(), elements());
}

Vec<float> ShardTree::last_buffer(int64_t size) {
  if (memory_.data() == nullptr) {  // it is lent
    ORRERY_CHECK(size <= lent_last_.size, "{} elements of a shard in memory for {}", size,
                 lent_last_.size);
    return lent_last_.part(0, size);
  }
  const size_t bytes = byte_size(size);
  if (last_.bytes() < bytes) {
    last_ = Buffer();  // before the larger one is taken
    last_ = Buffer(device_, bytes, kGradients);
  }
  return last_.vec<float>().part(0, size);
}

// The buffers are a stack of finished subtrees, which grows and shrinks as a binary
// counter does:
//  1. Between shards, with s of them done, the stack has one buffer for each one-bit of
//     s. The bit's value is the number of shards that are summed there; values fall
//     from the bottom to the top.
//  2. Shard s is the last leaf of as many subtrees as s + 1 has trailing zero bits:
//     merges_.
//  3. A shard that ends no subtree becomes the stack's new top. It is written there,
//     whole, and is added to nothing yet.
//  4. A shard that ends some is never on the stack. As a part of it becomes final it is
//     added to the top's part, that to the part of the buffer below, and so on, merges_
//     additions in all, each left + right, and the sum goes to the lowest of these
//     buffers: nobody needs what lies between. So the shard's own memory is needed
//     until the part is final and no longer, and a window is enough.
//  5. Parts become final from the end: of the shard that is being written, [known_,
//     elements()) has been added. A part that lies in a window never reaches over a
//     bound of regions_; its place is for the region that comes next.
//  6. The last shard ends every subtree, so that a part of buffer(0) is final when that
//     shard's part is added.
void ShardTree::begin(const Context& ctx) {
  ctx_ = ctx;
  memory();
  shard_ = height_ = 0;
  final_from_ = elements();
}

FlatView ShardTree::begin_shard(bool by_region) {
  ORRERY_CHECK(shard_ < count_, "a shard more than {}", count_);
  ++shard_;
  merges_ = trailing_zeros(shard_);
  windowed_ = merges_ > 0 && by_region;
  const Vec<float> memory =
      merges_ == 0 ? buffer(height_)
                   : last_buffer(windowed_ ? FlatView::window_size(regions_) : elements());
  leaf_ = windowed_ ? FlatView(memory, regions_) : FlatView(memory);
  known_ = elements();
  region_ = std::ssize(regions_) - 1;
  return leaf_;
}

void ShardTree::add_to_stack(const Extent& extent) {
  if (merges_ == 0) return;
  Array<const float*> parts(merges_ + 1);
  for (int64_t i = 0; i < merges_; ++i)
    parts[i] = elements_of(buffer(height_ - merges_ + i), extent).data;
  parts[merges_] = leaf_.at(extent.begin);
  const Vec<float> sum = elements_of(buffer(height_ - merges_), extent);
  kernels::nested_sum(ctx_, {.out = sum, .parts = parts});
}

void ShardTree::merge(int64_t begin) {
  ORRERY_CHECK(0 <= begin && begin <= known_, "final from {} after {}", begin, known_);
  while (windowed_ && begin < known_) {
    const int64_t bound = regions_[--region_];
    ORRERY_CHECK(begin <= bound, "final from {}, within a region", begin);
    add_to_stack({bound, known_});
    known_ = bound;
  }
  if (begin < known_) add_to_stack({begin, known_});
  known_ = begin;
  if (shard_ == count_) final_from_ = known_;
}

void ShardTree::end_shard() {
  merge(0);
  height_ += 1 - merges_;
  ORRERY_CHECK(shard_ < count_ || height_ == 1, "{} subtrees are left of {} shards", height_,
               count_);
}

namespace {

/// Elements that a rank sends another at once, at most.
int64_t piece_elements(Device device, int ranks, const SlicePlan& plan) {
  // The largest bucket is the first one.
  const int64_t slice = (plan.buckets.front().back() + ranks - 1) / ranks;
  return std::max<int64_t>(std::min(pieces_on(device).elements / ranks, slice), 1);
}

}  // namespace

void OrderedReduceScatter::measure(int ranks, const SlicePlan& plan, bool fast, Arena& arena) {
  if (ranks == 1 || fast) return;
  arena.vec<float>(pieces_on(arena.device()).under_way * ranks *
                   piece_elements(arena.device(), ranks, plan));
}

OrderedReduceScatter::OrderedReduceScatter(const Context& ctx, comm::Communicator& comm,
                                           Vec<float> gradient, const SlicePlan& plan, bool fast,
                                           Arena& arena)
    : ctx_(ctx),
      comm_(comm),
      gradient_(gradient),
      plan_(plan),
      fast_(fast),
      waiting_buckets_(std::ssize(plan.buckets)) {
  const int ranks = comm.size();
  ORRERY_CHECK(plan.ranks() == ranks && plan.elements() == gradient.size,
               "slices of {} elements for {} ranks, there are {} and {}", plan.elements(),
               plan.ranks(), gradient.size, ranks);
  if (ranks == 1 || fast) return;
  ORRERY_CHECK(is_power_of_two(ranks) && ranks <= int64_t{1} << kernels::kMaxTreeLevels,
               "an ordered sum over {} ranks: not a power of two", ranks);
  const int64_t piece = piece_elements(ctx.device, ranks, plan);
  const Vec<float> scratch = arena.vec<float>(pieces_on(ctx.device).under_way * ranks * piece);
  exchange_ =
      comm.data(ctx.device).all_to_all(ctx, {.send = gradient, .piece = piece, .scratch = scratch});
}

void OrderedReduceScatter::send(int64_t begin) {
  if (!exchange_) return;
  const ProfilePhaseScope phase(ctx_, "reduce");
  for (; waiting_buckets_ > 0; --waiting_buckets_) {
    const auto& last = plan_.buckets[waiting_buckets_ - 1];
    if (last.front() < begin) break;
    exchange_->add(last);
  }
  while (const auto piece = exchange_->poll()) sum(*piece);
}

// A rank is never sent its own slice, so the sum may go there while the others' slices
// are still being sent.
void OrderedReduceScatter::sum(const comm::DataPlane::Piece& piece) {
  kernels::tree_sum(ctx_, {.out = elements_of(gradient_, piece.extent), .parts = piece.parts});
}

void OrderedReduceScatter::finish() {
  if (fast_) comm_.data(ctx_.device).all_reduce_sum(ctx_, gradient_);
  if (!exchange_) return;
  ORRERY_CHECK(waiting_buckets_ == 0, "the first {} buckets of the gradient are not final",
               waiting_buckets_);
  while (const auto piece = exchange_->wait()) sum(*piece);
}

}  // namespace orrery::learners
