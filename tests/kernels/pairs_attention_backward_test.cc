// attention_backward in bf16.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "core/error.h"
#include "kernels/numerics.h"
#include "tests/kernels/cases/attention_backward_pairs_cases.h"
#include "tests/kernels/pairs_attention_backward_oracle.h"

namespace orrery::kernels {
namespace {

using namespace attention_test;  // NOLINT(google-build-using-namespace)
using namespace cases;           // NOLINT(google-build-using-namespace)
using testing::HasSubstr;
using testing::ThrowsMessage;

Elements random_elements(std::mt19937& rng, int64_t count, float size = 1.0f) {
  Elements x;
  for (const float value : random_floats(rng, count, size)) x.push_back(to_bf16(value));
  return x;
}

Floats expanded(const Elements& x) {
  Floats to;
  for (const Bf16 value : x) to.push_back(to_f32(value));
  return to;
}

/// out and lse of a row of segment `segment`, of the textbook's formula.
void fill_row(PairsBatch& b, int64_t segment, int64_t row, const Floats& q, const Floats& k,
              const Floats& v) {
  std::vector<int64_t> path;
  for (int64_t r = row; r >= 0; --r) path.push_back(b.segments[segment].row_begin + r);
  for (int32_t s = b.segments[segment].parent; s >= 0; s = b.segments[s].parent) {
    for (int64_t r = b.segments[s].rows - 1; r >= 0; --r)
      path.push_back(b.segments[s].row_begin + r);
  }
  const int64_t token = path.front(), hd = b.shape.head_dim;
  std::reverse(path.begin(), path.end());
  // exact_row reads the query of the last position alone.
  Sequence sequence{static_cast<int64_t>(path.size()), {}, {}, {}};
  sequence.q.resize(path.size() * static_cast<size_t>(b.q_row()));
  std::copy_n(q.begin() + token * b.q_row(), b.q_row(), sequence.q.end() - b.q_row());
  for (const int64_t r : path) {
    sequence.k.insert(sequence.k.end(), k.begin() + r * b.kv_row(),
                      k.begin() + (r + 1) * b.kv_row());
    sequence.v.insert(sequence.v.end(), v.begin() + r * b.kv_row(),
                      v.begin() + (r + 1) * b.kv_row());
  }
  std::vector<double> out(static_cast<size_t>(hd));
  for (int64_t head = 0; head < b.shape.heads; ++head) {
    b.lse[token * b.shape.heads + head] = static_cast<float>(
        exact_row(b.shape, sequence, sequence.length - 1, head, b.scale, out.data()));
    for (int64_t d = 0; d < hd; ++d) {
      b.out[token * b.q_row() + head * hd + d] =
          to_bf16(static_cast<float>(out[static_cast<size_t>(d)]));
    }
  }
}

PairsBatch make_batch(const AttentionTreeCase& c) {
  std::mt19937 rng(29);
  PairsBatch b;
  b.shape = c.shape;
  b.scale = 1.0f / std::sqrt(static_cast<float>(c.shape.head_dim));
  for (const Node& node : c.nodes) {
    const int64_t start =
        node.parent < 0 ? 0 : b.segments[node.parent].position + b.segments[node.parent].rows;
    b.segments.push_back({b.rows, node.rows, start, node.parent});
    b.rows += node.rows;
  }
  b.q = random_elements(rng, b.rows * b.q_row(), c.size);
  b.k = random_elements(rng, b.rows * b.kv_row(), c.size);
  b.v = random_elements(rng, b.rows * b.kv_row());
  // Where q and k are small, dout is too: what enters dq and dk flushes.
  const bool small = c.size > 0.0f && c.size < 1.0f;
  b.dout = random_elements(rng, b.rows * b.q_row(), small ? c.size : 1.0f);
  b.out.resize(b.q.size());
  b.lse.resize(static_cast<size_t>(b.rows * b.shape.heads));
  const Floats q = expanded(b.q), k = expanded(b.k), v = expanded(b.v);
  for (size_t s = 0; s < b.segments.size(); ++s) {
    for (int64_t r = 0; r < b.segments[s].rows; ++r)
      fill_row(b, static_cast<int64_t>(s), r, q, k, v);
  }
  return b;
}

/// Runs the op on rows of elements of T.
template <class T>
void run(const Context& ctx, const PairsBatch& b, const T* q, const T* k, const T* v, const T* dout,
         const T* out, std::vector<T>& dq, std::vector<T>& dk, std::vector<T>& dv) {
  const auto queries = [&](auto* x) { return Mat(x, b.rows, b.q_row()); };
  const auto keys = [&](auto* x) { return Mat(x, b.rows, b.kv_row()); };
  Arena arena;
  const AttentionBackwardPlan plan =
      make_attention_backward_plan(ctx, b.shape, b.rows, b.segments, arena);
  attention_backward(ctx, {.dq = queries(dq.data()),
                           .dk = keys(dk.data()),
                           .dv = keys(dv.data()),
                           .dout = queries(dout),
                           .out = queries(out),
                           .q = queries(q),
                           .k = keys(k),
                           .v = keys(v),
                           .lse = {b.lse.data(), b.rows, b.shape.heads},
                           .plan = plan,
                           .scale = b.scale});
}

PairsGradients run_backward(const Context& ctx, const PairsBatch& b) {
  const Bf16 seven = to_bf16(7.0f);
  PairsGradients g{Elements(b.q.size(), seven), Elements(b.k.size(), seven),
                   Elements(b.v.size(), seven)};
  run(ctx, b, b.q.data(), b.k.data(), b.v.data(), b.dout.data(), b.out.data(), g.dq, g.dk, g.dv);
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

void expect_equal(const PairsGradients& a, const PairsGradients& b, const std::string& what) {
  EXPECT_EQ(first_difference(a.dq, b.dq), -1) << "dq " << what;
  EXPECT_EQ(first_difference(a.dk, b.dk), -1) << "dk " << what;
  EXPECT_EQ(first_difference(a.dv, b.dv), -1) << "dv " << what;
}

class PairsAttentionBackwardTest : public testing::Test {
 protected:
  void TearDown() override { set_cpu_target("best"); }
};

TEST_F(PairsAttentionBackwardTest, BitsOfTheHeadersArithmetic) {
  for (const AttentionTreeCase& c : cases_for(kAttentionPairsTreeCases, kOracle)) {
    SCOPED_TRACE(c.name);
    const PairsBatch b = make_batch(c);
    const PairsGradients expected = PairsBackwardOracle(b).run();
    for (const std::string& target : supported_pairs_targets()) {
      set_cpu_target(target);
      // Few trees for many threads take the other schedule.
      for (const int threads : {1, 2, 4, 32}) {
        expect_equal(run_backward({.threads = threads}, b), expected,
                     fmt::format("{} threads {}", target, threads));
      }
    }
  }
}

TEST_F(PairsAttentionBackwardTest, InfinitiesGoWhereTheBlocksTakeThem) {
  // A tile is multiplied whole, so p = 0 times an infinite value is NaN. A block of
  // queries of which none sees a key of the tile does not meet it.
  PairsBatch b = make_batch({{"batch", kOracle}, {4, 2, 16}, {{70}, {40, 0}}});
  const Bf16 infinity = to_bf16(std::numeric_limits<float>::infinity());
  for (int64_t d = 0; d < b.kv_row(); ++d)
    b.k[40 * b.kv_row() + d] = b.v[100 * b.kv_row() + d] = infinity;
  for (int64_t d = 0; d < b.q_row(); ++d) b.dout[50 * b.q_row() + d] = infinity;
  const PairsGradients expected = PairsBackwardOracle(b).run();
  for (int64_t i = 0; i < 32 * b.q_row(); ++i) ASSERT_TRUE(std::isfinite(to_f32(expected.dq[i])));
  ASSERT_TRUE(std::isnan(to_f32(expected.dq[33 * b.q_row()])));
  for (const std::string& target : supported_pairs_targets()) {
    set_cpu_target(target);
    for (const int threads : {1, 4})
      expect_equal(run_backward({.threads = threads}, b), expected, target);
  }
}

TEST_F(PairsAttentionBackwardTest, NearTheOneInF32) {
  const PairsBatch b = make_batch({{"tree", kOracle}, {9, 3, 64}, {{45}, {70, 0}, {33, 0}, {50}}});
  const PairsGradients g = run_backward({.threads = 2}, b);
  const Floats q = expanded(b.q), k = expanded(b.k), v = expanded(b.v), dout = expanded(b.dout),
               out = expanded(b.out);
  Floats dq(q.size()), dk(k.size()), dv(k.size());
  run<float>({}, b, q.data(), k.data(), v.data(), dout.data(), out.data(), dq, dk, dv);
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

/// Of two trees, interleaved in the list and in the rows.
const AttentionTreeCase kTwoTrees{
    {"batch", kOracle}, {6, 2, 16}, {{21}, {37}, {40, 0}, {12, 1}, {30, 0}, {5, 3}, {8, 2}}};
const std::vector<std::vector<int32_t>> kMembers{{0, 2, 4, 6}, {1, 3, 5}};

/// The rows of some segments of a batch, as they lie in another one.
template <class T>
std::vector<T> gather(const PairsBatch& both, const PairsBatch& one,
                      const std::vector<int32_t>& members, const std::vector<T>& from,
                      int64_t row) {
  std::vector<T> to(static_cast<size_t>(one.rows * row));
  for (size_t i = 0; i < members.size(); ++i) {
    const AttentionSegment& s = both.segments[static_cast<size_t>(members[i])];
    std::copy_n(from.begin() + s.row_begin * row, s.rows * row,
                to.begin() + one.segments[i].row_begin * row);
  }
  return to;
}

/// One tree of a batch alone, its rows in the list's order or in the opposite one.
PairsBatch tree_of(const PairsBatch& both, const std::vector<int32_t>& members, bool reversed) {
  PairsBatch one;
  one.shape = both.shape;
  one.scale = both.scale;
  std::vector<int32_t> place(both.segments.size(), -1);
  for (const int32_t m : members) {
    place[m] = static_cast<int32_t>(one.segments.size());
    one.segments.push_back(both.segments[m]);
    const int32_t parent = both.segments[m].parent;
    if (parent >= 0) one.segments.back().parent = place[parent];
  }
  for (size_t i = 0; i < members.size(); ++i) {
    AttentionSegment& s = one.segments[reversed ? members.size() - 1 - i : i];
    s.row_begin = one.rows;
    one.rows += s.rows;
  }
  one.q = gather(both, one, members, both.q, both.q_row());
  one.out = gather(both, one, members, both.out, both.q_row());
  one.dout = gather(both, one, members, both.dout, both.q_row());
  one.k = gather(both, one, members, both.k, both.kv_row());
  one.v = gather(both, one, members, both.v, both.kv_row());
  one.lse = gather(both, one, members, both.lse, both.shape.heads);
  return one;
}

PairsGradients gradients_of(const PairsBatch& both, const PairsBatch& one,
                            const std::vector<int32_t>& members, const PairsGradients& g) {
  return {gather(both, one, members, g.dq, both.q_row()),
          gather(both, one, members, g.dk, both.kv_row()),
          gather(both, one, members, g.dv, both.kv_row())};
}

TEST_F(PairsAttentionBackwardTest, OtherTreesAndPlacesInTheBatchChangeNothing) {
  const PairsBatch both = make_batch(kTwoTrees);
  const PairsGradients together = run_backward({}, both);
  for (const auto& members : kMembers) {
    for (const bool reversed : {false, true}) {
      const PairsBatch one = tree_of(both, members, reversed);
      expect_equal(run_backward({}, one), gradients_of(both, one, members, together),
                   reversed ? "reversed" : "in order");
    }
  }
}

TEST_F(PairsAttentionBackwardTest, NanInATreeStaysThere) {
  const PairsBatch clean = make_batch(kTwoTrees);
  const PairsGradients expected = run_backward({}, clean);
  const Bf16 nan = to_bf16(std::numeric_limits<float>::quiet_NaN());
  for (const std::string& target : supported_pairs_targets()) {
    set_cpu_target(target);
    for (size_t poisoned = 0; poisoned < kMembers.size(); ++poisoned) {
      PairsBatch b = clean;
      for (const int32_t m : kMembers[poisoned]) {
        const AttentionSegment& s = b.segments[static_cast<size_t>(m)];
        for (Elements* x : {&b.q, &b.out, &b.dout})
          std::fill_n(x->begin() + s.row_begin * b.q_row(), s.rows * b.q_row(), nan);
        for (Elements* x : {&b.k, &b.v})
          std::fill_n(x->begin() + s.row_begin * b.kv_row(), s.rows * b.kv_row(), nan);
        std::fill_n(b.lse.begin() + s.row_begin * b.shape.heads, s.rows * b.shape.heads,
                    std::numeric_limits<float>::quiet_NaN());
      }
      const auto& others = kMembers[1 - poisoned];
      for (const int threads : {1, 4}) {
        const PairsGradients g = run_backward({.threads = threads}, b);
        const PairsBatch place = tree_of(b, others, false);
        expect_equal(gradients_of(b, place, others, g), gradients_of(b, place, others, expected),
                     target);
        EXPECT_TRUE(std::isnan(to_f32(
            g.dq[b.segments[static_cast<size_t>(kMembers[poisoned][0])].row_begin * b.q_row()])));
      }
    }
  }
}

TEST_F(PairsAttentionBackwardTest, RowsOutsideTheSegmentsAreLeftAlone) {
  PairsBatch b = make_batch({{"batch", kOracle}, {2, 1, 8}, {{5}, {6}, {3, 1}}});
  b.segments.erase(b.segments.begin());
  b.segments[1].parent = 0;
  const PairsGradients g = run_backward({}, b);
  for (size_t i = 0; i < 5 * 16; ++i) EXPECT_EQ(to_f32(g.dq[i]), 7.0f);
  for (size_t i = 0; i < 5 * 8; ++i)
    EXPECT_TRUE(to_f32(g.dk[i]) == 7.0f && to_f32(g.dv[i]) == 7.0f);
}

TEST_F(PairsAttentionBackwardTest, AnotherTypeIsNamed) {
  const PairsBatch b = make_batch({{"batch", kOracle}, {2, 1, 8}, {{5}}});
  Floats out(b.q.size());
  PairsGradients g{Elements(b.q.size()), Elements(b.k.size()), Elements(b.v.size())};
  Arena arena;
  const AttentionBackwardPlan plan =
      make_attention_backward_plan({}, b.shape, b.rows, b.segments, arena);
  const auto call = [&] {
    attention_backward({}, {.dq = Mat(g.dq.data(), 5, 16),
                            .dk = Mat(g.dk.data(), 5, 8),
                            .dv = Mat(g.dv.data(), 5, 8),
                            .dout = Mat(b.dout.data(), 5, 16),
                            .out = Mat(out.data(), 5, 16),
                            .q = Mat(b.q.data(), 5, 16),
                            .k = Mat(b.k.data(), 5, 8),
                            .v = Mat(b.v.data(), 5, 8),
                            .lse = {b.lse.data(), 5, 2},
                            .plan = plan});
  };
  EXPECT_THAT(call,
              ThrowsMessage<Error>(HasSubstr("attention_backward: out is f32, but q is bf16")));
}

}  // namespace
}  // namespace orrery::kernels
