// attention_backward in the class dot16-rz25 (cpu-dot16).
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "kernels/numerics.h"
#include "tests/kernels/attention_pairs_oracle.h"
#include "tests/kernels/cases/attention_backward_pairs_cases.h"
#include "tests/kernels/dot16_attention_backward_oracle.h"

namespace orrery::kernels {
namespace {

using namespace attention_test;  // NOLINT(google-build-using-namespace)
using namespace cases;           // NOLINT(google-build-using-namespace)

Context dot16_context(int threads = 1) {
  return {.device = {DeviceType::kCpu, 0, Bf16Sums::kDot16}, .threads = threads};
}

Elements random_elements(std::mt19937& rng, int64_t count, float size) {
  return as_bf16(random_floats(rng, count, size));
}

/// out and lse of a segment's rows, of the forward's oracle.
void fill_segment(PairsBatch& b, int64_t segment) {
  std::vector<int64_t> path;  // rows of the batch
  for (int64_t s = segment; s >= 0; s = b.segments[s].parent) {
    for (int64_t r = b.segments[s].rows - 1; r >= 0; --r)
      path.push_back(b.segments[s].row_begin + r);
  }
  std::reverse(path.begin(), path.end());
  Sequence sequence{static_cast<int64_t>(path.size()), {}, {}, {}};
  const auto append = [](Floats& to, const Elements& from, int64_t row, int64_t width) {
    for (int64_t x = 0; x < width; ++x) to.push_back(to_f32(from[row * width + x]));
  };
  for (const int64_t row : path) {
    append(sequence.q, b.q, row, b.q_row());
    append(sequence.k, b.k, row, b.kv_row());
    append(sequence.v, b.v, row, b.kv_row());
  }
  const int64_t hd = b.shape.head_dim;
  Floats out(static_cast<size_t>(hd));
  for (int64_t p = b.segments[segment].position; p < sequence.length; ++p) {
    for (int64_t head = 0; head < b.shape.heads; ++head) {
      Dot16ForwardOracle oracle(b.shape, sequence, p, head, sequence.length);
      b.lse[path[p] * b.shape.heads + head] = oracle.run(b.scale, out.data());
      for (int64_t d = 0; d < hd; ++d) b.out[path[p] * b.q_row() + head * hd + d] = to_bf16(out[d]);
    }
  }
}

PairsBatch make_batch(const AttentionShape& shape, const std::vector<Node>& nodes,
                      float size = 1.0f) {
  std::mt19937 rng(29);
  PairsBatch b;
  b.shape = shape;
  b.scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  for (const Node& node : nodes) {
    const int64_t start =
        node.parent < 0 ? 0 : b.segments[node.parent].position + b.segments[node.parent].rows;
    b.segments.push_back({b.rows, node.rows, start, node.parent});
    b.rows += node.rows;
  }
  b.q = random_elements(rng, b.rows * b.q_row(), size);
  b.k = random_elements(rng, b.rows * b.kv_row(), size);
  b.v = random_elements(rng, b.rows * b.kv_row(), 1.0f);
  b.dout = random_elements(rng, b.rows * b.q_row(), 1.0f);
  b.out.resize(b.q.size());
  b.lse.resize(static_cast<size_t>(b.rows * b.shape.heads));
  for (size_t s = 0; s < b.segments.size(); ++s) fill_segment(b, static_cast<int64_t>(s));
  return b;
}

PairsBatch make_batch(const AttentionTreeCase& c) {
  return make_batch(c.shape, std::vector<Node>(c.nodes.begin(), c.nodes.end()), c.size);
}

/// Runs the op on rows of elements of T.
template <class T>
void run(const Context& ctx, const PairsBatch& b, const std::vector<T>& q, const std::vector<T>& k,
         const std::vector<T>& v, const std::vector<T>& dout, const std::vector<T>& out,
         const Floats& lse, std::vector<T>& dq, std::vector<T>& dk, std::vector<T>& dv) {
  const auto queries = [&](auto& x) { return Mat(x.data(), b.rows, b.q_row()); };
  const auto keys = [&](auto& x) { return Mat(x.data(), b.rows, b.kv_row()); };
  Arena arena(ctx.device);
  const AttentionBackwardPlan plan =
      make_attention_backward_plan(ctx, b.shape, b.rows, b.segments, arena);
  attention_backward(ctx, {.dq = queries(dq),
                           .dk = keys(dk),
                           .dv = keys(dv),
                           .dout = queries(dout),
                           .out = queries(out),
                           .q = queries(q),
                           .k = keys(k),
                           .v = keys(v),
                           .lse = {lse.data(), b.rows, b.shape.heads},
                           .plan = plan,
                           .scale = b.scale});
}

PairsGradients run_backward(const Context& ctx, const PairsBatch& b) {
  const Bf16 seven = to_bf16(7.0f);
  PairsGradients g{Elements(b.q.size(), seven), Elements(b.k.size(), seven),
                   Elements(b.v.size(), seven)};
  run(ctx, b, b.q, b.k, b.v, b.dout, b.out, b.lse, g.dq, g.dk, g.dv);
  return g;
}

/// The first index at which elements differ, a NaN being equal to any other; or -1.
int64_t first_difference(const Elements& a, const Elements& b) {
  if (a.size() != b.size()) return 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const bool same = std::isnan(to_f32(a[i])) ? std::isnan(to_f32(b[i])) : a[i].bits == b[i].bits;
    if (!same) return static_cast<int64_t>(i);
  }
  return -1;
}

void expect_equal(const PairsGradients& a, const PairsGradients& b) {
  EXPECT_EQ(first_difference(a.dq, b.dq), -1);
  EXPECT_EQ(first_difference(a.dk, b.dk), -1);
  EXPECT_EQ(first_difference(a.dv, b.dv), -1);
}

class Dot16AttentionBackward : public testing::Test {
 protected:
  void TearDown() override { set_cpu_target("best"); }
};

void expect_oracle(const PairsBatch& b) {
  const PairsGradients expected = Dot16BackwardOracle(b).run();
  for (const std::string& target : supported_cpu_targets()) {
    SCOPED_TRACE(target);
    set_cpu_target(target);
    expect_equal(run_backward(dot16_context(), b), expected);
  }
  // Few trees for many threads take the other schedule.
  for (const int threads : {3, 32}) {
    SCOPED_TRACE(threads);
    expect_equal(run_backward(dot16_context(threads), b), expected);
  }
}

TEST_F(Dot16AttentionBackward, BitsOfTheContract) {
  for (const AttentionTreeCase& c : cases_for(kAttentionTreeCases, kOracle)) {
    SCOPED_TRACE(c.name);
    expect_oracle(make_batch(c));
  }
}

TEST_F(Dot16AttentionBackward, BitsOfTheContractOnPairsTrees) {
  for (const AttentionTreeCase& c : cases_for(kAttentionPairsTreeCases, kOracle)) {
    SCOPED_TRACE(c.name);
    expect_oracle(make_batch(c));
  }
}

TEST_F(Dot16AttentionBackward, SegmentsEndWithinBlocks) {
  expect_oracle(make_batch({4, 2, 16}, {{201}, {130, 0}, {17, 1}, {64, 0}, {15}}));
  expect_oracle(make_batch({3, 1, 8}, {{128}, {65, 0}, {129, 0}}));
}

TEST_F(Dot16AttentionBackward, NearTheOneInF32) {
  const PairsBatch b = make_batch({9, 3, 64}, {{45}, {70, 0}, {33, 0}, {50}});
  const PairsGradients g = run_backward(dot16_context(2), b);
  Floats lse;
  for (const float x : b.lse) lse.push_back(x * static_cast<float>(std::numbers::ln2));
  Floats dq(b.q.size()), dk(b.k.size()), dv(b.v.size());
  run<float>({}, b, as_floats(b.q), as_floats(b.k), as_floats(b.v), as_floats(b.dout),
             as_floats(b.out), lse, dq, dk, dv);
  const auto distance = [](const Elements& x, const Floats& y) {
    double apart = 0, size = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      apart += std::pow(to_f32(x[i]) - y[i], 2);
      size += std::pow(y[i], 2);
    }
    return std::sqrt(apart / size);
  };
  EXPECT_LT(distance(g.dq, dq), 4e-3);
  EXPECT_LT(distance(g.dk, dk), 4e-3);
  EXPECT_LT(distance(g.dv, dv), 4e-3);
}

/// Some rows of a batch's matrix, `row` wide.
template <class T>
std::vector<T> rows_of(const std::vector<T>& from, const std::vector<AttentionSegment>& segments,
                       int64_t row) {
  std::vector<T> to;
  for (const AttentionSegment& s : segments)
    to.insert(to.end(), from.begin() + s.row_begin * row,
              from.begin() + (s.row_begin + s.rows) * row);
  return to;
}

/// The segments of `all` that a tree has, as a batch of their own.
PairsBatch tree_of(const PairsBatch& all, const std::vector<int32_t>& members) {
  PairsBatch one;
  one.shape = all.shape;
  one.scale = all.scale;
  std::vector<int32_t> place(all.segments.size(), -1);
  std::vector<AttentionSegment> from;
  for (const int32_t m : members) {
    const AttentionSegment& s = all.segments[m];
    from.push_back(s);
    place[m] = static_cast<int32_t>(one.segments.size());
    one.segments.push_back({one.rows, s.rows, s.position, s.parent < 0 ? -1 : place[s.parent]});
    one.rows += s.rows;
  }
  for (Elements PairsBatch::*x : {&PairsBatch::q, &PairsBatch::dout, &PairsBatch::out})
    one.*x = rows_of(all.*x, from, all.q_row());
  for (Elements PairsBatch::*x : {&PairsBatch::k, &PairsBatch::v})
    one.*x = rows_of(all.*x, from, all.kv_row());
  one.lse = rows_of(all.lse, from, all.shape.heads);
  return one;
}

/// What a batch's gradients say of some of its segments.
PairsGradients part_of(const PairsGradients& g, const PairsBatch& all,
                       const std::vector<int32_t>& members) {
  std::vector<AttentionSegment> from;
  for (const int32_t m : members) from.push_back(all.segments[m]);
  return {rows_of(g.dq, from, all.q_row()), rows_of(g.dk, from, all.kv_row()),
          rows_of(g.dv, from, all.kv_row())};
}

TEST_F(Dot16AttentionBackward, OtherTreesChangeNothing) {
  PairsBatch b = make_batch({6, 2, 16}, {{21}, {37}, {40, 0}, {12, 1}, {30, 0}, {5, 3}, {8, 2}});
  const std::vector<std::vector<int32_t>> members{{0, 2, 4, 6}, {1, 3, 5}};
  for (size_t tree = 0; tree < 2; ++tree) {
    const PairsGradients alone = run_backward(dot16_context(), tree_of(b, members[tree]));
    // The other tree may be NaN throughout.
    PairsBatch poisoned = b;
    const Bf16 nan = to_bf16(std::numeric_limits<float>::quiet_NaN());
    for (const int32_t m : members[1 - tree]) {
      const AttentionSegment& s = b.segments[m];
      for (Elements PairsBatch::*x : {&PairsBatch::q, &PairsBatch::dout})
        std::fill_n((poisoned.*x).begin() + s.row_begin * b.q_row(), s.rows * b.q_row(), nan);
      for (Elements PairsBatch::*x : {&PairsBatch::k, &PairsBatch::v})
        std::fill_n((poisoned.*x).begin() + s.row_begin * b.kv_row(), s.rows * b.kv_row(), nan);
    }
    for (const int threads : {1, 3, 32}) {
      expect_equal(part_of(run_backward(dot16_context(threads), b), b, members[tree]), alone);
      expect_equal(part_of(run_backward(dot16_context(threads), poisoned), b, members[tree]),
                   alone);
    }
  }
}

TEST_F(Dot16AttentionBackward, RowsOutsideTheSegmentsAreLeftAlone) {
  PairsBatch b = make_batch({2, 1, 8}, {{5}, {6}, {3, 1}});
  b.segments.erase(b.segments.begin());
  b.segments[1].parent = 0;
  const PairsGradients g = run_backward(dot16_context(), b);
  for (size_t i = 0; i < 5 * 16; ++i) EXPECT_EQ(to_f32(g.dq[i]), 7.0f);
  for (size_t i = 0; i < 5 * 8; ++i)
    EXPECT_TRUE(to_f32(g.dk[i]) == 7.0f && to_f32(g.dv[i]) == 7.0f);
}

/// One infinite key: which gradients it takes with it is not said, but is the same for
/// any number of threads.
TEST_F(Dot16AttentionBackward, ThreadsChangeNothingWhereNumbersAreNotFinite) {
  PairsBatch b = make_batch({4, 2, 16}, {{150}, {70, 0}});
  const Bf16 infinity = to_bf16(std::numeric_limits<float>::infinity());
  for (int64_t d = 0; d < b.kv_row(); ++d) b.k[40 * b.kv_row() + d] = infinity;
  for (int64_t d = 0; d < b.q_row(); ++d) b.dout[100 * b.q_row() + d] = infinity;
  const PairsGradients g = run_backward(dot16_context(), b);
  for (const int threads : {3, 32}) expect_equal(run_backward(dot16_context(threads), b), g);
}

}  // namespace
}  // namespace orrery::kernels
