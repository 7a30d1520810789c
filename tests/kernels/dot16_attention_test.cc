// Attention in the class dot16-rz25 (cpu-dot16), bit for bit against plain loops.
// Pools are NaN wherever nothing was written.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/numerics.h"
#include "tests/kernels/attention_pairs_oracle.h"
#include "tests/kernels/dot16_attention_oracle.h"

namespace orrery::kernels {
namespace {

using namespace attention_test;  // NOLINT(google-build-using-namespace)
using namespace cases;           // NOLINT(google-build-using-namespace)
using Tables = std::vector<std::vector<int32_t>>;

Context dot16_context(int threads = 1) {
  return {.device = {DeviceType::kCpu, 0, Bf16Sums::kDot16}, .threads = threads};
}

class Dot16Attention : public testing::Test {
 protected:
  void TearDown() override { set_cpu_target("best"); }
};

template <class Body>
void on_every_target(Body&& body) {
  for (const std::string& target : supported_cpu_targets()) {
    SCOPED_TRACE(target);
    set_cpu_target(target);
    body();
  }
}

/// The first index at which the bits differ, a NaN being equal to any other; or -1.
int64_t difference(const Floats& a, const Floats& b) {
  if (a.size() != b.size()) return 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const bool same = std::isnan(a[i])
                          ? std::isnan(b[i])
                          : std::bit_cast<uint32_t>(a[i]) == std::bit_cast<uint32_t>(b[i]);
    if (!same) return static_cast<int64_t>(i);
  }
  return -1;
}

void expect_same(const Result& r, const Result& expected) {
  EXPECT_EQ(difference(r.out, expected.out), -1);
  EXPECT_EQ(difference(r.lse, expected.lse), -1);
}

Pool nan_pool(const AttentionShape& shape, int64_t blocks, uint32_t seed = 1) {
  return Pool(shape, blocks, seed, DType::kBF16);
}

float scale_of(const AttentionShape& shape) {
  return 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
}

void append(Result& all, const Result& r) {
  all.out.insert(all.out.end(), r.out.begin(), r.out.end());
  all.lse.insert(all.lse.end(), r.lse.begin(), r.lse.end());
}

/// Runs the chunks as one batch, what is before them in one of its own.
void expect_case(const AttentionShape& shape, const std::vector<Sequence>& sequences,
                 const std::vector<Chunk>& chunks) {
  const Result expected = dot16_expected(shape, sequences, chunks, scale_of(shape));
  int64_t blocks = 1;
  for (const Chunk& chunk : chunks) blocks += chunk.end / kKvBlock + 1;
  on_every_target([&] {
    for (const int threads : {1, 3}) {
      const Context ctx = dot16_context(threads);
      Pool pool = nan_pool(shape, blocks, static_cast<uint32_t>(threads));
      Tables tables;
      for (const Chunk& chunk : chunks) {
        tables.push_back(pool.take(chunk.end));
        if (chunk.begin > 0) {
          // In one row's chunks where it is cheap: the outputs are not looked at.
          run_pairs_chunks({}, shape, sequences, tables, pool, {{chunk.sequence, 0, chunk.begin}},
                           1.0f);
        }
      }
      expect_same(run_pairs_chunks(ctx, shape, sequences, tables, pool, chunks, scale_of(shape)),
                  expected);
    }
  });
}

TEST_F(Dot16Attention, BitsOfTheContract) {
  for (const AttentionCase& c : cases_for(kAttentionCases, kOracle)) {
    SCOPED_TRACE(c.name);
    std::mt19937 rng(7);
    std::vector<Sequence> sequences;
    std::vector<Chunk> chunks;
    for (const auto& [begin, end] : c.spans) {
      chunks.push_back({sequences.size(), begin, end});
      sequences.push_back(random_pairs_sequence(rng, c.shape, end, c.size));
    }
    expect_case(c.shape, sequences, chunks);
  }
}

TEST_F(Dot16Attention, EveryGroupAndHeadDimOverTilesOfKeys) {
  for (const AttentionShape& shape :
       {AttentionShape{2, 2, 8}, {6, 2, 48}, {7, 1, 64}, {3, 1, 128}}) {
    SCOPED_TRACE(shape.head_dim);
    std::mt19937 rng(11);
    std::vector<Sequence> sequences;
    for (const int64_t length : {131, 257, 66, 128})
      sequences.push_back(random_pairs_sequence(rng, shape, length));
    expect_case(shape, sequences, {{0, 0, 131}, {1, 256, 257}, {2, 31, 66}, {3, 127, 128}});
  }
}

TEST_F(Dot16Attention, SplitsAreMerged) {
  const AttentionShape shape{3, 1, 8};
  std::mt19937 rng(13);
  // Scores of either sign and of very different sizes: either side of a merge may have
  // the larger maximum, and the other one may vanish.
  const std::vector<Sequence> sequences{random_pairs_sequence(rng, shape, 1100, 2.0f),
                                        random_pairs_sequence(rng, shape, 1026, 4.0f),
                                        random_pairs_sequence(rng, shape, 2060, 6.0f)};
  expect_case(shape, sequences, {{0, 1010, 1100}, {1, 1023, 1026}, {2, 2040, 2060}});
}

TEST_F(Dot16Attention, AnyCutOfAPromptGivesTheSameBits) {
  const AttentionShape shape{6, 2, 16};
  const int64_t length = 1100;
  std::mt19937 rng(11);
  const std::vector<Sequence> sequences{random_pairs_sequence(rng, shape, length)};
  const std::vector<std::vector<int64_t>> all_cuts{
      {1100}, {1, 127, 128, 129, 1000, 1023, 1024, 1025, 1100}, {500, 1099, 1100}};
  Result whole;
  for (const auto& cuts : all_cuts) {
    Pool pool = nan_pool(shape, 40, static_cast<uint32_t>(cuts.size()));
    const Tables tables{pool.take(length)};
    Result all;
    int64_t begin = 0;
    for (const int64_t end : cuts) {
      append(all, run_pairs_chunks(dot16_context(2), shape, sequences, tables, pool,
                                   {{0, begin, end}}, 0.25f));
      begin = end;
    }
    if (whole.out.empty()) {
      whole = all;
      const Result last = dot16_expected(shape, sequences, {{0, 1020, 1030}}, 0.25f);
      const auto from = all.out.begin() + 1020 * 96;
      EXPECT_EQ(difference(Floats(from, from + 10 * 96), last.out), -1);
    }
    expect_same(all, whole);
  }
}

/// Consecutive sequences of one row that begin with the same blocks.
TEST_F(Dot16Attention, SamplesOfAPromptDecodeTogether) {
  const AttentionShape shape{6, 2, 24};
  constexpr int64_t kPrompt = 150;
  std::mt19937 rng(23);
  std::vector<Sequence> sequences;
  std::vector<Chunk> chunks;
  for (const int64_t length : {int64_t{151}, int64_t{200}, int64_t{170}, int64_t{290}}) {
    Sequence s = random_pairs_sequence(rng, shape, length);
    if (!sequences.empty()) {
      const int64_t kv = kPrompt * shape.kv_heads * shape.head_dim;
      std::copy_n(sequences[0].k.begin(), kv, s.k.begin());
      std::copy_n(sequences[0].v.begin(), kv, s.v.begin());
    }
    chunks.push_back({sequences.size(), length - 1, length});
    sequences.push_back(std::move(s));
  }
  const Result expected = dot16_expected(shape, sequences, chunks, 0.3f);
  Pool pool = nan_pool(shape, 60);
  Tables tables;
  for (size_t i = 0; i < sequences.size(); ++i) {
    tables.push_back(pool.take(sequences[i].length));
    if (i == 0) {
      run_pairs_chunks({}, shape, sequences, tables, pool, {{0, 0, kPrompt}}, 1.0f);
    } else {
      std::copy_n(tables[0].begin(), kPrompt / kKvBlock, tables[i].begin());
      copy_slots(pool, tables[0][kPrompt / kKvBlock], tables[i][kPrompt / kKvBlock],
                 kPrompt % kKvBlock, true);
    }
  }
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (kPrompt < chunks[i].begin)
      run_pairs_chunks({}, shape, sequences, tables, pool, {{i, kPrompt, chunks[i].begin}}, 1.0f);
  }
  for (const int threads : {1, 3}) {
    expect_same(
        run_pairs_chunks(dot16_context(threads), shape, sequences, tables, pool, chunks, 0.3f),
        expected);
  }
}

TEST_F(Dot16Attention, NumbersThatAreNotFiniteGoWhereTilesTakeThem) {
  const AttentionShape shape{2, 1, 16};
  std::mt19937 rng(17);
  Sequence values = random_pairs_sequence(rng, shape, 200);
  values.v[150 * 16 + 3] = std::numeric_limits<float>::infinity();
  Sequence keys = random_pairs_sequence(rng, shape, 200);
  keys.k[30 * 16] = std::numeric_limits<float>::quiet_NaN();
  keys.k[140 * 16] = std::numeric_limits<float>::infinity();
  expect_case(shape, {values, keys}, {{0, 0, 200}, {1, 0, 200}});
  const Result r = dot16_expected(shape, {values}, {{0, 100, 140}}, 0.25f);
  EXPECT_TRUE(std::isfinite(r.out[27 * 32 + 3])) << "position 127 is of another tile";
}

TEST_F(Dot16Attention, LseMayBeLeftOut) {
  const AttentionShape shape{4, 2, 16};
  std::mt19937 rng(19);
  const std::vector<Sequence> sequences{random_pairs_sequence(rng, shape, 140)};
  const Context ctx = dot16_context();
  Pool pool = nan_pool(shape, 5);
  const Tables tables{pool.take(140)};
  const Result r = run_pairs_chunks(ctx, shape, sequences, tables, pool, {{0, 0, 140}}, 0.25f);
  Arena arena(ctx.device);
  const std::vector<KvSegment> segments{{0, 140, 0, tables[0]}};
  const AttentionPlan plan =
      make_attention_plan(ctx, shape, 140, pool.view().blocks, segments, arena);
  const std::vector<Bf16> q = as_bf16(sequences[0].q);
  std::vector<Bf16> out(q.size());
  attention_forward(ctx, {.out = Mat<Bf16>(out.data(), 140, 64),
                          .q = Mat<const Bf16>(q.data(), 140, 64),
                          .pool = pool.view(),
                          .plan = plan,
                          .scale = 0.25f});
  EXPECT_EQ(difference(as_floats(out), r.out), -1);
}

TEST_F(Dot16Attention, CloseToSoftmaxInDouble) {
  const AttentionShape shape{6, 2, 64};
  std::mt19937 rng(17);
  const std::vector<Sequence> sequences{random_pairs_sequence(rng, shape, 150)};
  Pool pool = nan_pool(shape, 5);
  const Result r = run_pairs_chunks(dot16_context(), shape, sequences, {pool.take(150)}, pool,
                                    {{0, 0, 150}}, 0.125f);
  std::vector<double> out(64);
  for (int64_t row = 0; row < 150; ++row) {
    for (int64_t head = 0; head < 6; ++head) {
      const double lse = exact_row(shape, sequences[0], row, head, 0.125, out.data());
      const size_t at = static_cast<size_t>(row * 6 + head);
      ASSERT_NEAR(r.lse[at], lse * std::numbers::log2e, 1e-5);
      for (size_t d = 0; d < 64; ++d) ASSERT_NEAR(r.out[at * 64 + d], out[d], 1.0 / 256);
    }
  }
}

}  // namespace
}  // namespace orrery::kernels
