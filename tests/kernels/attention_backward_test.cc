#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "kernels/numerics.h"
#include "tests/kernels/attention_oracle.h"

namespace orrery::kernels {
namespace {

using namespace attention_test;  // NOLINT(google-build-using-namespace)
using namespace cases;           // NOLINT(google-build-using-namespace)
using testing::HasSubstr;
using testing::ThrowsMessage;

/// A batch: segments, activations by row, and the forward's out and lse.
struct Batch {
  AttentionShape shape;
  std::vector<AttentionSegment> segments;
  int64_t rows = 0;
  float scale = 1.0f;
  Floats q, k, v, dout, out, lse;

  int64_t q_row() const { return shape.heads * shape.head_dim; }
  int64_t kv_row() const { return shape.kv_heads * shape.head_dim; }
};

struct Gradients {
  Floats dq, dk, dv;
};

/// Rows of the tokens that row `row` of segment `segment` sees, in order of position,
/// itself last.
std::vector<int64_t> path_rows(const Batch& b, int64_t segment, int64_t row) {
  std::vector<int64_t> path;
  const AttentionSegment& own = b.segments[segment];
  for (int64_t r = row; r >= 0; --r) path.push_back(own.row_begin + r);
  for (int32_t s = own.parent; s >= 0; s = b.segments[s].parent) {
    for (int64_t r = b.segments[s].rows - 1; r >= 0; --r)
      path.push_back(b.segments[s].row_begin + r);
  }
  std::reverse(path.begin(), path.end());
  return path;
}

/// The path's tokens as a sequence of its own.
Sequence path_sequence(const Batch& b, const std::vector<int64_t>& path) {
  Sequence s{static_cast<int64_t>(path.size()), {}, {}, {}};
  for (const int64_t r : path) {
    s.q.insert(s.q.end(), b.q.begin() + r * b.q_row(), b.q.begin() + (r + 1) * b.q_row());
    s.k.insert(s.k.end(), b.k.begin() + r * b.kv_row(), b.k.begin() + (r + 1) * b.kv_row());
    s.v.insert(s.v.end(), b.v.begin() + r * b.kv_row(), b.v.begin() + (r + 1) * b.kv_row());
  }
  return s;
}

void fill_forward(Batch& b) {
  b.out.assign(b.q.size(), 0.0f);
  b.lse.assign(static_cast<size_t>(b.rows * b.shape.heads), 0.0f);
  for (size_t i = 0; i < b.segments.size(); ++i) {
    const AttentionSegment& s = b.segments[i];
    if (s.rows == 0) continue;
    const Sequence sequence = path_sequence(b, path_rows(b, static_cast<int64_t>(i), s.rows - 1));
    for (int64_t r = 0; r < s.rows; ++r) {
      for (int64_t head = 0; head < b.shape.heads; ++head) {
        float* out = b.out.data() + (s.row_begin + r) * b.q_row() + head * b.shape.head_dim;
        b.lse[(s.row_begin + r) * b.shape.heads + head] =
            forward_row(b.shape, sequence, s.position + r, head, b.scale, out);
      }
    }
  }
}

Batch make_batch(const AttentionTreeCase& c) {
  std::mt19937 rng(29);
  Batch b;
  b.shape = c.shape;
  b.scale = 1.0f / std::sqrt(static_cast<float>(c.shape.head_dim));
  for (const Node& node : c.nodes) {
    const int64_t start =
        node.parent < 0 ? 0 : b.segments[node.parent].position + b.segments[node.parent].rows;
    b.segments.push_back({b.rows, node.rows, start, node.parent});
    b.rows += node.rows;
  }
  b.q = random_floats(rng, b.rows * b.q_row(), c.size);
  b.k = random_floats(rng, b.rows * b.kv_row(), c.size);
  b.v = random_floats(rng, b.rows * b.kv_row());
  b.dout = random_floats(rng, b.rows * b.q_row());
  fill_forward(b);
  return b;
}

Gradients run_backward(const Context& ctx, const Batch& b) {
  Gradients g{Floats(b.q.size(), 7.0f), Floats(b.k.size(), 7.0f), Floats(b.v.size(), 7.0f)};
  const auto queries = [&](auto* x) { return Mat(x, b.rows, b.q_row()); };
  const auto keys = [&](auto* x) { return Mat(x, b.rows, b.kv_row()); };
  Arena arena;
  const AttentionBackwardPlan plan =
      make_attention_backward_plan(ctx, b.shape, b.rows, b.segments, arena);
  attention_backward(ctx, {.dq = queries(g.dq.data()),
                           .dk = keys(g.dk.data()),
                           .dv = keys(g.dv.data()),
                           .dout = queries(b.dout.data()),
                           .out = queries(b.out.data()),
                           .q = queries(b.q.data()),
                           .k = keys(b.k.data()),
                           .v = keys(b.v.data()),
                           .lse = {b.lse.data(), b.rows, b.shape.heads},
                           .plan = plan,
                           .scale = b.scale});
  return g;
}

/// The arithmetic of the header: segments in list order, their rows, heads, then the
/// keys by position.
Gradients scalar_backward(const Batch& b) {
  Gradients g{Floats(b.q.size()), Floats(b.k.size()), Floats(b.v.size())};
  const int64_t hd = b.shape.head_dim;
  for (size_t i = 0; i < b.segments.size(); ++i) {
    for (int64_t r = 0; r < b.segments[i].rows; ++r) {
      const std::vector<int64_t> path = path_rows(b, static_cast<int64_t>(i), r);
      const int64_t row = path.back();
      for (int64_t head = 0; head < b.shape.heads; ++head) {
        const int64_t at = row * b.q_row() + head * hd;
        std::array<float, 16> lanes{};
        for (int64_t d = 0; d < hd; ++d)
          lanes[d % 16] = std::fma(b.dout[at + d], b.out[at + d], lanes[d % 16]);
        const float delta = fold(lanes);
        for (const int64_t key : path) {
          const int64_t kv = key * b.kv_row() + head / group_of(b.shape) * hd;
          const float p =
              exp_f32(score(&b.q[at], &b.k[kv], hd, b.scale) - b.lse[row * b.shape.heads + head]);
          const float ds = p * (score(&b.dout[at], &b.v[kv], hd, 1.0f) - delta) * b.scale;
          for (int64_t d = 0; d < hd; ++d) {
            g.dq[at + d] = std::fma(ds, b.k[kv + d], g.dq[at + d]);
            g.dk[kv + d] = std::fma(ds, b.q[at + d], g.dk[kv + d]);
            g.dv[kv + d] = std::fma(p, b.dout[at + d], g.dv[kv + d]);
          }
        }
      }
    }
  }
  return g;
}

/// Sum of dout * out in double precision: the function whose gradients these are.
double loss(const Batch& b) {
  double sum = 0;
  std::vector<double> out(static_cast<size_t>(b.shape.head_dim));
  for (size_t i = 0; i < b.segments.size(); ++i) {
    const AttentionSegment& s = b.segments[i];
    if (s.rows == 0) continue;
    const Sequence sequence = path_sequence(b, path_rows(b, static_cast<int64_t>(i), s.rows - 1));
    for (int64_t r = 0; r < s.rows; ++r) {
      for (int64_t head = 0; head < b.shape.heads; ++head) {
        exact_row(b.shape, sequence, s.position + r, head, b.scale, out.data());
        const float* dout = &b.dout[(s.row_begin + r) * b.q_row() + head * b.shape.head_dim];
        for (int64_t d = 0; d < b.shape.head_dim; ++d) sum += dout[d] * out[static_cast<size_t>(d)];
      }
    }
  }
  return sum;
}

void expect_equal(const Gradients& a, const Gradients& b, const std::string& what) {
  EXPECT_EQ(first_difference(a.dq, b.dq), -1) << "dq " << what;
  EXPECT_EQ(first_difference(a.dk, b.dk), -1) << "dk " << what;
  EXPECT_EQ(first_difference(a.dv, b.dv), -1) << "dv " << what;
}

class AttentionBackwardTest : public testing::Test {
 protected:
  void TearDown() override { set_cpu_target("best"); }
};

TEST_F(AttentionBackwardTest, BitsOfTheHeadersArithmetic) {
  for (const AttentionTreeCase& c : cases_for(kAttentionTreeCases, kOracle)) {
    SCOPED_TRACE(c.name);
    const Batch b = make_batch(c);
    const Gradients expected = scalar_backward(b);
    for (const std::string& target : supported_cpu_targets()) {
      set_cpu_target(target);
      // Few trees for many threads take the other schedule.
      for (const int threads : {1, 2, 3, 32}) {
        expect_equal(run_backward({.threads = threads}, b), expected,
                     fmt::format("{} threads {} head_dim {}", target, threads, c.shape.head_dim));
      }
    }
  }
}

TEST_F(AttentionBackwardTest, FiniteDifferences) {
  for (const AttentionTreeCase& c : cases_for(kAttentionTreeCases, kDifferences)) {
    SCOPED_TRACE(c.name);
    Batch b = make_batch(c);
    const Gradients g = run_backward({.threads = 2}, b);
    std::mt19937 rng(31);
    const auto check = [&](Floats& x, const Floats& grad, const char* name) {
      for (int trial = 0; trial < 40; ++trial) {
        const size_t i = rng() % x.size();
        const float value = x[i];
        x[i] = value + 0x1p-8f;
        const double up = loss(b), above = x[i];
        x[i] = value - 0x1p-8f;
        const double down = loss(b), below = x[i];
        x[i] = value;
        EXPECT_NEAR(grad[i], (up - down) / (above - below), 2e-5) << name << " " << i;
      }
    };
    check(b.q, g.dq, "dq");
    check(b.k, g.dk, "dk");
    check(b.v, g.dv, "dv");
  }
}

TEST_F(AttentionBackwardTest, OtherTreesAndPlacesInTheBatchChangeNothing) {
  // Two trees, interleaved in the list and in the rows.
  const AttentionTreeCase c{
      {"batch", kOracle}, {6, 2, 16}, {{21}, {37}, {40, 0}, {12, 1}, {30, 0}, {5, 3}, {8, 2}}};
  const Batch both = make_batch(c);
  const Gradients together = run_backward({}, both);
  for (const std::vector<int32_t>& members :
       {std::vector<int32_t>{0, 2, 4, 6}, std::vector<int32_t>{1, 3, 5}}) {
    // Rows of the segments in the list's order, or in the opposite one.
    for (const bool reversed : {false, true}) {
      Batch one;
      one.shape = both.shape;
      one.scale = both.scale;
      std::vector<int32_t> place(c.nodes.size(), -1);
      for (const int32_t m : members) {
        place[m] = static_cast<int32_t>(one.segments.size());
        one.segments.push_back(both.segments[m]);
        one.rows += both.segments[m].rows;
        if (both.segments[m].parent >= 0)
          one.segments.back().parent = place[both.segments[m].parent];
      }
      int64_t next = 0;
      for (size_t i = 0; i < members.size(); ++i) {
        AttentionSegment& s = one.segments[reversed ? members.size() - 1 - i : i];
        s.row_begin = next;
        next += s.rows;
      }
      const auto gather = [&](const Floats& from, int64_t row) {
        Floats to(static_cast<size_t>(one.rows * row));
        for (const int32_t m : members) {
          std::copy_n(from.begin() + both.segments[m].row_begin * row, both.segments[m].rows * row,
                      to.begin() + one.segments[place[m]].row_begin * row);
        }
        return to;
      };
      one.q = gather(both.q, both.q_row());
      one.out = gather(both.out, both.q_row());
      one.dout = gather(both.dout, both.q_row());
      one.k = gather(both.k, both.kv_row());
      one.v = gather(both.v, both.kv_row());
      one.lse = gather(both.lse, both.shape.heads);
      const Gradients expected{gather(together.dq, both.q_row()),
                               gather(together.dk, both.kv_row()),
                               gather(together.dv, both.kv_row())};
      expect_equal(run_backward({}, one), expected, reversed ? "reversed" : "in order");
    }
  }
}

TEST_F(AttentionBackwardTest, ChildrenGetTheGradientsOfSeparateSequences) {
  const AttentionTreeCase c{{"batch", kOracle}, {6, 2, 16}, {{45}, {40, 0}, {33, 0}}};
  const Batch tree = make_batch(c);
  const Gradients g = run_backward({}, tree);
  for (int64_t child = 1; child <= 2; ++child) {
    const AttentionSegment& s = tree.segments[child];
    const std::vector<int64_t> path = path_rows(tree, child, s.rows - 1);
    const Sequence sequence = path_sequence(tree, path);
    Batch alone;
    alone.shape = tree.shape;
    alone.scale = tree.scale;
    alone.rows = sequence.length;
    alone.segments = {{0, sequence.length, 0, -1}};
    alone.q = sequence.q;
    alone.k = sequence.k;
    alone.v = sequence.v;
    for (const int64_t r : path) {
      alone.dout.insert(alone.dout.end(), tree.dout.begin() + r * tree.q_row(),
                        tree.dout.begin() + (r + 1) * tree.q_row());
    }
    fill_forward(alone);
    const Gradients own = run_backward({}, alone);
    const auto equal = [&](const Floats& whole, const Floats& part, int64_t row, const char* name) {
      EXPECT_EQ(first_difference(std::span(whole).subspan(s.row_begin * row, s.rows * row),
                                 std::span(part).subspan(s.position * row, s.rows * row)),
                -1)
          << name;
    };
    equal(g.dq, own.dq, tree.q_row(), "dq");
    equal(g.dk, own.dk, tree.kv_row(), "dk");
    equal(g.dv, own.dv, tree.kv_row(), "dv");
  }
}

TEST_F(AttentionBackwardTest, TreeForwardThenBackwardThroughThePool) {
  // What a learner does: prompt and responses as KV segments that share blocks, then
  // the backward of the same rows.
  const AttentionTreeCase c{{"batch", kOracle}, {6, 2, 16}, {{45}, {40, 0}, {33, 0}}};
  const Batch tree = make_batch(c);
  Pool pool(tree.shape, 10);
  const std::vector<int32_t> prompt = pool.take(45);
  std::vector<std::vector<int32_t>> tables{prompt};
  std::vector<KvSegment> segments;
  for (int i = 1; i <= 2; ++i) {
    tables.push_back({prompt[0]});
    for (const int32_t b : pool.take(64)) tables.back().push_back(b);
  }
  for (int i = 0; i <= 2; ++i) {
    const AttentionSegment& s = tree.segments[i];
    segments.push_back({s.row_begin, s.rows, s.position, tables[i]});
  }
  Arena arena;
  const auto plan_of = [&](std::span<const KvSegment> part) {
    return make_attention_plan({.threads = 2}, tree.shape, tree.rows, 10, part, arena);
  };
  const auto write = [&](std::span<const KvSegment> part) {
    kv_write({}, {.pool = pool.view(),
                  .k = Mat<const float>(tree.k.data(), tree.rows, 32),
                  .v = Mat<const float>(tree.v.data(), tree.rows, 32),
                  .plan = plan_of(part)});
  };
  write(std::span(segments).first(1));
  for (int i = 1; i <= 2; ++i) copy_slots(pool, prompt[1], tables[i][1], 45 % kKvBlock);
  write(std::span(segments).subspan(1));
  Floats out(tree.q.size()), lse(tree.lse.size());
  attention_forward({.threads = 2}, {.out = Mat<float>(out.data(), tree.rows, 96),
                                     .lse = {lse.data(), tree.rows, 6},
                                     .q = Mat<const float>(tree.q.data(), tree.rows, 96),
                                     .pool = pool.view(),
                                     .plan = plan_of(segments),
                                     .scale = tree.scale});
  EXPECT_EQ(first_difference(out, tree.out), -1);
  EXPECT_EQ(first_difference(lse, tree.lse), -1);
}

TEST_F(AttentionBackwardTest, LaterRowsDoNotLeakBack) {
  Batch b = make_batch({{"batch", kOracle}, {4, 2, 16}, {{40}}});
  const Gradients clean = run_backward({}, b);
  // Row 30's own value is infinite: rows before it neither see it nor get its gradients
  // from it.
  for (int64_t d = 0; d < 32; ++d) b.v[30 * 32 + d] = std::numeric_limits<float>::infinity();
  for (const std::string& target : supported_cpu_targets()) {
    set_cpu_target(target);
    const Gradients g = run_backward({}, b);
    EXPECT_EQ(first_difference(std::span(g.dq).first(30 * 64), std::span(clean.dq).first(30 * 64)),
              -1);
    for (size_t i = 31 * 32; i < g.dv.size(); ++i) ASSERT_EQ(g.dv[i], clean.dv[i]);
  }
}

TEST_F(AttentionBackwardTest, RowsOutsideTheSegmentsAndTheArenaAreLeftAlone) {
  Batch b = make_batch({{"batch", kOracle}, {2, 1, 8}, {{5}, {6}, {3, 1}}});
  b.segments.erase(b.segments.begin());
  b.segments[1].parent = 0;
  const Gradients g = run_backward({}, b);
  for (size_t i = 0; i < 5 * 16; ++i) EXPECT_EQ(g.dq[i], 7.0f);
  for (size_t i = 0; i < 5 * 8; ++i) EXPECT_TRUE(g.dk[i] == 7.0f && g.dv[i] == 7.0f);
  b.segments.clear();
  const Gradients none = run_backward({.threads = 2}, b);
  for (const float x : none.dq) EXPECT_EQ(x, 7.0f);
}

TEST_F(AttentionBackwardTest, BadInputIsNamed) {
  const Batch good = make_batch({{"batch", kOracle}, {2, 1, 4}, {{4}, {3, 0}}});
  const auto with = [&](const std::vector<AttentionSegment>& segments) {
    Batch b = good;
    b.segments = segments;
    run_backward({}, b);
  };
  EXPECT_THAT(
      [&] {
        with({{0, 8, 0, -1}});
      },
      ThrowsMessage<Error>(HasSubstr("not inside the batch of 7")));
  EXPECT_THAT(
      [&] {
        with({{0, -1, 0, -1}});
      },
      ThrowsMessage<Error>(HasSubstr("not inside the batch")));
  EXPECT_THAT(
      [&] {
        with({{0, 4, 1, -1}});
      },
      ThrowsMessage<Error>(HasSubstr("position 1, but its parent ends at 0")));
  EXPECT_THAT(
      [&] {
        with({{0, 4, 0, -1}, {4, 3, 3, 0}});
      },
      ThrowsMessage<Error>(HasSubstr("its parent ends at 4")));
  EXPECT_THAT(
      [&] {
        with({{0, 4, 0, 0}});
      },
      ThrowsMessage<Error>(HasSubstr("parent 0 does not precede it")));
  EXPECT_THAT([&] { with({{0, 4, 0, -2}}); }, ThrowsMessage<Error>(HasSubstr("parent -2")));
  EXPECT_THAT(
      [&] {
        with({{0, 4, 0, -1}, {3, 1, 0, -1}});
      },
      ThrowsMessage<Error>(HasSubstr("0 and 1 share rows")));
  Batch b = good;
  b.shape.kv_heads = 0;
  EXPECT_THAT([&] { run_backward({}, b); },
              ThrowsMessage<Error>(HasSubstr("2 query heads cannot share 0 kv heads")));
}

}  // namespace
}  // namespace orrery::kernels
