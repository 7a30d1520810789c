// The policy of the class dot16-rz25 (docs/numerics.md) against scalar code.
#include "kernels/logprob.h"
#include "kernels/scalar_math.h"
#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels {
namespace {
using namespace kernel_testing;

constexpr float kLowest = std::numeric_limits<float>::lowest();

struct Sums {
  float m = -kInf, s = 0.0f, t = 0.0f;
};

/// The sums of the block that begins at token `begin`.
Sums block_sums(const std::vector<float>& z, size_t begin) {
  Sums block;
  bool has_nan = false;
  for (size_t j = begin; j < std::min(begin + 128, z.size()); ++j) {
    has_nan = has_nan || std::isnan(z[j]);
    if (z[j] > block.m) block.m = z[j];
  }
  if (has_nan) return {block.m, kNan, kNan};
  std::array<float, 4> s{}, t{};
  const auto probability = [&](size_t j) { return j < z.size() ? exp_f32(z[j] - block.m) : 0.0f; };
  const auto weighted = [&](size_t j) {
    if (j >= z.size() || z[j] - block.m == -kInf) return 0.0f;
    return probability(j) * (z[j] - block.m);
  };
  for (size_t i = 0; i < 16; ++i) {
    for (size_t q = 0; q < 4; ++q) {
      const size_t j = begin + 8 * i + 2 * q;
      s[q] = s[q] + (probability(j) + probability(j + 1));
      t[q] = t[q] + (weighted(j) + weighted(j + 1));
    }
  }
  block.s = (s[0] + s[1]) + (s[2] + s[3]);
  block.t = (t[0] + t[1]) + (t[2] + t[3]);
  return block;
}

Sums fold(const Sums& a, const Sums& b) {
  const float m = std::max(a.m, b.m);
  const float e = a.m - m, e_b = b.m - m;
  const float c = exp_f32(e), c_b = exp_f32(e_b);
  const float t = c == 0.0f ? 0.0f : c * std::fma(e, a.s, a.t);
  const float t_b = c_b == 0.0f ? 0.0f : c_b * std::fma(e_b, b.s, b.t);
  return {m, c * a.s + c_b * b.s, t + t_b};
}

struct Row {
  float logprob, entropy, max, log_sum;
};

Row policy(const Matrix& logits, int64_t row, int64_t target, float inv) {
  std::vector<float> z;
  for (int64_t j = 0; j < logits.cols; ++j) z.push_back(logits(row, j) * inv);
  bool is_first = true;
  Sums all{-kInf, kNan, kNan};
  for (size_t begin = 0; begin < z.size(); begin += 128) {
    const auto end = z.begin() + static_cast<std::ptrdiff_t>(std::min(begin + 128, z.size()));
    if (std::all_of(z.begin() + static_cast<std::ptrdiff_t>(begin), end,
                    [](float v) { return v == -kInf; }))
      continue;
    const Sums block = block_sums(z, begin);
    all = is_first ? block : fold(all, block);
    is_first = false;
  }
  if (all.m == 0.0f) all.m = 0.0f;
  const float log_sum = log_f32(all.s);
  return {(z[static_cast<size_t>(target)] - all.m) - log_sum, log_sum - all.t / all.s, all.m,
          log_sum};
}

/// All rows on every target, with and without entropies.
void expect_policies(const Matrix& logits, const std::vector<int32_t>& targets,
                     const std::vector<float>& inv) {
  std::vector<float> logprobs, entropies, max, log_sum;
  for (int64_t r = 0; r < logits.rows; ++r) {
    const auto u = static_cast<size_t>(r);
    const Row row = policy(logits, r, std::max(targets[u], 0), inv[u]);
    logprobs.push_back(row.logprob);
    entropies.push_back(row.entropy);
    max.push_back(row.max);
    log_sum.push_back(row.log_sum);
  }
  on_every_target([&](const Context& ctx) {
    std::vector<float> got(inv.size()), got_entropies(inv.size()), got_max(inv.size()),
        got_log_sum(inv.size());
    LogprobForward op{.logprobs = vec(got),
                      .entropies = vec(got_entropies),
                      .max = vec(got_max),
                      .log_sum = vec(got_log_sum),
                      .logits = logits.mat(),
                      .targets = vec(targets),
                      .inv_temperature = vec(inv),
                      .numerics = NumericsClass::kDot16};
    logprob_forward(ctx, op);
    EXPECT_TRUE(same_bits(got, logprobs));
    EXPECT_TRUE(same_bits(got_entropies, entropies));
    EXPECT_TRUE(same_bits(got_max, max));
    EXPECT_TRUE(same_bits(got_log_sum, log_sum));
    std::fill(got.begin(), got.end(), -7.0f);
    op.entropies = {};
    op.max = {};
    logprob_forward(ctx, op);
    EXPECT_TRUE(same_bits(got, logprobs));
    EXPECT_TRUE(same_bits(got_log_sum, log_sum));
  });
}

TEST(Dot16SumsLogprob, PoliciesOfAllSizes) {
  for (const int64_t vocab :
       {1, 2, 5, 7, 8, 9, 15, 16, 17, 100, 127, 128, 129, 144, 250, 256, 257, 391, 1000, 5003}) {
    SCOPED_TRACE(vocab);
    const int64_t rows = 12;
    Matrix logits = Matrix::random(rows, vocab, 1, 4.0f);
    std::vector<int32_t> targets;
    std::vector<float> inv;
    for (int64_t r = 0; r < rows; ++r) {
      targets.push_back(static_cast<int32_t>((r * 131) % vocab));
      inv.push_back(std::array{1.0f, 1.0f / 0.7f, 0.5f, 1e6f}[static_cast<size_t>(r % 4)]);
      // In some rows every block exceeds the one before, in others none does.
      const float slope = std::array{0.0f, 0.05f, -0.05f}[static_cast<size_t>(r % 3)];
      for (int64_t j = 0; j < vocab; ++j) logits(r, j) += slope * static_cast<float>(j);
    }
    expect_policies(logits, targets, inv);
  }
}

TEST(Dot16SumsLogprob, AgreesWithDouble) {
  const int64_t vocab = 5003;
  const Matrix logits = Matrix::random(4, vocab, 2, 3.0f);
  const std::vector<float> inv = {1.0f, 2.0f, 0.25f, 1.5f};
  for (int64_t r = 0; r < 4; ++r) {
    const double i = inv[static_cast<size_t>(r)];
    double s = 0.0, t = 0.0;
    for (int64_t j = 0; j < vocab; ++j) {
      s += std::exp(logits(r, j) * i);
      t += std::exp(logits(r, j) * i) * logits(r, j) * i;
    }
    const Row row = policy(logits, r, 17, inv[static_cast<size_t>(r)]);
    EXPECT_NEAR(row.logprob, logits(r, 17) * i - std::log(s), 5e-6);
    EXPECT_NEAR(row.entropy, std::log(s) - t / s, 5e-6);
  }
}

TEST(Dot16SumsLogprob, IsNotThatOfOtherClasses) {
  const Matrix logits = Matrix::random(30, 1000, 3, 3.0f);
  const std::vector<int32_t> targets(30, 5);
  const std::vector<float> inv(30, 1.0f);
  std::vector<float> blocks(30), chain(30), pairs(30);
  LogprobForward op{.logits = logits.mat(), .targets = vec(targets), .inv_temperature = vec(inv)};
  for (const auto& [out, numerics] : {std::pair{&blocks, NumericsClass::kDot16},
                                      {&chain, NumericsClass::kF32Chain},
                                      {&pairs, NumericsClass::kPairs}}) {
    op.logprobs = vec(*out);
    op.numerics = numerics;
    logprob_forward({}, op);
  }
  EXPECT_TRUE(same_bits(pairs, chain));
  EXPECT_FALSE(same_bits(blocks, chain));
}

TEST(Dot16SumsLogprob, ImpossibleTokensAndBlocksOfThemAreLeftOut) {
  const int64_t vocab = 500;
  Matrix logits = Matrix::random(7, vocab, 4);
  const auto mask = [&](int64_t row, int64_t begin, int64_t end, float value) {
    for (int64_t j = begin; j < end; ++j) logits(row, j) = value;
  };
  mask(0, 0, 128, -kInf);
  mask(1, 128, 256, -kInf);
  mask(2, 384, vocab, -kInf);
  mask(3, 0, 440, -kInf);
  // Finite, and so low that differences and sums of them are not.
  mask(4, 0, 256, kLowest);
  mask(5, 128, vocab, kLowest);
  mask(5, 3, 100, kLowest);
  mask(5, 100, 110, 1e38f);
  for (int64_t j = 0; j < vocab; j += 3) logits(6, j) = -kInf;
  const std::vector<int32_t> targets = {0, 450, 10, 450, 300, 105, 1};
  expect_policies(logits, targets, std::vector<float>(7, 1.0f));
  for (int64_t r = 0; r < 7; ++r) {
    const Row row = policy(logits, r, targets[static_cast<size_t>(r)], 1.0f);
    EXPECT_FALSE(std::isnan(row.logprob)) << r;
    EXPECT_TRUE(std::isfinite(row.entropy)) << r;
  }
  EXPECT_EQ(policy(logits, 0, 0, 1.0f).logprob, -kInf);
}

TEST(Dot16SumsLogprob, NanAndHopelessRowsGiveNan) {
  for (const int64_t vocab : {5, 128, 300}) {
    Matrix logits = Matrix::random(9, vocab, 5);
    logits(0, vocab - 1) = kNan;
    logits(1, 0) = kNan;
    logits(2, vocab - 1) = kInf;
    logits(3, 0) = kInf;
    for (int64_t j = 0; j < vocab; ++j) {
      logits(4, j) = -kInf;
      logits(5, j) = kNan;
      logits(6, j) = -kInf;
      if (j >= 128) logits(7, j) = -kInf;
    }
    logits(6, vocab / 2) = kNan;
    logits(7, vocab - 1) = kNan;
    const std::vector<int32_t> targets = {1, 1, 1, -1, -1, 1, -1, 1, 1};
    expect_policies(logits, targets, std::vector<float>(9, 1.0f));
    for (int64_t r = 0; r < 8; ++r) {
      const Row row = policy(logits, r, 1, 1.0f);
      EXPECT_TRUE(std::isnan(row.logprob) && std::isnan(row.entropy) && std::isnan(row.log_sum))
          << r;
    }
    EXPECT_TRUE(std::isfinite(policy(logits, 8, 1, 1.0f).logprob));
  }
}

TEST(Dot16SumsLogprob, ALargestLogitOfZeroIsPlusZero) {
  for (const int64_t vocab : {1, 9, 16, 40, 300}) {
    Matrix logits(3, vocab);
    for (int64_t j = 0; j < vocab; ++j) {
      logits(0, j) = -0.0f;
      logits(1, j) = j % 2 == 0 ? -0.0f : 0.0f;
      logits(2, j) = j % 3 == 0 ? 0.0f : -0.0f;
    }
    expect_policies(logits, {0, 0, 0}, {1.0f, 1.0f, 2.0f});
    EXPECT_FALSE(std::signbit(policy(logits, 0, 0, 1.0f).max));
  }
}

TEST(Dot16SumsLogprob, TheGradientIsOfTheseSums) {
  const int64_t vocab = 1000;
  const Matrix logits = Matrix::random(1, vocab, 6);
  const std::vector<int32_t> target = {700};
  const std::vector<float> inv = {1.25f}, one = {1.0f};
  std::vector<float> logprob(1), entropy(1), max(1), log_sum(1);
  logprob_forward({}, {.logprobs = vec(logprob),
                       .entropies = vec(entropy),
                       .max = vec(max),
                       .log_sum = vec(log_sum),
                       .logits = logits.mat(),
                       .targets = vec(target),
                       .inv_temperature = vec(inv),
                       .numerics = NumericsClass::kDot16});
  Matrix dlogits(1, vocab);
  logprob_backward({}, {.dlogits = dlogits.mat(),
                        .logits = logits.mat(),
                        .targets = vec(target),
                        .max = vec(max),
                        .log_sum = vec(log_sum),
                        .entropies = vec(entropy),
                        .dlogp = vec(one),
                        .dentropy = vec(one),
                        .inv_temperature = vec(inv)});
  // Both gradients add up to 0 over the vocabulary.
  double total = 0.0;
  for (int64_t j = 0; j < vocab; ++j) total += double{dlogits(0, j)};
  EXPECT_NEAR(total, 0.0, 2e-6);
  EXPECT_NEAR(dlogits(0, 700) / 1.25f,
              1.0f - std::exp(logprob[0]) - std::exp(logprob[0]) * (logprob[0] + entropy[0]), 1e-6);
}

}  // namespace
}  // namespace orrery::kernels
