#include "kernels/sampling.h"

#include <map>
#include <numeric>

#include "kernels/scalar_math.h"
#include "tests/kernels/cases/vocabulary_cases.h"
#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels {
namespace {
using namespace cases;
using namespace kernel_testing;

uint64_t fixed(float p) { return static_cast<uint64_t>(static_cast<double>(p) * 0x1p40); }

/// The definition of kernels/sampling.h: sorts the whole vocabulary, selects nothing.
class Definition {
 public:
  Definition(const float* logits, int64_t vocab, const SamplingParams& params) : params_(params) {
    const float inv = params.temperature == 0.0f ? 1.0f : 1.0f / params.temperature;
    float max = -kInf;
    for (int64_t j = 0; j < vocab; ++j) {
      z_.push_back(logits[j] * inv);
      max = std::max(max, z_.back());
    }
    for (const float z : z_) p_.push_back(exp_f32(z - max));
    std::vector<size_t> rank(z_.size());
    std::iota(rank.begin(), rank.end(), size_t{0});
    std::stable_sort(rank.begin(), rank.end(), [&](size_t a, size_t b) { return z_[a] > z_[b]; });
    best_ = static_cast<int32_t>(rank[0]);
    for (size_t first = 0; first < p_.size(); first += 256) {
      const auto count = static_cast<int64_t>(std::min<size_t>(256, p_.size() - first));
      blocks_.push_back(lanes_sum(
          count, [&](int64_t j, float acc) { return acc + p_[first + static_cast<size_t>(j)]; }));
    }
    double total = 0.0;
    for (const float block : blocks_) total += static_cast<double>(block);
    const bool top_k = params.top_k > 0 && params.top_k < vocab;
    filtered_ = top_k || params.top_p < 1.0f || params.min_p > 0.0f;
    size_t kept = rank.size();
    double mass = total * 0x1p40;
    if (top_k) {
      kept = static_cast<size_t>(params.top_k);
      uint64_t sum = 0;
      for (size_t i = 0; i < kept; ++i) sum += fixed(p_[rank[i]]);
      mass = static_cast<double>(sum);
    }
    if (params.top_p < 1.0f) {
      const auto needed =
          std::max<uint64_t>(1, static_cast<uint64_t>(static_cast<double>(params.top_p) *
                                                      (top_k ? mass : total * 0x1p40)));
      uint64_t sum = 0;
      size_t n = 0;
      while (n < kept && sum < needed) sum += fixed(p_[rank[n++]]);
      kept = n;
    }
    for (size_t i = 0; i < kept; ++i) {
      if (p_[rank[i]] >= params.min_p) kept_[static_cast<int32_t>(rank[i])] = p_[rank[i]];
    }
  }

  int32_t draw(float uniform) const {
    if (params_.temperature == 0.0f) return best_;
    return filtered_ ? draw_filtered(uniform) : draw_all(uniform);
  }

  /// Kept tokens and their weights.
  const std::map<int32_t, float>& kept() const { return kept_; }

 private:
  int32_t draw_filtered(float uniform) const {
    uint64_t total = 0, sum = 0;
    for (const auto& [id, p] : kept_) total += fixed(p);
    const auto target =
        static_cast<uint64_t>(static_cast<double>(uniform) * static_cast<double>(total));
    for (const auto& [id, p] : kept_) {
      sum += fixed(p);
      if (sum > target) return id;
    }
    return -2;
  }

  int32_t draw_all(float uniform) const {
    double total = 0.0, before = 0.0;
    for (const float block : blocks_) total += static_cast<double>(block);
    const double target = static_cast<double>(uniform) * total;
    size_t block = 0;
    while (block + 1 < blocks_.size() && before + static_cast<double>(blocks_[block]) <= target) {
      before += static_cast<double>(blocks_[block++]);
    }
    int32_t last = -2;
    for (size_t j = block * 256; j < std::min(p_.size(), (block + 1) * 256); ++j) {
      if (p_[j] <= 0.0f) continue;
      last = static_cast<int32_t>(j);
      before += static_cast<double>(p_[j]);
      if (before > target) break;
    }
    return last;
  }

  SamplingParams params_;
  std::vector<float> z_, p_, blocks_;
  std::map<int32_t, float> kept_;
  int32_t best_ = -1;
  bool filtered_ = false;
};

std::vector<SamplingParams> all_params() {
  std::vector<SamplingParams> list = {{.temperature = 0.0f}};
  for (const float temperature : {1.0f, 0.6f, 1.7f}) {
    for (const int32_t top_k : {0, 1, 2, 5, 50, 400, 1 << 30, -1}) {
      for (const float top_p : {1.0f, 0.95f, 0.5f, 0.0f, 0.9999999f}) {
        for (const float min_p : {0.0f, 0.05f, 1.0f})
          list.push_back({temperature, top_k, top_p, min_p});
      }
    }
  }
  return list;
}

class SamplingTest : public testing::TestWithParam<SamplingCase> {};

TEST_P(SamplingTest, DrawsTheTokenOfTheDefinitionOnEveryTarget) {
  const int64_t vocab = GetParam().vocab;
  const std::vector<SamplingParams> params = all_params();
  const auto rows = static_cast<int64_t>(params.size());
  Matrix logits = Matrix::random(rows, vocab, GetParam().seed, GetParam().scale);
  Philox rng(5, RngPurpose::kTest);
  std::vector<float> uniform;
  std::vector<int32_t> expected;
  for (int64_t r = 0; r < rows; ++r) {
    if (r % 4 == 1) {  // ties, within and across the edge of every filter
      for (int64_t j = 0; j < vocab; ++j) logits(r, j) = std::round(logits(r, j));
    }
    if (r % 4 == 2 && vocab > 3) {  // tokens an environment forbids
      for (int64_t j = 0; j < vocab; j += 3) logits(r, j) = -kInf;
    }
    uniform.push_back(r % 7 == 0 ? 0.0f : r % 7 == 1 ? 0x1.fffffep-1f : rng.uniform());
    expected.push_back(
        Definition(&logits(r, 0), vocab, params[static_cast<size_t>(r)]).draw(uniform.back()));
    ASSERT_GE(expected.back(), 0);
    ASSERT_GT(logits(r, expected.back()), -kInf);
  }
  on_every_target([&](const Context& ctx) {
    std::vector<int32_t> ids(params.size(), -5);
    sample_forward(
        ctx,
        {.ids = vec(ids), .logits = logits.mat(), .params = vec(params), .uniform = vec(uniform)});
    for (size_t r = 0; r < ids.size(); ++r) {
      const SamplingParams& p = params[r];
      ASSERT_EQ(ids[r], expected[r])
          << "row " << r << " t " << p.temperature << " k " << p.top_k << " p " << p.top_p
          << " min " << p.min_p << " u " << uniform[r];
    }
    // A row alone gives what it gave in the batch.
    for (size_t r = 0; r < ids.size(); r += 11) {
      int32_t id = -5;
      const auto row = static_cast<int64_t>(r);
      sample_forward(ctx, {.ids = {&id, 1},
                           .logits = logits.mat().row_range(row, row + 1),
                           .params = vec(params).part(row, 1),
                           .uniform = vec(uniform).part(row, 1)});
      ASSERT_EQ(id, ids[r]) << r;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, SamplingTest,
                         testing::ValuesIn(cases_for(kSamplingCases, kOracle)), CaseName());

/// Draws `draws` tokens of one row and compares the counts with the kept tokens'
/// probabilities.
void expect_distribution(const Matrix& logits, const SamplingParams& params) {
  constexpr int64_t kDraws = 40000;
  const int64_t vocab = logits.cols;
  const Definition definition(logits.values.data(), vocab, params);
  Philox rng(9, RngPurpose::kTest);
  std::vector<int64_t> counts(static_cast<size_t>(vocab));
  for (int64_t n = 0; n < kDraws; ++n) {
    const float uniform = rng.uniform();
    int32_t id = -5;
    sample_forward({}, {.ids = {&id, 1},
                        .logits = logits.mat().row_range(0, 1),
                        .params = {&params, 1},
                        .uniform = {&uniform, 1}});
    ASSERT_TRUE(definition.kept().contains(id)) << id;
    ++counts[static_cast<size_t>(id)];
  }
  double total = 0.0, chi = 0.0;
  for (const auto& [id, p] : definition.kept()) total += static_cast<double>(p);
  for (const auto& [id, p] : definition.kept()) {
    const double mean = static_cast<double>(kDraws) * static_cast<double>(p) / total;
    const double difference = static_cast<double>(counts[static_cast<size_t>(id)]) - mean;
    chi += difference * difference / mean;
  }
  const auto freedom = static_cast<double>(definition.kept().size() - 1);
  EXPECT_LT(chi, freedom + 5.0 * std::sqrt(2.0 * freedom) + 5.0);
}

TEST(Sampling, CountsFollowTheSoftmax) {
  const Matrix logits = Matrix::random(1, 60, 3);
  expect_distribution(logits, {});
  expect_distribution(logits, {.temperature = 2.0f});
  expect_distribution(logits, {.top_k = 9});
  expect_distribution(logits, {.temperature = 1.5f, .top_p = 0.8f});
  expect_distribution(logits, {.min_p = 0.2f});
  expect_distribution(logits, {.temperature = 1.3f, .top_k = 30, .top_p = 0.9f, .min_p = 0.1f});
}

TEST(Sampling, FiltersKeepExactlyTheirTokens) {
  // Probabilities 0.4, 0.1, 0.3, 0.2: distinct draws over a fine grid show the kept
  // set.
  Matrix logits(1, 4);
  const std::vector<float> p = {0.4f, 0.1f, 0.3f, 0.2f};
  for (int64_t j = 0; j < 4; ++j) logits(0, j) = std::log(p[static_cast<size_t>(j)]);
  const auto kept = [&](const SamplingParams& params) {
    std::vector<int32_t> seen;
    for (int i = 0; i < 1000; ++i) {
      const float uniform = static_cast<float>(i) / 1000.0f;
      int32_t id = -5;
      sample_forward({}, {.ids = {&id, 1},
                          .logits = logits.mat(),
                          .params = {&params, 1},
                          .uniform = {&uniform, 1}});
      if (seen.empty() || seen.back() != id) seen.push_back(id);  // ids rise with the draw
    }
    return seen;
  };
  using testing::ElementsAre;
  EXPECT_THAT(kept({}), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(kept({.top_k = 1}), ElementsAre(0));
  EXPECT_THAT(kept({.top_k = 3}), ElementsAre(0, 2, 3));
  EXPECT_THAT(kept({.top_p = 0.39f}), ElementsAre(0));
  EXPECT_THAT(kept({.top_p = 0.41f}), ElementsAre(0, 2));
  EXPECT_THAT(kept({.top_p = 0.71f}), ElementsAre(0, 2, 3));
  EXPECT_THAT(kept({.top_p = 0.0f}), ElementsAre(0));
  EXPECT_THAT(kept({.min_p = 0.49f}), ElementsAre(0, 2, 3));
  EXPECT_THAT(kept({.min_p = 0.51f}), ElementsAre(0, 2));
  EXPECT_THAT(kept({.min_p = 1.0f}), ElementsAre(0));
  // top_p counts what top_k left: 0.4 of 0.7 is 0.571.
  EXPECT_THAT(kept({.top_k = 2, .top_p = 0.56f}), ElementsAre(0));
  EXPECT_THAT(kept({.top_k = 2, .top_p = 0.58f}), ElementsAre(0, 2));
}

TEST(Sampling, EqualLogitsRankByLowerId) {
  for (const int64_t vocab : {5, 64, 5000}) {
    Matrix logits(1, vocab);
    for (int64_t j = 0; j < vocab; ++j) logits(0, j) = j >= 2 ? 1.5f : -1.0f;
    on_every_target([&](const Context& ctx) {
      const SamplingParams greedy{.temperature = 0.0f}, two{.top_k = 2};
      const float low = 0.0f, high = 0x1.fffffep-1f;
      int32_t id = -5;
      sample_forward(
          ctx,
          {.ids = {&id, 1}, .logits = logits.mat(), .params = {&greedy, 1}, .uniform = {&high, 1}});
      EXPECT_EQ(id, 2);
      sample_forward(
          ctx,
          {.ids = {&id, 1}, .logits = logits.mat(), .params = {&two, 1}, .uniform = {&low, 1}});
      EXPECT_EQ(id, 2);
      sample_forward(
          ctx,
          {.ids = {&id, 1}, .logits = logits.mat(), .params = {&two, 1}, .uniform = {&high, 1}});
      EXPECT_EQ(id, 3);
    });
  }
}

TEST(Sampling, BrokenRowsYieldMinusOneAndLeaveOthersAlone) {
  const int64_t vocab = 67;
  Matrix logits = Matrix::random(4, vocab, 1);
  logits(0, vocab - 1) = kNan;
  logits(1, 20) = kInf;
  for (int64_t j = 0; j < vocab; ++j) logits(2, j) = -kInf;
  on_every_target([&](const Context& ctx) {
    for (const SamplingParams& params :
         {SamplingParams{}, SamplingParams{.temperature = 0.0f}, SamplingParams{.top_k = 3},
          SamplingParams{.top_p = 0.5f}, SamplingParams{.min_p = 0.5f}}) {
      const std::vector<SamplingParams> each(4, params);
      const std::vector<float> uniform(4, 0.5f);
      std::vector<int32_t> ids(4, -5);
      sample_forward(
          ctx,
          {.ids = vec(ids), .logits = logits.mat(), .params = vec(each), .uniform = vec(uniform)});
      EXPECT_EQ(ids[0], -1);
      EXPECT_EQ(ids[1], -1);
      EXPECT_EQ(ids[2], -1);
      EXPECT_GE(ids[3], 0);
    }
  });
}

TEST(Sampling, LargeVocabulariesAgreeWithTheDefinition) {
  const int64_t vocab = 151936;
  Matrix logits = Matrix::random(1, vocab, 1, 2.5f);
  for (const SamplingParams& params :
       {SamplingParams{}, SamplingParams{.top_k = 50}, SamplingParams{.top_p = 0.9f},
        SamplingParams{.top_p = 0.999f}, SamplingParams{.temperature = 30.0f, .top_p = 0.95f},
        SamplingParams{.min_p = 0.01f}}) {
    const Definition definition(logits.values.data(), vocab, params);
    for (const float uniform : {0.0f, 0.1f, 0.5f, 0.77f, 0.9999f}) {
      int32_t id = -5;
      sample_forward({}, {.ids = {&id, 1},
                          .logits = logits.mat(),
                          .params = {&params, 1},
                          .uniform = {&uniform, 1}});
      ASSERT_EQ(id, definition.draw(uniform))
          << params.top_k << " " << params.top_p << " " << uniform;
    }
  }
  // Rising logits are the worst order for a running threshold.
  std::sort(logits.values.begin(), logits.values.begin() + vocab);
  const SamplingParams params{.top_k = 100};
  const Definition definition(logits.values.data(), vocab, params);
  for (const float uniform : {0.0f, 0.5f, 0.99f}) {
    int32_t id = -5;
    sample_forward({}, {.ids = {&id, 1},
                        .logits = logits.mat(),
                        .params = {&params, 1},
                        .uniform = {&uniform, 1}});
    ASSERT_EQ(id, definition.draw(uniform));
  }
}

TEST(Sampling, WrongShapesAreErrors) {
  const Matrix logits = Matrix::random(2, 5, 1), none(2, 0);
  std::vector<int32_t> ids(2), three(3);
  const std::vector<SamplingParams> params(2);
  const std::vector<float> uniform(2);
  SampleForward op{
      .ids = vec(three), .logits = logits.mat(), .params = vec(params), .uniform = vec(uniform)};
  expect_error([&] { sample_forward({}, op); }, "ids has 3 elements");
  op.ids = vec(ids);
  op.logits = none.mat();
  expect_error([&] { sample_forward({}, op); }, "vocabulary is 0");
}

}  // namespace
}  // namespace orrery::kernels
