#include "kernels/logprob.h"

#include "kernels/scalar_math.h"
#include "tests/kernels/bf16_testing.h"
#include "tests/kernels/cases/vocabulary_cases.h"
#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels {
namespace {
using namespace cases;
using namespace kernel_testing;

struct RowResult {
  float logprob, entropy, max, log_sum;
};

/// What a z - max of -inf counts as where it is multiplied by its probability, 0.
float finite_below(float below_max) {
  return std::max(below_max, std::numeric_limits<float>::lowest());
}

/// The definition of kernels/logprob.h, in scalar code.
RowResult logprob_definition(const float* logits, int64_t vocab, int64_t target, float inv) {
  float m = -kInf;
  for (int64_t j = 0; j < vocab; ++j) m = std::max(m, logits[j] * inv);
  const float s =
      lanes_sum(vocab, [&](int64_t j, float acc) { return acc + exp_f32(logits[j] * inv - m); });
  const float weighted = lanes_sum(vocab, [&](int64_t j, float acc) {
    const float below_max = logits[j] * inv - m;
    return std::fma(exp_f32(below_max), finite_below(below_max), acc);
  });
  const float log_sum = log_f32(s);
  return {(logits[target] * inv - m) - log_sum, log_sum - weighted / s, m, log_sum};
}

float gradient_definition(float logit, bool is_target, float inv, const RowResult& row, float dlogp,
                          float dentropy) {
  const float below_max = logit * inv - row.max;
  const float p = exp_f32(below_max - row.log_sum);
  const float spread = (finite_below(below_max) - row.log_sum) + row.entropy;
  return std::fma(dlogp, (is_target ? 1.0f : 0.0f) - p, -(dentropy * p * spread)) * inv;
}

struct ExactRow {
  double logprob, entropy;
};

ExactRow exact(const std::vector<double>& logits, int64_t target, double inv) {
  double m = -std::numeric_limits<double>::infinity(), s = 0.0, entropy = 0.0;
  for (const double v : logits) m = std::max(m, v * inv);
  for (const double v : logits) s += std::exp(v * inv - m);
  const double lse = m + std::log(s);
  for (const double v : logits) {
    const double p = std::exp(v * inv - lse);
    if (p > 0.0) entropy -= p * (v * inv - lse);
  }
  return {logits[static_cast<size_t>(target)] * inv - lse, entropy};
}

class LogprobTest : public testing::TestWithParam<LogprobCase> {
 protected:
  void SetUp() override {
    const auto& p = GetParam();
    logits_ = Matrix::random(p.rows, p.vocab, p.seed, p.scale);
    for (int64_t r = 0; r < p.rows; ++r) {
      targets_.push_back(static_cast<int32_t>((r * 7919 + 3) % p.vocab));
      inv_.push_back(r % 3 == 0 ? 1.0f : 1.0f / (0.5f + 0.25f * static_cast<float>(r % 5)));
    }
    dlogp_ = random_vector(p.rows, p.seed + 1);
    dentropy_ = random_vector(p.rows, p.seed + 2);
    if (p.rows > 1) dlogp_[1] = dentropy_[1] = 0.0f;  // a masked token
  }
  Matrix logits_;
  std::vector<int32_t> targets_;
  std::vector<float> inv_, dlogp_, dentropy_;
};

TEST_P(LogprobTest, ForwardHasTheBitsOfScalarCodeAndAgreesWithDouble) {
  const int64_t rows = GetParam().rows, vocab = GetParam().vocab;
  const double tolerance = GetParam().tolerance;
  std::vector<float> logprobs, entropies, max, log_sum;
  for (int64_t r = 0; r < rows; ++r) {
    const auto u = static_cast<size_t>(r);
    const RowResult row = logprob_definition(&logits_(r, 0), vocab, targets_[u], inv_[u]);
    logprobs.push_back(row.logprob);
    entropies.push_back(row.entropy);
    max.push_back(row.max);
    log_sum.push_back(row.log_sum);
    const ExactRow truth = exact({&logits_(r, 0), &logits_(r, 0) + vocab}, targets_[u], inv_[u]);
    EXPECT_NEAR(row.logprob, truth.logprob, tolerance);
    EXPECT_NEAR(row.entropy, truth.entropy, tolerance);
  }
  on_every_target([&](const Context& ctx) {
    std::vector<float> got(logprobs.size()), got_entropies(logprobs.size()),
        got_max(logprobs.size()), got_log_sum(logprobs.size());
    logprob_forward(ctx, {.logprobs = vec(got),
                          .entropies = vec(got_entropies),
                          .max = vec(got_max),
                          .log_sum = vec(got_log_sum),
                          .logits = logits_.mat(),
                          .targets = vec(targets_),
                          .inv_temperature = vec(inv_)});
    EXPECT_TRUE(same_bits(got, logprobs));
    EXPECT_TRUE(same_bits(got_entropies, entropies));
    EXPECT_TRUE(same_bits(got_max, max));
    EXPECT_TRUE(same_bits(got_log_sum, log_sum));
    std::vector<float> alone(logprobs.size());
    logprob_forward(ctx, {.logprobs = vec(alone),
                          .logits = logits_.mat(),
                          .targets = vec(targets_),
                          .inv_temperature = vec(inv_)});
    EXPECT_TRUE(same_bits(alone, logprobs));
  });
}

TEST_P(LogprobTest, BackwardHasTheBitsOfScalarCodeAndAgreesWithFiniteDifferences) {
  const int64_t rows = GetParam().rows, vocab = GetParam().vocab;
  const double tolerance = GetParam().tolerance;
  Matrix expected = logits_, without_entropy = logits_;
  std::vector<float> entropies, max, log_sum;
  for (int64_t r = 0; r < rows; ++r) {
    const auto u = static_cast<size_t>(r);
    const RowResult row = logprob_definition(&logits_(r, 0), vocab, targets_[u], inv_[u]);
    entropies.push_back(row.entropy);
    max.push_back(row.max);
    log_sum.push_back(row.log_sum);
    const std::vector<double> point(&logits_(r, 0), &logits_(r, 0) + vocab);
    const auto loss = [&](const std::vector<double>& v) {
      const ExactRow truth = exact(v, targets_[u], inv_[u]);
      return static_cast<double>(dlogp_[u]) * truth.logprob +
             static_cast<double>(dentropy_[u]) * truth.entropy;
    };
    for (int64_t j = 0; j < vocab; ++j) {
      const bool hot = j == targets_[u];
      const bool masked = dlogp_[u] == 0.0f;
      expected(r, j) =
          masked ? 0.0f
                 : gradient_definition(logits_(r, j), hot, inv_[u], row, dlogp_[u], dentropy_[u]);
      without_entropy(r, j) =
          masked ? 0.0f
                 : gradient_definition(logits_(r, j), hot, inv_[u],
                                       {0.0f, 0.0f, row.max, row.log_sum}, dlogp_[u], 0.0f);
      if (hot || j % std::max<int64_t>(1, vocab / 40) == 0) {
        ASSERT_NEAR(expected(r, j), numeric_gradient(loss, point, static_cast<size_t>(j)),
                    10 * tolerance);
      }
    }
  }
  on_every_target([&](const Context& ctx) {
    Matrix got = logits_, got_without = logits_, apart(rows, vocab);
    logprob_backward(ctx, {.dlogits = got.mat(),
                           .logits = got.mat(),
                           .targets = vec(targets_),
                           .max = vec(max),
                           .log_sum = vec(log_sum),
                           .entropies = vec(entropies),
                           .dlogp = vec(dlogp_),
                           .dentropy = vec(dentropy_),
                           .inv_temperature = vec(inv_)});
    EXPECT_TRUE(same_bits(got.values, expected.values));
    logprob_backward(ctx, {.dlogits = got_without.mat(),
                           .logits = got_without.mat(),
                           .targets = vec(targets_),
                           .max = vec(max),
                           .log_sum = vec(log_sum),
                           .dlogp = vec(dlogp_),
                           .inv_temperature = vec(inv_)});
    EXPECT_TRUE(same_bits(got_without.values, without_entropy.values));
    logprob_backward(ctx, {.dlogits = apart.mat(),
                           .logits = logits_.mat(),
                           .targets = vec(targets_),
                           .max = vec(max),
                           .log_sum = vec(log_sum),
                           .dlogp = vec(dlogp_),
                           .inv_temperature = vec(inv_)});
    EXPECT_TRUE(same_bits(apart.values, without_entropy.values));
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, LogprobTest,
                         testing::ValuesIn(of_type(cases_for(kLogprobCases, kTest), DType::kF32)),
                         CaseName());

class LogprobBf16Test : public LogprobTest {};

TEST_P(LogprobBf16Test, BackwardRoundsWhatScalarCodeGives) {
  const int64_t rows = GetParam().rows, vocab = GetParam().vocab;
  Matrix expected(rows, vocab);
  std::vector<float> entropies, max, log_sum;
  for (int64_t r = 0; r < rows; ++r) {
    const auto u = static_cast<size_t>(r);
    const RowResult row = logprob_definition(&logits_(r, 0), vocab, targets_[u], inv_[u]);
    entropies.push_back(row.entropy);
    max.push_back(row.max);
    log_sum.push_back(row.log_sum);
    for (int64_t j = 0; j < vocab; ++j) {
      expected(r, j) = dlogp_[u] == 0.0f
                           ? 0.0f
                           : gradient_definition(logits_(r, j), j == targets_[u], inv_[u], row,
                                                 dlogp_[u], dentropy_[u]);
    }
  }
  const Matrix before = logits_;
  on_every_target([&](const Context& ctx) {
    Bf16Matrix got(rows, vocab);
    logprob_backward(ctx, {.dlogits = got.mat(),
                           .logits = logits_.mat(),
                           .targets = vec(targets_),
                           .max = vec(max),
                           .log_sum = vec(log_sum),
                           .entropies = vec(entropies),
                           .dlogp = vec(dlogp_),
                           .dentropy = vec(dentropy_),
                           .inv_temperature = vec(inv_)});
    EXPECT_TRUE(same_bits(got.values(), rounded(expected).values));
    EXPECT_TRUE(same_bits(logits_.values, before.values));
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, LogprobBf16Test,
                         testing::ValuesIn(of_type(cases_for(kLogprobCases, kOracle),
                                                   DType::kBF16)),
                         CaseName());

/// |a - b| / |b|, b a row of gradients in double.
double relative_distance(const std::function<double(int64_t)>& a,
                         const std::function<double(int64_t)>& b, int64_t count) {
  double difference = 0.0, length = 0.0;
  for (int64_t j = 0; j < count; ++j) {
    difference += std::pow(a(j) - b(j), 2.0);
    length += std::pow(b(j), 2.0);
  }
  return std::sqrt(difference / length);
}

TEST(Logprob, AConfidentTokenKeepsItsGradient) {
  // p is about 0.99 and the largest logit 16 to 32, where m + log s in one number has
  // lost most of log s.
  constexpr int64_t kVocab = 37;
  constexpr double kBound = 1.5e-5;
  const std::vector<int32_t> target = {5};
  const std::vector<float> one = {1.0f};
  double worst_of_one_number = 0.0;
  for (uint64_t row = 0; row < 60; ++row) {
    Matrix logits = Matrix::random(1, kVocab, 100 + row);
    logits(0, target[0]) = 8.0f;
    for (int64_t j = 0; j < kVocab; ++j) logits(0, j) += 8.5f + 0.25f * static_cast<float>(row);
    double s = 0.0;
    for (int64_t j = 0; j < kVocab; ++j)
      s += std::exp(static_cast<double>(logits(0, j)) - logits(0, target[0]));
    const auto truth = [&](int64_t j) {
      const double p = std::exp(static_cast<double>(logits(0, j)) - logits(0, target[0])) / s;
      return j == target[0] ? (s - 1.0) / s : -p;
    };
    ASSERT_NEAR(truth(target[0]), 0.02, 0.015);

    std::vector<float> logprob(1), max(1), log_sum(1);
    logprob_forward({}, {.logprobs = vec(logprob),
                         .max = vec(max),
                         .log_sum = vec(log_sum),
                         .logits = logits.mat(),
                         .targets = vec(target),
                         .inv_temperature = vec(one)});
    EXPECT_NEAR(logprob[0], -std::log(s), 2e-7);
    Matrix dlogits(1, kVocab);
    logprob_backward({}, {.dlogits = dlogits.mat(),
                          .logits = logits.mat(),
                          .targets = vec(target),
                          .max = vec(max),
                          .log_sum = vec(log_sum),
                          .dlogp = vec(one),
                          .inv_temperature = vec(one)});
    EXPECT_LT(relative_distance([&](int64_t j) { return double{dlogits(0, j)}; }, truth, kVocab),
              kBound);
    const float lse = max[0] + log_sum[0];
    const auto by_one_number = [&](int64_t j) {
      const float p = exp_f32(logits(0, j) - lse);
      return double{j == target[0] ? 1.0f - p : -p};
    };
    worst_of_one_number =
        std::max(worst_of_one_number, relative_distance(by_one_number, truth, kVocab));
  }
  EXPECT_GT(worst_of_one_number, 3 * kBound) << "these rows do not tell the two forms apart";
}

TEST(Logprob, MaskedTokensCountAsImpossible) {
  const int64_t vocab = 21;
  Matrix logits = Matrix::random(1, vocab, 4);
  for (int64_t j = 0; j < vocab; j += 2) logits(0, j) = -kInf;
  std::vector<double> kept;
  for (int64_t j = 1; j < vocab; j += 2) kept.push_back(logits(0, j));
  const std::vector<int32_t> target = {3}, impossible = {4};
  const std::vector<float> one = {1.0f};
  const ExactRow truth = exact(kept, 1, 1.0);
  on_every_target([&](const Context& ctx) {
    std::vector<float> logprob(1), entropy(1), max(1), log_sum(1), logprob2(1);
    logprob_forward(ctx, {.logprobs = vec(logprob),
                          .entropies = vec(entropy),
                          .max = vec(max),
                          .log_sum = vec(log_sum),
                          .logits = logits.mat(),
                          .targets = vec(target),
                          .inv_temperature = vec(one)});
    EXPECT_NEAR(logprob[0], truth.logprob, 1e-6);
    EXPECT_NEAR(entropy[0], truth.entropy, 2e-6);
    logprob_forward(ctx, {.logprobs = vec(logprob2),
                          .logits = logits.mat(),
                          .targets = vec(impossible),
                          .inv_temperature = vec(one)});
    EXPECT_EQ(logprob2[0], -kInf);
    Matrix dlogits = logits;
    logprob_backward(ctx, {.dlogits = dlogits.mat(),
                           .logits = dlogits.mat(),
                           .targets = vec(target),
                           .max = vec(max),
                           .log_sum = vec(log_sum),
                           .entropies = vec(entropy),
                           .dlogp = vec(one),
                           .dentropy = vec(one),
                           .inv_temperature = vec(one)});
    for (int64_t j = 0; j < vocab; ++j) {
      EXPECT_TRUE(std::isfinite(dlogits(0, j)));
      if (j % 2 == 0) {
        EXPECT_EQ(dlogits(0, j), 0.0f);
      }
    }
  });
}

TEST(Logprob, NanAndHopelessRowsGiveNanAndLeaveOthersAlone) {
  for (const int64_t vocab : {5, 64, 100}) {
    Matrix logits = Matrix::random(4, vocab, 5);
    logits(0, vocab - 1) = kNan;
    logits(1, 0) = kInf;
    for (int64_t j = 0; j < vocab; ++j) logits(2, j) = -kInf;
    const std::vector<int32_t> targets = {1, -1, 1, 1};  // -1: no token could be drawn
    const std::vector<float> inv(4, 1.0f);
    on_every_target([&](const Context& ctx) {
      std::vector<float> logprobs(4), entropies(4), max(4), log_sum(4);
      logprob_forward(ctx, {.logprobs = vec(logprobs),
                            .entropies = vec(entropies),
                            .max = vec(max),
                            .log_sum = vec(log_sum),
                            .logits = logits.mat(),
                            .targets = vec(targets),
                            .inv_temperature = vec(inv)});
      for (size_t r = 0; r < 3; ++r) {
        EXPECT_TRUE(std::isnan(logprobs[r])) << r;
        EXPECT_TRUE(std::isnan(entropies[r])) << r;
      }
      EXPECT_TRUE(std::isfinite(logprobs[3]));
    });
  }
}

TEST(Logprob, BadTargetsAndTemperaturesAreErrors) {
  const std::vector<float> inv = {1.0f, 1.0f};
  const std::vector<int32_t> good = {0, 4}, high = {0, 5}, negative = {-1, 0};
  check_logprob_rows(good, inv, 5);
  expect_error([&] { check_logprob_rows(high, inv, 5); }, "row 1 has target 5");
  expect_error([&] { check_logprob_rows(negative, inv, 5); }, "row 0 has target -1");
  for (const float bad : {0.0f, -1.0f, kInf, kNan}) {
    const std::vector<float> temperatures = {1.0f, bad};
    expect_error([&] { check_logprob_rows(good, temperatures, 5); },
                 "row 1 has inverse temperature");
  }
}

TEST(Logprob, WrongShapesAreErrors) {
  Matrix logits = Matrix::random(2, 5, 1), none(2, 0);
  const Matrix before = logits;
  std::vector<float> out(2), three(3);
  const std::vector<float> inv = {1.0f, 1.0f};
  const std::vector<int32_t> targets = {0, 4};
  const LogprobForward forward{.logprobs = vec(out),
                               .logits = logits.mat(),
                               .targets = vec(targets),
                               .inv_temperature = vec(inv)};
  const LogprobBackward backward{.dlogits = logits.mat(),
                                 .logits = logits.mat(),
                                 .targets = vec(targets),
                                 .max = vec(out),
                                 .log_sum = vec(out),
                                 .dlogp = vec(out),
                                 .inv_temperature = vec(inv)};
  LogprobForward op = forward;
  op.inv_temperature = vec(three);
  expect_error([&] { logprob_forward({}, op); }, "inv_temperature has 3 elements");
  op = forward;
  op.logprobs = vec(three);
  expect_error([&] { logprob_forward({}, op); }, "logprobs has 3");
  op = forward;
  op.logits = none.mat();
  expect_error([&] { logprob_forward({}, op); }, "vocabulary is 0");
  LogprobBackward back = backward;
  back.dentropy = vec(out);
  expect_error([&] { logprob_backward({}, back); }, "entropies has 0");
  back = backward;
  back.max = vec(three);
  expect_error([&] { logprob_backward({}, back); }, "max has 3");
  back = backward;
  back.log_sum = vec(three);
  expect_error([&] { logprob_backward({}, back); }, "log_sum has 3");
  back = backward;
  back.dlogits = none.mat();
  expect_error([&] { logprob_backward({}, back); }, "dlogits is [2, 0]");
  back = backward;
  back.dlogits.dtype = DType::kF16;
  expect_error([&] { logprob_backward({}, back); }, "dlogits holds f16");
  EXPECT_TRUE(same_bits(logits.values, before.values));
}

}  // namespace
}  // namespace orrery::kernels
