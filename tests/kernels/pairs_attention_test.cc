// The forward of attention and its pool in bf16, bit for bit against plain loops, by
// every way in which products are computed. Pools are NaN wherever nothing was written.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/attention.h"
#include "kernels/cpu/kv_pool.h"
#include "kernels/numerics.h"
#include "tests/kernels/attention_pairs_oracle.h"

namespace orrery::kernels {
namespace {

using namespace attention_test;  // NOLINT(google-build-using-namespace)
using namespace cases;           // NOLINT(google-build-using-namespace)
using Tables = std::vector<std::vector<int32_t>>;

class PairsAttention : public testing::Test {
 protected:
  void TearDown() override { set_cpu_target("best"); }
};

/// Runs body() by every way in which products are computed.
template <class Body>
void on_every_pairs_target(Body&& body) {
  for (const std::string& target : supported_pairs_targets()) {
    SCOPED_TRACE(target);
    set_cpu_target(target);
    body();
  }
}

void expect_same(const Result& r, const Result& expected) {
  EXPECT_EQ(first_difference(r.out, expected.out), -1);
  EXPECT_EQ(first_difference(r.lse, expected.lse), -1);
}

Pool pairs_pool(const AttentionShape& shape, int64_t blocks, uint32_t seed = 1) {
  return Pool(shape, blocks, seed, DType::kBF16);
}

float scale_of(const AttentionShape& shape) {
  return 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
}

void append(Result& all, const Result& r) {
  all.out.insert(all.out.end(), r.out.begin(), r.out.end());
  all.lse.insert(all.lse.end(), r.lse.begin(), r.lse.end());
}

/// Runs a case's spans as one batch, what is before them in one of its own.
void expect_case(const AttentionShape& shape, const std::vector<Sequence>& sequences,
                 const std::vector<Chunk>& chunks) {
  const Result expected = expected_chunks(shape, sequences, chunks, scale_of(shape));
  on_every_pairs_target([&] {
    for (int threads = 1; threads <= 3; ++threads) {
      const Context ctx{.threads = threads};
      Pool pool = pairs_pool(shape, 40, static_cast<uint32_t>(threads));
      Tables tables;
      std::vector<Chunk> before;
      for (const Chunk& chunk : chunks) {
        tables.push_back(pool.take(chunk.end));
        if (chunk.begin > 0) before.push_back({chunk.sequence, 0, chunk.begin});
      }
      run_pairs_chunks(ctx, shape, sequences, tables, pool, before, 1.0f);
      expect_same(run_pairs_chunks(ctx, shape, sequences, tables, pool, chunks, scale_of(shape)),
                  expected);
    }
  });
}

TEST_F(PairsAttention, BitsOfTheHeadersArithmetic) {
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

TEST_F(PairsAttention, EveryGroupSize) {
  for (int64_t group = 1; group <= 8; ++group) {
    SCOPED_TRACE(group);
    const AttentionShape shape{2 * group, 2, group % 2 == 0 ? 17 : 64};
    std::mt19937 rng(11);
    std::vector<Sequence> sequences;
    for (const int64_t length : {41, 290, 66})
      sequences.push_back(random_pairs_sequence(rng, shape, length));
    expect_case(shape, sequences, {{0, 0, 41}, {1, 289, 290}, {2, 31, 66}});
  }
}

/// A float with a random sign and fraction, whose exponent's bits are in [low, high].
float random_near(std::mt19937& rng, uint32_t low, uint32_t high) {
  const auto random = static_cast<uint32_t>(rng());
  return std::bit_cast<float>((random & 0x807F0000u) | (low + (random >> 8) % (high - low + 1))
                                                           << 23);
}

TEST_F(PairsAttention, TinyNumbersAreFlushed) {
  const AttentionShape shape{6, 2, 40};
  std::mt19937 rng(13);
  // Values near the smallest normal number: their products with p, and o times c, are
  // tiny. Scores rise along the sequence, so that c is not 1.
  Sequence values = random_pairs_sequence(rng, shape, 140, 4.0f);
  for (float& x : values.v) x = random_near(rng, 0, 6);
  // Queries and keys whose products are tiny, scaled up again.
  Sequence scores = random_pairs_sequence(rng, shape, 140);
  for (float& x : scores.q) x = random_near(rng, 60, 67);
  for (float& x : scores.k) x = random_near(rng, 56, 67);
  // Subnormal factors that large ones meet.
  Sequence subnormal = random_pairs_sequence(rng, shape, 140);
  for (float& x : subnormal.q) x = random_near(rng, 250, 253);
  for (float& x : subnormal.k) x = random_near(rng, 0, 2);
  expect_case(shape, {values, scores, subnormal}, {{0, 0, 140}, {1, 0, 140}, {2, 60, 140}});
  const Result r = expected_chunks(shape, {values, scores}, {{0, 100, 140}}, scale_of(shape));
  EXPECT_TRUE(std::ranges::any_of(r.out, [](float x) { return x == 0; })) << "nothing was tiny";
}

/// Outputs that c takes just below the smallest normal number, so that rounding
/// brings them back to it: they are not tiny, though Arm's flush takes them for it.
TEST_F(PairsAttention, OutputsThatRoundUpToTheSmallestNormalStay) {
  const AttentionShape shape{8, 8, 16};
  constexpr int64_t kRow = 8 * 16;
  Sequence s{33, Floats(33 * kRow), Floats(33 * kRow), Floats(33 * kRow)};
  for (int64_t head = 0; head < 8; ++head) {
    const int64_t at = head * 16;
    const auto key = [&](int64_t j, float score) { s.k[j * kRow + at] = 4.0f * score; };
    for (int64_t j = 0; j < 33; ++j) {
      s.q[j * kRow + at] = 1.0f;
      key(j, j < 3 ? 0.0f : -200.0f);
    }
    const float rise = 28.0f + 0.25f * static_cast<float>(head);
    key(32, rise);
    // The first tile's output is the sum of the values of its first three keys: a float
    // cut in three. It is the largest whose product with c is below 2^-126, or less.
    const double quotient = 0x1p-126 / static_cast<double>(exp_f32(-rise));
    for (int64_t d = 0; d < 16; ++d) {
      float rest = static_cast<float>(quotient);
      if (static_cast<double>(rest) >= quotient) rest = std::nextafter(rest, 0.0f);
      for (int64_t below = 0; below < d / 4; ++below) rest = std::nextafter(rest, 0.0f);
      for (const int64_t j : {0, 2, 1}) {
        float& piece = s.v[j * kRow + at + d];
        piece = std::bit_cast<float>(std::bit_cast<uint32_t>(rest) & 0xFFFF0000u);
        rest -= piece;
      }
      ASSERT_EQ(rest, 0.0f);
    }
  }
  expect_case(shape, {s}, {{0, 0, 33}});
  const Result r = expected_chunks(shape, {s}, {{0, 32, 33}}, 0.25f);
  EXPECT_TRUE(std::ranges::any_of(r.out, [](float x) { return x == 0x1p-126f; }));
  EXPECT_TRUE(std::ranges::any_of(r.out, [](float x) { return x == 0.0f; }));
}

TEST_F(PairsAttention, CloseToSoftmaxInDouble) {
  const AttentionShape shape{6, 2, 64};
  std::mt19937 rng(17);
  const std::vector<Sequence> sequences{random_pairs_sequence(rng, shape, 150)};
  Pool pool = pairs_pool(shape, 5);
  const Result r =
      run_pairs_chunks({}, shape, sequences, {pool.take(150)}, pool, {{0, 0, 150}}, 0.125f);
  std::vector<double> out(64);
  for (int64_t row = 0; row < 150; ++row) {
    for (int64_t head = 0; head < 6; ++head) {
      const double lse = exact_row(shape, sequences[0], row, head, 0.125, out.data());
      const size_t at = static_cast<size_t>(row * 6 + head);
      ASSERT_NEAR(r.lse[at], lse, 1e-5);
      for (size_t d = 0; d < 64; ++d) ASSERT_NEAR(r.out[at * 64 + d], out[d], 1.0 / 256);
    }
  }
}

TEST_F(PairsAttention, AnyCutOfASequenceGivesTheSameBits) {
  const AttentionShape shape{6, 2, 33};
  const int64_t length = 101;
  std::mt19937 rng(11);
  const std::vector<Sequence> sequences{random_pairs_sequence(rng, shape, length)};
  const Result whole = expected_chunks(shape, sequences, {{0, 0, length}}, 0.2f);
  std::vector<int64_t> one_by_one(static_cast<size_t>(length));
  std::iota(one_by_one.begin(), one_by_one.end(), 1);
  const std::vector<std::vector<int64_t>> all_cuts{
      one_by_one, {1, 64, 65, 101}, {31, 32, 33, 99, 101}, {50, 101}, {101}};
  on_every_pairs_target([&] {
    uint32_t seed = 2;
    for (const auto& cuts : all_cuts) {
      Pool pool = pairs_pool(shape, 9, seed++);
      const Tables tables{pool.take(length)};
      Result all;
      int64_t begin = 0;
      for (const int64_t end : cuts) {
        append(all, run_pairs_chunks({.threads = 2}, shape, sequences, tables, pool,
                                     {{0, begin, end}}, 0.2f));
        begin = end;
      }
      expect_same(all, whole);
    }
  });
}

/// Samples of prompts that decode side by side read shared blocks once; each has its
/// own copy of the prompt's last block, whose other slots the copy clears.
TEST_F(PairsAttention, SamplesOfAPromptDecodeTogether) {
  struct Group {
    int64_t prompt;
    std::vector<int64_t> lengths;  ///< of the samples, prompt included
  };
  std::vector<int64_t> many;
  for (int64_t i = 0; i < 21; ++i) many.push_back(71 + i * 13 % 150);
  const std::vector<Group> groups{
      {70, many}, {20, {40, 41, 60}}, {64, {65, 66, 65}}, {300, {301, 340}}, {31, {96}}};
  for (const AttentionShape& shape :
       {AttentionShape{9, 3, 64}, {6, 6, 48}, {6, 1, 20}, {5, 1, 8}, {7, 1, 16}, {2, 2, 300}}) {
    SCOPED_TRACE(shape.head_dim);
    std::mt19937 rng(23);
    std::vector<Sequence> sequences;
    std::vector<Chunk> chunks;
    for (const Group& group : groups) {
      const size_t first = sequences.size();
      for (const int64_t length : group.lengths) {
        Sequence s = random_pairs_sequence(rng, shape, length);
        const int64_t kv = group.prompt * shape.kv_heads * shape.head_dim;
        if (sequences.size() > first) {
          std::copy_n(sequences[first].k.begin(), kv, s.k.begin());
          std::copy_n(sequences[first].v.begin(), kv, s.v.begin());
        }
        sequences.push_back(std::move(s));
        chunks.push_back({sequences.size() - 1, length - 1, length});
      }
    }
    chunks[22].begin = 30;  // not one row: prefill between decoding sequences
    const Result expected = expected_chunks(shape, sequences, chunks, 0.3f);
    on_every_pairs_target([&] {
      Pool pool = pairs_pool(shape, 400);
      Tables tables;
      for (const Group& group : groups) {
        const size_t first = tables.size();
        for (const int64_t length : group.lengths) {
          const size_t i = tables.size();
          const int64_t shared = group.prompt / kKvBlock;
          tables.push_back(pool.take(length));
          if (i == first) {
            run_pairs_chunks({}, shape, sequences, tables, pool, {{i, 0, group.prompt}}, 1.0f);
          } else {
            std::copy_n(tables[first].begin(), shared, tables[i].begin());
            copy_slots(pool, tables[first][shared], tables[i][shared], group.prompt % kKvBlock,
                       true);
          }
        }
        for (size_t i = first; i < tables.size(); ++i) {
          if (group.prompt < chunks[i].begin)
            run_pairs_chunks({}, shape, sequences, tables, pool,
                             {{i, group.prompt, chunks[i].begin}}, 1.0f);
        }
      }
      for (const int threads : {1, 2, 5}) {
        expect_same(
            run_pairs_chunks({.threads = threads}, shape, sequences, tables, pool, chunks, 0.3f),
            expected);
      }
    });
  }
}

TEST_F(PairsAttention, LaterTokensAndOtherSequencesChangeNothing) {
  // Values after row 10 are large, of either sign; another sequence is NaN throughout,
  // and from row 64 on this one, too.
  const AttentionShape shape{4, 1, 16};
  std::mt19937 rng(17);
  std::vector<Sequence> sequences{random_pairs_sequence(rng, shape, 100),
                                  random_pairs_sequence(rng, shape, 40)};
  const Result expected = expected_chunks(shape, sequences, {{0, 0, 11}}, 0.25f);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (int64_t i = 11 * 16; i < 100 * 16; ++i) {
    const bool last = i >= 64 * 16;
    if (last) sequences[0].k[i] = nan;
    sequences[0].v[i] = last ? nan : random_near(rng, 240, 245);
  }
  for (Floats Sequence::*x : {&Sequence::q, &Sequence::k, &Sequence::v})
    std::ranges::fill(sequences[1].*x, nan);
  on_every_pairs_target([&] {
    Pool pool = pairs_pool(shape, 6);
    const Tables tables{pool.take(100), pool.take(40)};
    const Result r =
        run_pairs_chunks({}, shape, sequences, tables, pool, {{1, 0, 40}, {0, 0, 100}}, 0.25f);
    EXPECT_EQ(first_difference(std::span(r.out).subspan(40 * 64, 11 * 64), expected.out), -1);
    EXPECT_EQ(first_difference(std::span(r.lse).subspan(40 * 4, 11 * 4), expected.lse), -1);
    for (int64_t row = 0; row < 140; ++row) {
      const bool nans = row < 40 || row >= 40 + 64;
      for (int64_t x = 0; x < 64; ++x)
        EXPECT_EQ(std::isnan(r.out[row * 64 + x]), nans) << "row " << row;
    }
  });
}

TEST_F(PairsAttention, MinusZeroBecomesZero) {
  // o is -0 where all that entered it was flushed to -0.
  const AttentionShape shape{1, 1, 16};
  std::mt19937 rng(3);
  Sequence s = random_pairs_sequence(rng, shape, 3);
  std::ranges::fill(s.v, -1e-39f);
  on_every_pairs_target([&] {
    Pool pool = pairs_pool(shape, 1);
    const Result r = run_pairs_chunks({}, shape, {s}, {pool.take(3)}, pool, {{0, 0, 3}}, 1.0f);
    for (const float x : r.out) EXPECT_EQ(std::bit_cast<uint32_t>(x), 0u);
  });
}

/// What a slot of a bf16 pool holds: head_dim elements of key and of value, then the
/// padding of both.
Floats slot_of(const KvPool& pool, int64_t block, int64_t head, int64_t slot) {
  const int64_t slab = block * pool.kv_heads + head;
  const Bf16* k = cpu::keys<Bf16>(pool) + slab * cpu::key_elements(DType::kBF16, pool.head_dim);
  const Bf16* v = cpu::values<Bf16>(pool) + slab * cpu::value_elements(DType::kBF16, pool.head_dim);
  const auto key = [&](int64_t d) { return to_f32(k[d / 2 * 64 + slot * 2 + d % 2]); };
  const int64_t columns = cpu::value_columns(pool.head_dim);
  const auto value = [&](int64_t d) {
    return to_f32(v[slot / 2 * 2 * columns + 2 * d + slot % 2]);
  };
  Floats all;
  for (int64_t d = 0; d < pool.head_dim; ++d) all.push_back(key(d));
  for (int64_t d = 0; d < pool.head_dim; ++d) all.push_back(value(d));
  for (int64_t d = pool.head_dim; d < 2 * cpu::key_pairs(pool.head_dim); ++d) all.push_back(key(d));
  for (int64_t d = pool.head_dim; d < columns; ++d) all.push_back(value(d));
  return all;
}

/// The same of a token whose keys and values are `of`'s, or of an empty slot.
Floats slot_of(const AttentionShape& shape, const Sequence& of, int64_t token, int64_t head) {
  const int64_t hd = shape.head_dim, at = (token * shape.kv_heads + head) * hd;
  Floats all(of.k.begin() + at, of.k.begin() + at + hd);
  all.insert(all.end(), of.v.begin() + at, of.v.begin() + at + hd);
  return all;
}

/// Slots [0, written) of block 0 hold the sequence, those behind it zeros.
void expect_block(const Pool& pool, int32_t block, const AttentionShape& shape, const Sequence& s,
                  int64_t written) {
  for (int64_t head = 0; head < shape.kv_heads; ++head) {
    for (int64_t slot = 0; slot < kKvBlock; ++slot) {
      const Floats got = slot_of(pool.view(), block, head, slot);
      Floats expected = slot < written ? slot_of(shape, s, slot, head) : Floats();
      expected.resize(got.size());
      EXPECT_EQ(first_difference(got, expected), -1)
          << "head_dim " << shape.head_dim << ", head " << head << ", slot " << slot;
    }
  }
}

constexpr AttentionShape kPoolShapes[] = {{2, 2, 1},  {2, 2, 2},  {3, 3, 7},  {2, 1, 16},
                                          {2, 2, 48}, {1, 1, 64}, {2, 1, 75}, {1, 1, 300}};

TEST_F(PairsAttention, WritingZeroesWhatIsNotWritten) {
  for (const AttentionShape& shape : kPoolShapes) {
    std::mt19937 rng(29);
    const std::vector<Sequence> sequences{random_pairs_sequence(rng, shape, kKvBlock)};
    on_every_pairs_target([&] {
      for (const std::vector<int64_t>& cuts :
           {std::vector<int64_t>{1, 2, 3, 4, 9, 32}, {5, 6, 11}, {32}, {8, 13, 14, 31}, {1, 20}}) {
        Pool pool = pairs_pool(shape, 1);
        const Tables tables{pool.take(kKvBlock)};
        int64_t begin = 0;
        for (const int64_t end : cuts) {
          run_pairs_chunks({}, shape, sequences, tables, pool, {{0, begin, end}}, 1.0f);
          expect_block(pool, 0, shape, sequences[0], begin = end);
        }
      }
    });
  }
}

TEST_F(PairsAttention, WritingASlotAgainKeepsTheOthers) {
  const AttentionShape shape{2, 2, 20};
  std::mt19937 rng(31);
  std::vector<Sequence> sequences{random_pairs_sequence(rng, shape, kKvBlock)};
  Sequence other = random_pairs_sequence(rng, shape, kKvBlock);
  on_every_pairs_target([&] {
    for (const int64_t slot : {6, 7}) {
      Pool pool = pairs_pool(shape, 1);
      const Tables tables{pool.take(kKvBlock)};
      run_pairs_chunks({}, shape, sequences, tables, pool, {{0, 0, 30}}, 1.0f);
      run_pairs_chunks({}, shape, {other}, tables, pool, {{0, slot, slot + 1}}, 1.0f);
      Sequence expected = sequences[0];
      for (Floats Sequence::*x : {&Sequence::k, &Sequence::v})
        std::copy_n((other.*x).begin() + slot * 40, 40, (expected.*x).begin() + slot * 40);
      expect_block(pool, 0, shape, expected, 30);
    }
  });
}

TEST_F(PairsAttention, KvCopyTakesOnlyTheFirstSlots) {
  for (const AttentionShape& shape : kPoolShapes) {
    std::mt19937 rng(37);
    const std::vector<Sequence> sequences{random_pairs_sequence(rng, shape, kKvBlock)};
    for (const int64_t count : {0, 1, 2, 13, 28, 32}) {
      Pool pool = pairs_pool(shape, 3);
      const int32_t from = pool.take(1)[0], to = pool.take(1)[0], kept = pool.take(1)[0];
      run_pairs_chunks({}, shape, sequences, {{from}}, pool, {{0, 0, kKvBlock}}, 1.0f);
      copy_slots(pool, from, to, count, true);
      expect_block(pool, to, shape, sequences[0], count);
      copy_slots(pool, from, kept, count);
      for (int64_t slot = 0; slot < kKvBlock; ++slot) {
        const Floats got = slot_of(pool.view(), kept, 0, slot);
        if (slot < count) {
          EXPECT_EQ(first_difference(got, slot_of(pool.view(), from, 0, slot)), -1);
        } else {
          EXPECT_TRUE(std::ranges::all_of(got, [](float x) { return std::isnan(x); }));
        }
      }
      copy_slots(pool, from, from, count, true);
      expect_block(pool, from, shape, sequences[0], count);
    }
  }
}

TEST_F(PairsAttention, ClearZeroesThePool) {
  const AttentionShape shape{3, 3, 37};
  const Pool pool = pairs_pool(shape, 5);
  kv_clear({.threads = 2}, {.pool = pool.view()});
  const Sequence none;
  for (int32_t block = 0; block < 5; ++block) expect_block(pool, block, shape, none, 0);
}

TEST_F(PairsAttention, OtherElementTypesAreNamed) {
  const AttentionShape shape{1, 1, 16};
  Pool pool = pairs_pool(shape, 1);
  const std::vector<int32_t> table = pool.take(1);
  const std::vector<KvSegment> segments{{0, 1, 0, table}};
  Arena arena;
  const AttentionPlan plan = make_attention_plan({}, shape, 1, 1, segments, arena);
  Floats x(16);
  const Mat<float> m(x.data(), 1, 16);
  EXPECT_THROW(kv_write({}, {.pool = pool.view(), .k = m, .v = m, .plan = plan}), Error);
  EXPECT_THROW(
      attention_forward({}, {.out = m, .lse = {}, .q = m, .pool = pool.view(), .plan = plan}),
      Error);
}

}  // namespace
}  // namespace orrery::kernels
