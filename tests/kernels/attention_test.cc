#include "kernels/attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/cuda_api.h"
#include "core/error.h"
#include "kernels/cpu/kv_pool.h"
#include "kernels/numerics.h"
#include "tests/kernels/attention_oracle.h"

namespace orrery::kernels {
namespace {

using namespace attention_test;  // NOLINT(google-build-using-namespace)
using namespace cases;           // NOLINT(google-build-using-namespace)
using testing::HasSubstr;
using testing::ThrowsMessage;

struct Scene {
  std::vector<Sequence> sequences;
  std::vector<Chunk> chunks;
  std::vector<std::vector<int32_t>> tables;
  Pool pool;
  float scale;
};

/// Everything before the chunks written, the rest of the pool NaN.
Scene make_scene(const AttentionCase& c, const Context& ctx, uint32_t pool_seed = 1) {
  std::mt19937 rng(7);
  Scene s{{},
          {},
          {},
          Pool(c.shape, 40, pool_seed),
          1.0f / std::sqrt(static_cast<float>(c.shape.head_dim))};
  for (const auto& [begin, end] : c.spans) {
    s.chunks.push_back({s.sequences.size(), begin, end});
    s.sequences.push_back(random_sequence(rng, c.shape, end, c.size));
    s.tables.push_back(s.pool.take(end));
    if (begin > 0)
      run_chunks(ctx, c.shape, s.sequences, s.tables, s.pool, {{s.sequences.size() - 1, 0, begin}},
                 s.scale);
  }
  return s;
}

class AttentionTest : public testing::Test {
 protected:
  void TearDown() override { set_cpu_target("best"); }
};

TEST_F(AttentionTest, BitsOfTheHeadersArithmetic) {
  for (const AttentionCase& c : cases_for(kAttentionCases, kOracle)) {
    SCOPED_TRACE(c.name);
    const AttentionShape& shape = c.shape;
    const Scene given = make_scene(c, {});
    Result expected;
    for (const Chunk& chunk : given.chunks) {
      for (int64_t row = chunk.begin; row < chunk.end; ++row) {
        for (int64_t head = 0; head < shape.heads; ++head) {
          Floats out(static_cast<size_t>(shape.head_dim));
          expected.lse.push_back(forward_row(shape, given.sequences[chunk.sequence], row, head,
                                             given.scale, out.data()));
          expected.out.insert(expected.out.end(), out.begin(), out.end());
        }
      }
    }
    for (const std::string& target : supported_cpu_targets()) {
      set_cpu_target(target);
      for (int threads = 1; threads <= 3; ++threads) {
        const Context ctx{.threads = threads};
        Scene s = make_scene(c, ctx, static_cast<uint32_t>(threads));
        const Result r = run_chunks(ctx, shape, s.sequences, s.tables, s.pool, s.chunks, s.scale);
        EXPECT_EQ(first_difference(r.out, expected.out), -1)
            << target << " head_dim " << shape.head_dim;
        EXPECT_EQ(first_difference(r.lse, expected.lse), -1)
            << target << " head_dim " << shape.head_dim;
      }
    }
  }
}

TEST_F(AttentionTest, CloseToSoftmaxInDouble) {
  for (const AttentionCase& c : cases_for(kAttentionCases, kOracle)) {
    SCOPED_TRACE(c.name);
    const AttentionShape& shape = c.shape;
    const Scene s = make_scene(c, {});
    const Result r = run_chunks({}, shape, s.sequences, s.tables, s.pool, s.chunks, s.scale);
    // Rounding of a score is relative to the sum of its terms' sizes, and moves p by as
    // much.
    const double top =
        static_cast<double>(c.size) * c.size * static_cast<double>(shape.head_dim) * s.scale;
    const double tolerance = 1e-6 + 2e-7 * top;
    std::vector<double> out(static_cast<size_t>(shape.head_dim));
    size_t i = 0, at = 0;
    for (const Chunk& chunk : s.chunks) {
      for (int64_t row = chunk.begin; row < chunk.end; ++row) {
        for (int64_t head = 0; head < shape.heads; ++head, ++i) {
          const double lse =
              exact_row(shape, s.sequences[chunk.sequence], row, head, s.scale, out.data());
          ASSERT_NEAR(r.lse[i], lse, tolerance + 3e-7 * std::abs(lse))
              << "head_dim " << shape.head_dim;
          for (const double x : out)
            ASSERT_NEAR(r.out[at++], x, tolerance) << "head_dim " << shape.head_dim;
        }
      }
    }
  }
}

TEST_F(AttentionTest, LargeScoresStayFinite) {
  // Scores of +-1e4, rising and falling along the sequence: every rescaling from
  // exp(-2e4) = 0 to 1 occurs.
  const AttentionShape shape{2, 1, 16};
  std::mt19937 rng(3);
  Sequence s = random_sequence(rng, shape, 200);
  for (int64_t j = 0; j < 200; ++j) {
    const float size = 1e4f * std::sin(0.1f * static_cast<float>(j));
    for (int64_t d = 0; d < 16; ++d) s.k[j * 16 + d] = d == 0 ? size : 0.0f;
  }
  for (float& x : s.q) x = 1.0f;
  Pool pool(shape, 7);
  const std::vector<std::vector<int32_t>> tables{pool.take(200)};
  const Result r = run_chunks({}, shape, {s}, tables, pool, {{0, 0, 200}}, 1.0f);
  std::vector<double> out(16);
  for (int64_t row = 0; row < 200; ++row) {
    const double lse = exact_row(shape, s, row, 0, 1.0, out.data());
    EXPECT_NEAR(r.lse[row * 2], lse, 2e-3);
    for (int64_t d = 0; d < 16; ++d) EXPECT_NEAR(r.out[row * 32 + d], out[d], 1e-5);
  }
}

TEST_F(AttentionTest, AnyCutOfASequenceGivesTheSameBits) {
  const AttentionShape shape{6, 2, 32};
  const int64_t length = 101;
  std::mt19937 rng(11);
  const std::vector<Sequence> sequences{random_sequence(rng, shape, length)};
  const auto run_cut = [&](const std::vector<int64_t>& cuts, uint32_t seed) {
    Pool pool(shape, 9, seed);
    const std::vector<std::vector<int32_t>> tables{pool.take(length)};
    Result all;
    int64_t begin = 0;
    for (const int64_t end : cuts) {
      const Result r =
          run_chunks({.threads = 2}, shape, sequences, tables, pool, {{0, begin, end}}, 0.2f);
      all.out.insert(all.out.end(), r.out.begin(), r.out.end());
      all.lse.insert(all.lse.end(), r.lse.begin(), r.lse.end());
      begin = end;
    }
    return all;
  };
  std::vector<int64_t> one_by_one(static_cast<size_t>(length));
  std::iota(one_by_one.begin(), one_by_one.end(), 1);
  const Result whole = run_cut({length}, 1);
  uint32_t seed = 2;
  const std::vector<std::vector<int64_t>> all_cuts{
      one_by_one, {1, 64, 65, 101}, {31, 32, 33, 99, 101}, {50, 101}};
  for (const auto& cuts : all_cuts) {
    const Result r = run_cut(cuts, seed++);
    EXPECT_EQ(first_difference(r.out, whole.out), -1);
    EXPECT_EQ(first_difference(r.lse, whole.lse), -1);
  }
}

TEST_F(AttentionTest, OtherSequencesInTheBatchChangeNothing) {
  const AttentionCase batch{
      {"batch", kOracle}, {4, 2, 16}, {{0, 40}, {60, 61}, {10, 33}, {99, 100}}};
  Scene s = make_scene(batch, {});
  const Result together =
      run_chunks({}, batch.shape, s.sequences, s.tables, s.pool, s.chunks, s.scale);
  Result alone;
  for (const Chunk& chunk : s.chunks) {
    const Result r = run_chunks({}, batch.shape, s.sequences, s.tables, s.pool, {chunk}, s.scale);
    alone.out.insert(alone.out.end(), r.out.begin(), r.out.end());
    alone.lse.insert(alone.lse.end(), r.lse.begin(), r.lse.end());
  }
  EXPECT_EQ(first_difference(together.out, alone.out), -1);
  EXPECT_EQ(first_difference(together.lse, alone.lse), -1);
}

TEST_F(AttentionTest, ManySegmentsInOneCall) {
  const AttentionShape shape{2, 1, 8};
  std::mt19937 rng(5);
  std::vector<Sequence> sequences;
  std::vector<std::vector<int32_t>> tables;
  std::vector<Chunk> chunks;
  Pool pool(shape, 1300);
  for (size_t i = 0; i < 1300; ++i) {
    sequences.push_back(random_sequence(rng, shape, 1 + static_cast<int64_t>(i % 3)));
    tables.push_back(pool.take(sequences.back().length));
    chunks.push_back({i, 0, i % 7 == 0 ? 0 : sequences.back().length});
  }
  const Result r = run_chunks({.threads = 2}, shape, sequences, tables, pool, chunks, 0.5f);
  size_t at = 0;
  Floats out(8);
  for (const Chunk& chunk : chunks) {
    for (int64_t row = 0; row < chunk.end; ++row) {
      for (int64_t head = 0; head < 2; ++head, at += 8) {
        forward_row(shape, sequences[chunk.sequence], row, head, 0.5f, out.data());
        ASSERT_EQ(first_difference(std::span(r.out).subspan(at, 8), out), -1)
            << "sequence " << chunk.sequence;
      }
    }
  }
}

TEST_F(AttentionTest, SharedPromptWithCopiedPartialBlockEqualsSeparateSequences) {
  const AttentionShape shape{6, 2, 16};
  const int64_t prompt = 45, length = 80;
  std::mt19937 rng(13);
  std::vector<Sequence> sequences{random_sequence(rng, shape, length),
                                  random_sequence(rng, shape, length)};
  Sequence& other = sequences[1];
  for (Floats Sequence::*x : {&Sequence::q, &Sequence::k, &Sequence::v}) {
    const int64_t row = static_cast<int64_t>((other.*x).size()) / length;
    std::copy_n((sequences[0].*x).begin(), prompt * row, (other.*x).begin());
  }
  Pool apart(shape, 8);
  const std::vector<std::vector<int32_t>> own{apart.take(length), apart.take(length)};
  const Result separate =
      run_chunks({}, shape, sequences, own, apart, {{0, 0, length}, {1, 0, length}}, 0.3f);

  Pool pool(shape, 8, 2);
  std::vector<std::vector<int32_t>> tables{pool.take(length), pool.take(length)};
  tables[1][0] = tables[0][0];
  run_chunks({}, shape, sequences, tables, pool, {{0, 0, prompt}}, 0.3f);
  copy_slots(pool, tables[0][1], tables[1][1], prompt % kKvBlock);
  const Result shared = run_chunks({.threads = 2}, shape, sequences, tables, pool,
                                   {{0, prompt, length}, {1, prompt, length}}, 0.3f);
  const int64_t row = shape.heads * shape.head_dim, rows = length - prompt;
  for (int64_t i = 0; i < 2; ++i) {
    EXPECT_EQ(
        first_difference(std::span(shared.out).subspan(i * rows * row, rows * row),
                         std::span(separate.out).subspan((i * length + prompt) * row, rows * row)),
        -1);
  }
}

/// Samples of prompts that decode side by side read shared blocks once, whatever their
/// number and lengths.
TEST_F(AttentionTest, SamplesOfAPromptDecodeTogether) {
  struct Group {
    int64_t prompt;                ///< tokens
    std::vector<int64_t> lengths;  ///< of the samples, prompt included
  };
  std::vector<int64_t> many;
  for (int64_t i = 0; i < 21; ++i) many.push_back(71 + i * 13 % 150);
  const std::vector<Group> groups{
      {70, many}, {20, {40, 41, 60}}, {64, {64, 64, 65}}, {300, {301, 340}}, {32, {96}}};
  for (const AttentionShape& shape :
       {AttentionShape{9, 3, 64}, {6, 6, 48}, {6, 1, 20}, {5, 1, 8}, {7, 1, 16}, {2, 2, 300}}) {
    std::mt19937 rng(23);
    Pool pool(shape, 400);
    std::vector<Sequence> sequences;
    std::vector<std::vector<int32_t>> tables;
    std::vector<Chunk> chunks;
    for (const Group& group : groups) {
      const size_t first = sequences.size();
      for (const int64_t length : group.lengths) {
        Sequence s = random_sequence(rng, shape, length);
        std::vector<int32_t> table = pool.take(length);
        if (sequences.size() > first) {
          const int64_t kv = group.prompt * shape.kv_heads * shape.head_dim;
          std::copy_n(sequences[first].k.begin(), kv, s.k.begin());
          std::copy_n(sequences[first].v.begin(), kv, s.v.begin());
          std::copy_n(tables[first].begin(), group.prompt / kKvBlock, table.begin());
        }
        sequences.push_back(std::move(s));
        tables.push_back(std::move(table));
        chunks.push_back({sequences.size() - 1, length - 1, length});
        run_chunks({}, shape, sequences, tables, pool, {{sequences.size() - 1, 0, length - 1}},
                   0.3f);
      }
    }
    chunks[22].begin = 30;  // not one row: prefill between decoding sequences
    for (const std::string& target : supported_cpu_targets()) {
      set_cpu_target(target);
      for (const int threads : {1, 2, 5}) {
        const Result r =
            run_chunks({.threads = threads}, shape, sequences, tables, pool, chunks, 0.3f);
        int64_t row = 0;
        Floats out(static_cast<size_t>(shape.head_dim));
        for (const Chunk& chunk : chunks) {
          for (int64_t position = chunk.begin; position < chunk.end; ++position) {
            for (int64_t head = 0; head < shape.heads; ++head, ++row) {
              const float lse =
                  forward_row(shape, sequences[chunk.sequence], position, head, 0.3f, out.data());
              const std::string where = target + ", threads " + std::to_string(threads) +
                                        ", sequence " + std::to_string(chunk.sequence) + ", head " +
                                        std::to_string(head);
              ASSERT_EQ(first_difference(
                            std::span(r.out).subspan(row * shape.head_dim, shape.head_dim), out),
                        -1)
                  << where;
              ASSERT_EQ(first_difference(std::span(r.lse).subspan(row, 1), std::span(&lse, 1)), -1)
                  << where;
            }
          }
        }
      }
    }
  }
}

TEST_F(AttentionTest, LaterKeysAndValuesDoNotLeakBack) {
  // A later row of the same batch holds infinities and NaN: the rows before it must not
  // see them.
  const AttentionShape shape{4, 1, 16};
  std::mt19937 rng(17);
  std::vector<Sequence> sequences{random_sequence(rng, shape, 20)};
  Pool clean(shape, 1);
  const Result expected =
      run_chunks({}, shape, sequences, {clean.take(20)}, clean, {{0, 0, 20}}, 0.25f);
  for (int64_t d = 0; d < 16; ++d) {
    sequences[0].k[11 * 16 + d] = std::numeric_limits<float>::quiet_NaN();
    sequences[0].v[11 * 16 + d] = std::numeric_limits<float>::infinity();
  }
  for (const std::string& target : supported_cpu_targets()) {
    set_cpu_target(target);
    Pool pool(shape, 1);
    const Result r = run_chunks({}, shape, sequences, {pool.take(20)}, pool, {{0, 0, 20}}, 0.25f);
    EXPECT_EQ(
        first_difference(std::span(r.out).first(11 * 64), std::span(expected.out).first(11 * 64)),
        -1);
  }
}

TEST_F(AttentionTest, NanIsNotHidden) {
  const AttentionShape shape{2, 1, 16};
  std::mt19937 rng(37);
  std::vector<Sequence> sequences{random_sequence(rng, shape, 70)};
  sequences[0].q[40 * 32] = std::numeric_limits<float>::quiet_NaN();  // row 40, head 0
  sequences[0].k[50 * 16] = std::numeric_limits<float>::quiet_NaN();  // seen by rows 50 and later
  for (const std::string& target : supported_cpu_targets()) {
    set_cpu_target(target);
    Pool pool(shape, 3);
    const Result r = run_chunks({}, shape, sequences, {pool.take(70)}, pool, {{0, 0, 70}}, 0.25f);
    for (int64_t i = 0; i < 140; ++i) {
      const bool nan = i == 80 || i >= 100;
      EXPECT_EQ(std::isnan(r.lse[i]), nan) << target << " row " << i / 2;
      for (int64_t d = 0; d < 16; ++d)
        EXPECT_EQ(std::isnan(r.out[i * 16 + d]), nan) << target << " row " << i / 2;
    }
  }
}

TEST_F(AttentionTest, StridedRowsAndNoLse) {
  const AttentionShape shape{2, 1, 8};
  std::mt19937 rng(19);
  const Sequence s = random_sequence(rng, shape, 40);
  const int64_t stride = 40;  // q, k and v side by side, then out
  Floats rows(static_cast<size_t>(40 * stride), -1.0f);
  for (int64_t t = 0; t < 40; ++t) {
    std::copy_n(s.q.begin() + t * 16, 16, rows.begin() + t * stride);
    std::copy_n(s.k.begin() + t * 8, 8, rows.begin() + t * stride + 16);
    std::copy_n(s.v.begin() + t * 8, 8, rows.begin() + t * stride + 24);
  }
  Pool pool(shape, 2);
  const std::vector<int32_t> table = pool.take(40);
  const std::vector<KvSegment> segments{{0, 40, 0, table}};
  Arena arena;
  const AttentionPlan plan =
      make_attention_plan({}, shape, 40, pool.view().blocks, segments, arena);
  kv_write({}, {.pool = pool.view(),
                .k = Mat<const float>(rows.data() + 16, 40, 8, stride),
                .v = Mat<const float>(rows.data() + 24, 40, 8, stride),
                .plan = plan});
  Floats out(static_cast<size_t>(40 * 20), -1.0f);
  attention_forward({}, {.out = Mat<float>(out.data(), 40, 16, 20),
                         .lse = {},
                         .q = Mat<const float>(rows.data(), 40, 16, stride),
                         .pool = pool.view(),
                         .plan = plan,
                         .scale = 0.4f});
  Floats expected(8);
  for (int64_t t = 0; t < 40; ++t) {
    for (int64_t head = 0; head < 2; ++head) {
      forward_row(shape, s, t, head, 0.4f, expected.data());
      EXPECT_EQ(first_difference(std::span(out).subspan(t * 20 + head * 8, 8), expected), -1);
    }
    for (int64_t x = 16; x < 20; ++x) EXPECT_EQ(out[t * 20 + x], -1.0f) << "written beyond the row";
  }
}

TEST_F(AttentionTest, KvCopyTakesOnlyTheFirstSlots) {
  for (const KvCopyCase& c : cases_for(kKvCopyCases, kOracle)) {
    const AttentionShape& shape = c.shape;
    const int64_t heads = shape.kv_heads, dim = shape.head_dim, row = heads * dim;
    std::mt19937 rng(23);
    Pool pool(shape, 2);
    const std::vector<int32_t> table{0};
    const Floats k = random_floats(rng, kKvBlock * row), v = random_floats(rng, kKvBlock * row);
    Arena arena;
    const std::vector<KvSegment> segments{{0, kKvBlock, 0, table}};
    kv_write({}, {.pool = pool.view(),
                  .k = Mat<const float>(k.data(), kKvBlock, row),
                  .v = Mat<const float>(v.data(), kKvBlock, row),
                  .plan = make_attention_plan({}, shape, kKvBlock, 2, segments, arena)});
    const float* keys = cpu::keys<float>(pool.view());
    const float* values = cpu::values<float>(pool.view());
    const int64_t block = heads * cpu::key_elements(DType::kF32, dim);
    for (const bool clear_rest : {false, true}) {
      copy_slots(pool, 0, 1, c.slots, clear_rest);
      for (int64_t head = 0; head < heads; ++head) {
        for (int64_t slot = 0; slot < kKvBlock; ++slot) {
          for (int64_t d = 0; d < dim; ++d) {
            const int64_t k_at = (head * dim + d) * kKvBlock + slot,
                          v_at = (head * kKvBlock + slot) * dim + d;
            const float key = keys[block + k_at], value = values[block + v_at];
            EXPECT_EQ(keys[k_at], k[slot * row + head * dim + d]);
            if (slot < c.slots) {
              EXPECT_EQ(key, keys[k_at]);
              EXPECT_EQ(value, values[v_at]);
            } else if (clear_rest) {
              EXPECT_TRUE(key == 0 && value == 0);
            } else {
              EXPECT_TRUE(std::isnan(key) && std::isnan(value));
            }
          }
        }
      }
    }
  }
}

TEST_F(AttentionTest, ClearZeroesThePool) {
  for (const KvClearCase& c : cases_for(kKvClearCases, kOracle)) {
    Pool pool(c.shape, c.blocks);
    kv_clear({.threads = 2}, {.pool = pool.view()});
    const float* keys = cpu::keys<float>(pool.view());
    EXPECT_TRUE(std::all_of(
        keys,
        keys + cpu::kv_pool_elements(DType::kF32, c.blocks, c.shape.kv_heads, c.shape.head_dim),
        [](float x) { return x == 0; }));
  }
}

TEST_F(AttentionTest, BadInputIsNamed) {
  const AttentionShape shape{2, 1, 4};
  Pool pool(shape, 3);
  Floats q(10 * 8);
  Arena arena;
  const std::vector<int32_t> table{0, 1}, beyond{0, 3}, negative{-1};
  const auto forward = [&](const std::vector<KvSegment>& s) {
    make_attention_plan({}, shape, 10, 3, s, arena);
  };
  const auto write = [&](const KvSegment& s) { forward({s}); };
  EXPECT_THAT(
      [&] {
        write({0, 11, 0, table});
      },
      ThrowsMessage<Error>(HasSubstr("not inside the batch of 10")));
  EXPECT_THAT(
      [&] {
        write({-1, 2, 0, table});
      },
      ThrowsMessage<Error>(HasSubstr("not inside the batch")));
  EXPECT_THAT(
      [&] {
        write({INT64_MAX, 1, 0, table});
      },
      ThrowsMessage<Error>(HasSubstr("not inside the batch")));
  EXPECT_THAT(
      [&] {
        write({0, -1, 0, table});
      },
      ThrowsMessage<Error>(HasSubstr("not inside the batch")));
  EXPECT_THAT(
      [&] {
        write({0, 10, 60, table});
      },
      ThrowsMessage<Error>(HasSubstr("do not fit its block table of 2")));
  EXPECT_THAT(
      [&] {
        write({0, 1, -1, table});
      },
      ThrowsMessage<Error>(HasSubstr("do not fit its block table")));
  EXPECT_THAT(
      [&] {
        write({0, 1, INT64_MAX, table});
      },
      ThrowsMessage<Error>(HasSubstr("do not fit its block table")));
  EXPECT_THAT(
      [&] {
        write({0, 10, 30, beyond});
      },
      ThrowsMessage<Error>(HasSubstr("entry 1 is 3, outside the pool")));
  EXPECT_THAT(
      [&] {
        write({0, 1, 0, negative});
      },
      ThrowsMessage<Error>(HasSubstr("entry 0 is -1")));
  EXPECT_THAT(
      [&] {
        forward({{0, 1, 40, beyond}});
      },
      ThrowsMessage<Error>(HasSubstr("entry 1 is 3")));
  EXPECT_THAT(
      [&] {
        forward({{0, 3, 0, table}, {2, 1, 0, table}});
      },
      ThrowsMessage<Error>(HasSubstr("share rows")));
  for (const AttentionShape& bad : {AttentionShape{2, 0, 4}, AttentionShape{3, 2, 4}}) {
    EXPECT_THAT([&] { make_attention_plan({}, bad, 10, 3, {}, arena); },
                ThrowsMessage<Error>(HasSubstr("cannot share")));
  }
  for (const int64_t head_dim : {0, 1025}) {
    EXPECT_THAT(
        [&] {
          make_attention_plan({}, {2, 1, head_dim}, 10, 3, {}, arena);
        },
        ThrowsMessage<Error>(HasSubstr("need 1 to 1024")));
  }
  const auto run = [&](Mat<float> out, Mat<float> lse, int64_t pool_blocks) {
    attention_forward({}, {.out = out,
                           .lse = lse,
                           .q = Mat<const float>(q.data(), 10, 8),
                           .pool = pool.view(),
                           .plan = make_attention_plan({}, shape, 10, pool_blocks, {}, arena)});
  };
  const Mat<float> good(q.data(), 10, 8);
  EXPECT_THAT(
      [&] {
        run(good, {q.data(), 10, 1}, 3);
      },
      ThrowsMessage<Error>(HasSubstr("lse is [10, 1]; expected [10, 2]")));
  EXPECT_THAT(
      [&] {
        run({q.data(), 9, 8}, {}, 3);
      },
      ThrowsMessage<Error>(HasSubstr("out is [9, 8]; it must be [10, 8]")));
  EXPECT_THAT([&] { run(good, {}, 4); },
              ThrowsMessage<Error>(HasSubstr("the plan is for 4 blocks")));
  EXPECT_THAT([&] { copy_slots(pool, 0, 3, 1); },
              ThrowsMessage<Error>(HasSubstr("outside the pool of 3")));
  EXPECT_THAT([&] { copy_slots(pool, 0, 1, 33); }, ThrowsMessage<Error>(HasSubstr("33 slots")));
  EXPECT_THAT([] { kv_pool_bytes({}, DType::kF16, 1, 1, 8); },
              ThrowsMessage<Error>(HasSubstr("no kernels for f16 keys and values")));
  const Context gpu{.device = {DeviceType::kCuda, 0}};
  if (kCudaBuilt) return;  // no backend is missing
  EXPECT_THAT([&] { kv_pool_bytes(gpu.device, DType::kBF16, 1, 1, 8); },
              ThrowsMessage<Error>(HasSubstr("no kernels for bf16 keys and values")));
  EXPECT_THAT([&] { make_attention_plan(gpu, shape, 10, 3, {}, arena); },
              ThrowsMessage<Error>(HasSubstr("no kernels for device cuda:0")));
  EXPECT_THAT([&] { kv_clear(gpu, {.pool = pool.view()}); },
              ThrowsMessage<Error>(HasSubstr("no kernels for device cuda:0")));
}

}  // namespace
}  // namespace orrery::kernels
