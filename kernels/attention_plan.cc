#include "kernels/attention_plan.h"

#include <algorithm>

#include "core/error.h"
#include "core/transfer.h"
#include "kernels/cpu/attention.h"
#include "kernels/dispatch.h"
#include "kernels/kv_pool.h"

namespace orrery::kernels {
namespace {

void check_shape(const char* op, const AttentionShape& shape) {
  if (shape.heads < 1 || shape.kv_heads < 1 || shape.heads % shape.kv_heads != 0) {
    fail("{}: {} query heads cannot share {} kv heads evenly", op, shape.heads, shape.kv_heads);
  }
  if (shape.head_dim < 1 || shape.head_dim > cpu::kMaxHeadDim)
    fail("{}: head_dim {}: need 1 to {}", op, shape.head_dim, cpu::kMaxHeadDim);
}

void check_device(const Context& ctx, const char* op) {
  if (ctx.device.type == DeviceType::kCuda && !kCudaBuilt) fail_no_kernels(op, ctx.device);
}

/// The CPU's kernels serve the debug device as well.
bool runs_on_cpu(const Context& ctx) { return ctx.device.type != DeviceType::kCuda; }

/// A segment's rows must lie in the batch.
template <class Segment>
void check_rows(const char* op, int64_t index, const Segment& s, int64_t rows) {
  if (s.rows < 0 || s.row_begin < 0 || s.rows > rows || s.row_begin > rows - s.rows) {
    fail("{}: segment {}: {} rows from {} on are not inside the batch of {}", op, index, s.rows,
         s.row_begin, rows);
  }
}

/// Two segments that share a row would write it from two threads.
template <class Segment>
void check_disjoint(const char* op, Span<const Segment> segments) {
  int64_t end = 0;
  for (int64_t i = 0; i < segments.size(); ++i) {
    const int64_t first = segments[i].row_begin;
    const int64_t last = first + segments[i].rows;
    for (int64_t j = 0; first < end && j < i; ++j) {
      if (segments[j].row_begin < last && first < segments[j].row_begin + segments[j].rows) {
        fail("{}: segments {} and {} share rows", op, j, i);
      }
    }
    end = std::max(end, last);
  }
}

/// The number of blocks of its table that the segment's rows read. Its positions must
/// lie in the table, and these blocks in the pool.
int64_t blocks_read(const char* op, int64_t index, const KvSegment& s, int64_t pool_blocks) {
  const int64_t table = s.blocks.size() * kKvBlock;
  if (s.position < 0 || s.position > table || s.rows > table - s.position) {
    fail("{}: segment {}: {} positions from {} on do not fit its block table of {} blocks of {}",
         op, index, s.rows, s.position, s.blocks.size(), kKvBlock);
  }
  const int64_t count = (s.position + s.rows - 1) / kKvBlock + 1;
  for (int64_t b = 0; b < count; ++b) {
    if (s.blocks[b] < 0 || s.blocks[b] >= pool_blocks) {
      fail("{}: segment {}: block table entry {} is {}, outside the pool of {} blocks", op, index,
           b, s.blocks[b], pool_blocks);
    }
  }
  return count;
}

/// Pairs of a row and a key that it sees.
double pairs_of(int64_t rows, int64_t position) { return rows * (position + (rows + 1) / 2.0); }

}  // namespace

AttentionPlan make_attention_plan(const Context& ctx, const AttentionShape& shape, int64_t rows,
                                  int64_t pool_blocks, Span<const KvSegment> segments,
                                  Arena& arena) {
  constexpr const char* kOp = "attention plan";
  check_device(ctx, kOp);
  check_shape(kOp, shape);
  AttentionPlan plan;
  plan.shape = shape;
  plan.rows = rows;
  plan.pool_blocks = pool_blocks;
  Array<PlannedSegment> planned;
  Array<int32_t> tables;
  planned.reserve(segments.size());
  for (int64_t i = 0; i < segments.size(); ++i) {
    const KvSegment& s = segments[i];
    if (s.rows == 0) continue;
    check_rows(kOp, i, s, rows);
    const int64_t count = blocks_read(kOp, i, s, pool_blocks);
    planned.push_back({s.row_begin, s.rows, s.position, tables.size()});
    tables.append(s.blocks.first(count));
    plan.pairs += pairs_of(s.rows, s.position);
    plan.keys += s.position + s.rows;
  }
  check_disjoint(kOp, segments);
  plan.segments = upload_into<PlannedSegment>(ctx, arena, planned);
  plan.tables = upload_into<int32_t>(ctx, arena, tables);
  if (runs_on_cpu(ctx)) plan.cpu = cpu::schedule_forward(ctx, shape, planned, tables);
  return plan;
}

void measure_attention_plan(Span<const KvSegment> segments, Arena& arena) {
  int64_t tables = 0;
  for (const KvSegment& s : segments) tables += s.blocks.size();
  arena.alloc<PlannedSegment>(segments.size());
  arena.alloc<int32_t>(tables);
}

AttentionBackwardPlan make_attention_backward_plan(const Context& ctx, const AttentionShape& shape,
                                                   int64_t rows,
                                                   Span<const AttentionSegment> segments,
                                                   Arena& arena) {
  constexpr const char* kOp = "attention backward plan";
  check_device(ctx, kOp);
  check_shape(kOp, shape);
  AttentionBackwardPlan plan;
  plan.shape = shape;
  plan.rows = rows;
  for (int64_t i = 0; i < segments.size(); ++i) {
    const AttentionSegment& s = segments[i];
    check_rows(kOp, i, s, rows);
    if (s.parent < -1 || s.parent >= i) {
      fail("{}: segment {}: its parent {} does not precede it", kOp, i, s.parent);
    }
    const int64_t start = s.parent < 0 ? 0 : segments[s.parent].position + segments[s.parent].rows;
    if (s.position != start)
      fail("{}: segment {}: position {}, but its parent ends at {}", kOp, i, s.position, start);
    plan.pairs += pairs_of(s.rows, s.position);
  }
  check_disjoint(kOp, segments);
  plan.segments = upload_into<AttentionSegment>(ctx, arena, segments);
  if (runs_on_cpu(ctx)) plan.cpu = cpu::schedule_backward(ctx, shape, segments);
  return plan;
}

CopyPlan make_copy_plan(const Context& ctx, int64_t blocks, Span<const BlockCopy> copies,
                        Arena& arena) {
  CopyPlan plan;
  for (const BlockCopy& copy : copies) {
    if (copy.from < 0 || copy.from >= blocks || copy.to < 0 || copy.to >= blocks) {
      fail("kv_copy: block {} to {}: outside the pool of {} blocks", copy.from, copy.to, blocks);
    }
    if (copy.count < 0 || copy.count > kKvBlock)
      fail("kv_copy: {} slots: a block has {}", copy.count, kKvBlock);
    plan.slots += copy.count;
  }
  plan.copies = upload_into<BlockCopy>(ctx, arena, copies);
  return plan;
}

}  // namespace orrery::kernels
