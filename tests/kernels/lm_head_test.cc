// The fused head has the bits of its parts, however its rows are cut into chunks and
// calls.
#include "kernels/lm_head.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/rng.h"
#include "core/transfer.h"
#include "kernels/logprob.h"
#include "tests/kernels/cases/vocabulary_cases.h"
#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels {
namespace {
using kernel_testing::vec;

constexpr cases::LmHeadCase kCase = cases::kLmHeadCases[0];
static_assert(kCase.use == cases::kOracle);
constexpr int64_t kVocab = kCase.vocab, kHidden = kCase.hidden, kRows = kCase.rows;

std::vector<float> random_floats(int64_t count, uint64_t seed) {
  Philox random(seed, RngPurpose::kTest);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = random.uniform() - 0.5f;
  return values;
}

struct Result {
  std::vector<float> logprobs = std::vector<float>(kRows), entropies = std::vector<float>(kRows);
  std::vector<float> dhidden = std::vector<float>(kRows * kHidden),
                     dw = random_floats(kVocab * kHidden, kCase.seed + 2);
};

class LmHead : public testing::Test {
 protected:
  LmHead() {
    memory_ = Buffer({}, packed_weight_bytes(Device{}, DType::kF32, kVocab, kHidden));
    w_ =
        pack_weight(ctx_, {.weight = {weights_.data(), kVocab, kHidden}, .memory = memory_.data()});
    Philox random(kCase.seed + 3, RngPurpose::kTest);
    for (int64_t i = 0; i < kRows; ++i)
      targets_.push_back(static_cast<int32_t>(random.below(kVocab)));
  }

  /// The rows' derivatives depend on the row, so that a wrong `begin` shows.
  void run(Result& result, int64_t begin, int64_t end, bool accumulate = true) {
    const auto part = [&](auto& values) { return vec(values).part(begin, end - begin); };
    const Mat<const float> hidden(hidden_.data() + begin * kHidden, end - begin, kHidden);
    int64_t next = 0;
    const LmHeadForward op{.hidden = hidden,
                           .weight = w_,
                           .targets = part(targets_),
                           .inv_temperature = part(inv_temperature_),
                           .logprobs = part(result.logprobs),
                           .entropies = part(result.entropies)};
    LmHeadWalk walk(ctx_, op, arena_);
    while (const auto chunk = walk.next()) {
      EXPECT_EQ(chunk->begin, next);
      const int64_t count = chunk->logprobs.size;
      next += count;
      Array<float> logprobs(count), entropies(count), dlogp(count), dentropy(count);
      download(ctx_, Span<float>(logprobs), chunk->logprobs);
      download(ctx_, Span<float>(entropies), chunk->entropies);
      for (int64_t i = 0; i < count; ++i) {
        dlogp[i] = logprobs[i] * 0.01f * static_cast<float>(begin + chunk->begin + i);
        dentropy[i] = entropies[i] * 0.1f;
      }
      upload(ctx_, chunk->dlogp, dlogp);
      upload(ctx_, chunk->dentropy, dentropy);
      walk.backward(*chunk,
                    Mat<float>(result.dhidden.data() + begin * kHidden, end - begin, kHidden),
                    {result.dw.data(), kVocab, kHidden}, accumulate);
    }
    EXPECT_EQ(next, end - begin);
  }

  Context ctx_;
  Arena arena_;
  Buffer memory_;
  PackedWeight w_;
  std::vector<float> weights_ = random_floats(kVocab * kHidden, kCase.seed),
                     hidden_ = random_floats(kRows * kHidden, kCase.seed + 1);
  std::vector<int32_t> targets_;
  std::vector<float> inv_temperature_ = std::vector<float>(kRows, 1.25f);
};

void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b, const char* what) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << what;
}

TEST_F(LmHead, ChunksAndCallsDoNotChangeTheBits) {
  ASSERT_LT(lm_head_chunk_rows({}, kVocab, kRows), kRows);
  Result whole, cut;
  run(whole, 0, kRows);
  run(cut, 0, 41);
  run(cut, 41, 42);
  run(cut, 42, kRows);
  expect_same_bits(whole.logprobs, cut.logprobs, "log-probs");
  expect_same_bits(whole.entropies, cut.entropies, "entropies");
  expect_same_bits(whole.dhidden, cut.dhidden, "dhidden");
  expect_same_bits(whole.dw, cut.dw, "dw");

  std::vector<float> logprobs(kRows), entropies(kRows);
  lm_head_logprob(ctx_,
                  {.hidden = Mat<const float>(hidden_.data(), kRows, kHidden),
                   .weight = w_,
                   .targets = vec(targets_),
                   .inv_temperature = vec(inv_temperature_),
                   .logprobs = vec(logprobs),
                   .entropies = vec(entropies)},
                  arena_);
  expect_same_bits(whole.logprobs, logprobs, "log-probs without a backward");
  expect_same_bits(whole.entropies, entropies, "entropies without a backward");
}

TEST_F(LmHead, TheFirstChunkOverwritesWhereItIsToldTo) {
  Result added, written;
  std::fill(added.dw.begin(), added.dw.end(), 0.0f);
  std::fill(written.dw.begin(), written.dw.end(), kernel_testing::kNan);
  run(added, 0, kRows);
  run(written, 0, 99, /*accumulate=*/false);
  run(written, 99, kRows);
  expect_same_bits(written.dw, added.dw, "dw");
  run(written, 7, 7, /*accumulate=*/false);
  expect_same_bits(written.dw, added.dw, "dw of no rows");
}

TEST_F(LmHead, HasTheBitsOfItsParts) {
  Result fused;
  run(fused, 0, kRows);
  std::vector<float> logits(kRows * kVocab), max(kRows), log_sum(kRows), dlogp(kRows),
      dentropy(kRows);
  Result parts;
  const Mat<float> z(logits.data(), kRows, kVocab);
  const Mat<const float> hidden(hidden_.data(), kRows, kHidden);
  matmul_forward(ctx_, {.y = z, .x = hidden, .weight = w_});
  logprob_forward(ctx_, {.logprobs = vec(parts.logprobs),
                         .entropies = vec(parts.entropies),
                         .max = vec(max),
                         .log_sum = vec(log_sum),
                         .logits = z,
                         .targets = vec(targets_),
                         .inv_temperature = vec(inv_temperature_)});
  for (int64_t i = 0; i < kRows; ++i) {
    const auto at = static_cast<size_t>(i);
    dlogp[at] = parts.logprobs[at] * 0.01f * static_cast<float>(i);
    dentropy[at] = parts.entropies[at] * 0.1f;
  }
  logprob_backward(ctx_, {.dlogits = z,
                          .logits = z,
                          .targets = vec(targets_),
                          .max = vec(max),
                          .log_sum = vec(log_sum),
                          .entropies = vec(parts.entropies),
                          .dlogp = vec(dlogp),
                          .dentropy = vec(dentropy),
                          .inv_temperature = vec(inv_temperature_)});
  matmul_backward_input(
      ctx_, {.dx = Mat<float>(parts.dhidden.data(), kRows, kHidden), .dy = z, .weight = w_});
  matmul_backward_weight(ctx_, {.dw = {parts.dw.data(), kVocab, kHidden}, .dy = z, .x = hidden});
  expect_same_bits(fused.logprobs, parts.logprobs, "log-probs");
  expect_same_bits(fused.entropies, parts.entropies, "entropies");
  expect_same_bits(fused.dhidden, parts.dhidden, "dhidden");
  expect_same_bits(fused.dw, parts.dw, "dw");
}

/// The head in bf16, over runs that end within blocks and chunks.
class LmHeadBf16 : public LmHead {
 protected:
  static constexpr cases::LmHeadCase kNarrow = cases::kLmHeadCases[1];
  static_assert(kNarrow.dtype == DType::kBF16 && kNarrow.rows == kRows &&
                kNarrow.hidden == kHidden && kNarrow.vocab == kVocab);

  LmHeadBf16() {
    memory_ = Buffer({}, packed_weight_bytes(Device{}, DType::kBF16, kVocab, kHidden));
    w_ = pack_weight(ctx_, {.weight = {weights_.data(), kVocab, kHidden},
                            .dtype = DType::kBF16,
                            .memory = memory_.data()});
    for (const float value : hidden_) narrow_.push_back(to_bf16(value));
  }

  ConstActMat hidden(int64_t begin, int64_t end) const {
    return Mat<const Bf16>(narrow_.data() + begin * kHidden, end - begin, kHidden);
  }

  void run(Result& result, int64_t begin, int64_t end, const std::vector<int64_t>& runs) {
    const auto part = [&](auto& values) { return vec(values).part(begin, end - begin); };
    LmHeadWalk walk(ctx_,
                    {.hidden = hidden(begin, end),
                     .weight = w_,
                     .targets = part(targets_),
                     .inv_temperature = part(inv_temperature_),
                     .logprobs = part(result.logprobs),
                     .entropies = part(result.entropies),
                     .run_ends = runs},
                    arena_);
    while (const auto chunk = walk.next()) {
      const int64_t first = begin + chunk->begin;
      chunk_ends_.push_back(first + chunk->logprobs.size);
      for (int64_t i = 0; i < chunk->logprobs.size; ++i) {
        const auto at = static_cast<size_t>(first + i);
        chunk->dlogp.data[i] = derivative(result.logprobs[at], first + i);
        chunk->dentropy.data[i] = result.entropies[at] * 0.1f;
      }
      walk.backward(*chunk,
                    Mat<float>(result.dhidden.data() + begin * kHidden, end - begin, kHidden),
                    {result.dw.data(), kVocab, kHidden});
    }
  }
  static float derivative(float logprob, int64_t row) {
    return logprob * 0.01f * static_cast<float>(row);
  }

  /// The products and the loss over all rows at once.
  void run_parts(Result& result, const std::vector<int64_t>& runs) {
    std::vector<float> logits(kRows * kVocab), max(kRows), log_sum(kRows), dlogp(kRows),
        dentropy(kRows);
    std::vector<Bf16> dlogits(logits.size());
    const Mat<float> z(logits.data(), kRows, kVocab);
    const Mat<Bf16> dz(dlogits.data(), kRows, kVocab);
    matmul_forward(ctx_, {.y = z, .x = hidden(0, kRows), .weight = w_});
    logprob_forward(ctx_, {.logprobs = vec(result.logprobs),
                           .entropies = vec(result.entropies),
                           .max = vec(max),
                           .log_sum = vec(log_sum),
                           .logits = z,
                           .targets = vec(targets_),
                           .inv_temperature = vec(inv_temperature_)});
    for (int64_t i = 0; i < kRows; ++i) {
      const auto at = static_cast<size_t>(i);
      dlogp[at] = derivative(result.logprobs[at], i);
      dentropy[at] = result.entropies[at] * 0.1f;
    }
    logprob_backward(ctx_, {.dlogits = dz,
                            .logits = z,
                            .targets = vec(targets_),
                            .max = vec(max),
                            .log_sum = vec(log_sum),
                            .entropies = vec(result.entropies),
                            .dlogp = vec(dlogp),
                            .dentropy = vec(dentropy),
                            .inv_temperature = vec(inv_temperature_)});
    matmul_backward_input(
        ctx_, {.dx = Mat<float>(result.dhidden.data(), kRows, kHidden), .dy = dz, .weight = w_});
    matmul_backward_weight(ctx_, {.dw = {result.dw.data(), kVocab, kHidden},
                                  .dy = dz,
                                  .x = hidden(0, kRows),
                                  .run_ends = runs});
  }

  std::vector<Bf16> narrow_;
  std::vector<int64_t> chunk_ends_;
};

TEST_F(LmHeadBf16, ChunksCutNoBlockOfARun) {
  const std::vector<int64_t> runs = {41, 41, 47, 150};
  Result whole, parts, cut;
  run(whole, 0, kRows, runs);
  EXPECT_EQ(chunk_ends_, (std::vector<int64_t>{32, 47, 79, 111, 143, 150}));
  run_parts(parts, runs);
  run(cut, 0, 41, {41});
  run(cut, 41, kRows, {0, 6, 109});
  for (const Result& other : {parts, cut}) {
    expect_same_bits(whole.logprobs, other.logprobs, "log-probs");
    expect_same_bits(whole.entropies, other.entropies, "entropies");
    expect_same_bits(whole.dhidden, other.dhidden, "dhidden");
    expect_same_bits(whole.dw, other.dw, "dw");
  }
  chunk_ends_.clear();
  Result one_run;
  run(one_run, 0, kRows, {});
  EXPECT_EQ(chunk_ends_, (std::vector<int64_t>{32, 64, 96, 128, 150}));
}

TEST_F(LmHeadBf16, WhatIsMeasuredIsWhatAWalkTakes) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    Arena measured = Arena::measuring(Device{});
    measure_lm_head(dtype, kVocab, kRows, measured);
    Buffer memory({}, packed_weight_bytes(Device{}, dtype, kVocab, kHidden));
    const PackedWeight weight = pack_weight(
        ctx_,
        {.weight = {weights_.data(), kVocab, kHidden}, .dtype = dtype, .memory = memory.data()});
    std::vector<float> logprobs(kRows), entropies(kRows);
    const LmHeadForward op{.hidden = dtype == DType::kBF16
                                         ? hidden(0, kRows)
                                         : Mat<const float>(hidden_.data(), kRows, kHidden),
                           .weight = weight,
                           .targets = vec(targets_),
                           .inv_temperature = vec(inv_temperature_),
                           .logprobs = vec(logprobs),
                           .entropies = vec(entropies)};
    Arena arena;
    { const LmHeadWalk walk(ctx_, op, arena); }
    EXPECT_EQ(arena.peak(), measured.peak());
  }
}

TEST_F(LmHeadBf16, WrongTypesAndRunsAreErrors) {
  std::vector<float> logprobs(kRows), entropies(kRows);
  LmHeadForward op{.hidden = hidden(0, kRows),
                   .weight = w_,
                   .targets = vec(targets_),
                   .inv_temperature = vec(inv_temperature_),
                   .logprobs = vec(logprobs),
                   .entropies = vec(entropies)};
  const auto walk = [&] { LmHeadWalk(ctx_, op, arena_); };
  const std::vector<int64_t> falling = {7, 3, kRows}, short_runs = {7, kRows - 1};
  for (const auto& runs : {falling, short_runs}) {
    op.run_ends = runs;
    kernel_testing::expect_error(walk, "the runs of 150 rows");
  }
  op.run_ends = {};
  op.hidden = Mat<const float>(hidden_.data(), kRows, kHidden);
  kernel_testing::expect_error(walk, "hidden is f32, the head bf16");
}

TEST(LmHeadChunks, OfBf16AreBlocksAndFitWithTheirGradients) {
  for (const int64_t vocab : {int64_t{7}, int64_t{6400}, int64_t{49'152}, kVocab}) {
    const int64_t most = lm_head_chunk_rows({}, vocab, int64_t{1} << 40, DType::kBF16);
    EXPECT_EQ(most % 32, 0);
    EXPECT_TRUE(most == 32 || most * vocab * 6 <= int64_t{72} << 20);
    for (const int64_t rows : {0, 1, 31, 32, 33, 256, 378, 1024, 100'000}) {
      const int64_t chunk = lm_head_chunk_rows({}, vocab, rows, DType::kBF16);
      ASSERT_LE(chunk, std::min(most, rows));
      ASSERT_TRUE(chunk == rows || chunk % 32 == 0);
      if (rows > 0) {
        EXPECT_EQ((rows + chunk - 1) / chunk, (rows + most - 1) / most);
      }
    }
  }
  EXPECT_EQ(lm_head_chunk_rows({}, 49'152, 1024, DType::kBF16), 256);
}

TEST(LmHeadChunks, AreEvenAndFit) {
  for (const int64_t vocab :
       {int64_t{7}, int64_t{6400}, int64_t{49'152}, kVocab, int64_t{1} << 40}) {
    const int64_t most = lm_head_chunk_rows({}, vocab, int64_t{1} << 40);
    for (const int64_t rows : {0, 1, 13, 14, 15, 256, 378, 379, 1024, 100'000}) {
      const int64_t chunk = lm_head_chunk_rows({}, vocab, rows);
      ASSERT_LE(chunk, std::min(most, rows));
      if (rows == 0) continue;
      ASSERT_GT(chunk, 0);
      const int64_t chunks = (rows + chunk - 1) / chunk;
      EXPECT_EQ(chunks, (rows + most - 1) / most) << "as few as can be: " << vocab << ", " << rows;
    }
  }
  EXPECT_EQ(lm_head_chunk_rows({}, 49'152, 1024), 350)
      << "three chunks, of whole register tiles but for the last";
}

}  // namespace
}  // namespace orrery::kernels
