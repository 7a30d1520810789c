// The whole model's gradient: against finite differences, and the same bits however a
// batch is cut.
#include "learners/gradient.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "learners/losses/gspo.h"
#include "learners/losses/policy.h"
#include "learners/losses/ppo.h"
#include "tests/learners/tiny_gradient.h"

namespace orrery::learners {
namespace {

using testing_support::gradient_of;
using testing_support::GradientResult;
using testing_support::pointers;
using testing_support::randomize;
using testing_support::test_context;
using testing_support::test_device;
using testing_support::tiny_config;
using testing_support::TinyBatch;

/// Finite differences see no kink of it.
Objective test_objective() {
  const Ppo smooth{.clip_ratio_low = 0.9f, .clip_ratio_high = 0.9f, .clip_ratio_c = 0};
  return {.loss = make_loss(Policy<Ppo>{smooth, {}, 0.05f}), .temperature = 0.8f};
}

class ModelGradient : public testing::TestWithParam<const char*> {};

TEST_P(ModelGradient, MatchesFiniteDifferences) {
  const Context ctx = test_context();
  models::Transformer model(tiny_config(GetParam()), test_device(), DType::kF32);
  randomize(model, 3, ctx);
  const TinyBatch batch(5, model.config().vocab_size, {9, 35}, 3);
  auto trees = batch.trees();
  // On-policy-like old log-probs, so that ratios stay inside the wide clip range.
  for (Tree& tree : trees) {
    for (Leaf& leaf : tree.leaves) leaf.weight = 0.05f;
  }
  const Objective objective = test_objective();
  const GradientResult result = gradient_of(model, objective, trees, 1 << 20);

  testing_support::expect_finite_differences(model, objective, trees, result.gradient);
}

TEST_P(ModelGradient, SameBitsForAnyMicroBatchAndThreads) {
  const Context ctx = test_context();
  for (const DType dtype : testing_support::test_dtypes()) {
    models::Transformer model(tiny_config(GetParam()), test_device(), dtype);
    randomize(model, 4, ctx);
    // In bf16 these are three runs, of which the last has fewer than 256 rows.
    const TinyBatch batch(6, model.config().vocab_size, {5, 33, 64, 1, 40, 70, 50, 8}, 4);
    auto trees = batch.trees();
    const auto order = pointers(trees);
    const size_t least = pack(order, 1, min_run_rows(dtype)).size();
    EXPECT_EQ(least, dtype == DType::kBF16 ? 3u : trees.size());
    const GradientResult whole = gradient_of(model, test_objective(), trees, 1 << 20);
    for (const int64_t max_tokens : {1, 100, 200, 333, 560}) {
      for (const int threads : {1, 3}) {
        const GradientResult cut = gradient_of(model, test_objective(), trees, max_tokens, threads);
        EXPECT_EQ(std::memcmp(cut.gradient.data(), whole.gradient.data(),
                              whole.gradient.size() * sizeof(float)),
                  0)
            << "budget " << max_tokens << ", " << threads << " threads";
        EXPECT_EQ(cut.sums.loss, whole.sums.loss);
      }
    }
  }
}

bool equal_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// As shard_gradient, through a window whose memory holds NaN before: what it shows of
/// each region when that is final.
std::vector<float> gradient_through_window(const Context& ctx, const models::Transformer& model,
                                           std::span<const MicroBatch> batches) {
  const std::vector<int64_t>& regions = model.table().regions();
  std::vector<float> gradient;
  const testing_support::DeviceFloats memory(
      ctx, std::vector<float>(static_cast<size_t>(FlatView::window_size(regions)), kNan));
  const FlatView window(memory.vec(), regions);
  int64_t end = window.size();
  const auto take = [&](int64_t begin) {
    const std::vector<float> region =
        testing_support::downloaded(ctx, Vec<float>(window.at(begin), end - begin));
    gradient.insert(gradient.begin(), region.begin(), region.end());
    end = begin;
  };
  Arena arena(ctx.device);
  LossSums sums(test_objective().loss->terms());
  ShardPass pass(ctx, model, batches, window, arena);
  while (pass.forward()) {
    pass.head_backward(test_objective(), sums);
    while (const auto final_from = pass.backward_layer()) take(*final_from);
  }
  pass.embedding_backward();
  for (size_t r = regions.size() - 1; r-- > 0;) {
    if (regions[r] < end) take(regions[r]);
  }
  return gradient;
}

TEST_P(ModelGradient, IsWrittenOverWhateverWasThere) {
  const Context ctx = test_context();
  for (const DType dtype : testing_support::test_dtypes()) {
    models::Transformer model(tiny_config(GetParam()), test_device(), dtype);
    randomize(model, 4, ctx);
    const TinyBatch batch(6, model.config().vocab_size, {5, 33, 64}, 4);
    auto trees = batch.trees();
    const GradientResult whole = gradient_of(model, test_objective(), trees, 1 << 20);
    EXPECT_TRUE(std::ranges::none_of(whole.gradient, [](float g) { return std::isnan(g); }));
    for (int64_t region = 0; region + 1 < std::ssize(model.table().regions()); ++region) {
      for (const Extent& gap : model.table().gaps(region)) {
        for (const float g : elements_of(Span<const float>(whole.gradient), gap))
          EXPECT_EQ(std::bit_cast<uint32_t>(g), 0u) << "in a gap";
      }
    }
    const auto order = pointers(trees);
    const std::vector<float> windowed =
        gradient_through_window(ctx, model, pack(order, 1 << 20, min_run_rows(dtype)));
    EXPECT_TRUE(equal_bits(windowed, whole.gradient));
  }
}

TEST_P(ModelGradient, OfNoBatchIsZero) {
  const Context ctx = test_context();
  models::Transformer model(tiny_config(GetParam()), test_device(), DType::kF32);
  randomize(model, 4, ctx);
  std::vector<Tree> none;
  const std::vector<float> zeros(static_cast<size_t>(model.table().flat_size()), 0.0f);
  EXPECT_TRUE(equal_bits(gradient_of(model, test_objective(), none, 100).gradient, zeros));
  EXPECT_TRUE(equal_bits(gradient_through_window(ctx, model, {}), zeros));
}

TEST_P(ModelGradient, AFirstBatchWithoutLossRowsIsAsInOneBatch) {
  const Context ctx = test_context();
  for (const DType dtype : testing_support::test_dtypes()) {
    models::Transformer model(tiny_config(GetParam()), test_device(), dtype);
    randomize(model, 4, ctx);
    TinyBatch batch(6, model.config().vocab_size, {5, 33, 64, 1, 40, 70, 50, 8}, 4);
    auto trees = batch.trees();
    int64_t rows = 0;
    for (size_t tree = 0; rows < min_run_rows(dtype); rows += trees[tree++].rows()) {
      for (auto& mask : batch.masks[tree]) std::ranges::fill(mask, uint8_t{0});
    }
    const auto order = pointers(trees);
    const auto batches = pack(order, 1, min_run_rows(dtype));
    ASSERT_TRUE(batches[0].loss_rows.empty() && !batches[1].loss_rows.empty());
    const GradientResult cut = gradient_of(model, test_objective(), trees, 1);
    const GradientResult whole = gradient_of(model, test_objective(), trees, 1 << 20);
    EXPECT_TRUE(equal_bits(cut.gradient, whole.gradient));
    EXPECT_TRUE(std::ranges::none_of(cut.gradient, [](float g) { return std::isnan(g); }));
  }
}

double norm_of(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) sum += double{value} * value;
  return std::sqrt(sum);
}

double relative_distance(std::span<const float> a, std::span<const float> b) {
  std::vector<float> difference(a.size());
  for (size_t i = 0; i < a.size(); ++i) difference[i] = a[i] - b[i];
  return norm_of(difference) / norm_of(b);
}

TEST_P(ModelGradient, OfBf16IsNearThatOfF32InEveryTensor) {
  if (!testing_support::has_bf16()) GTEST_SKIP() << "the device has no bf16";
  const Context ctx = test_context();
  const auto gradient = [&](DType dtype) {
    models::Transformer model(tiny_config(GetParam()), test_device(), dtype);
    randomize(model, 4, ctx);
    const TinyBatch batch(6, model.config().vocab_size, {5, 33, 64, 1, 40, 70, 50, 8}, 4);
    auto trees = batch.trees();
    return gradient_of(model, sft_objective(), trees, 1 << 20).gradient;
  };
  const std::vector<float> f32 = gradient(DType::kF32), bf16 = gradient(DType::kBF16);
  EXPECT_LT(relative_distance(bf16, f32), 0.05);
  EXPECT_GT(relative_distance(bf16, f32), 1e-4) << "nothing was rounded";
  const models::ParameterTable table(tiny_config(GetParam()));
  for (const models::Parameter& p : table.parameters()) {
    EXPECT_LT(relative_distance(table.values(Span<const float>(bf16), p),
                                table.values(Span<const float>(f32), p)),
              0.1)
        << p.name;
  }
}

TEST_P(ModelGradient, OfBf16DependsOnWhereRunsEnd) {
  if (!testing_support::has_bf16()) GTEST_SKIP() << "the device has no bf16";
  const Context ctx = test_context();
  models::Transformer model(tiny_config(GetParam()), test_device(), DType::kBF16);
  randomize(model, 4, ctx);
  const TinyBatch batch(6, model.config().vocab_size, {5, 33, 64, 1, 40, 70, 50, 8}, 4);
  auto trees = batch.trees();
  const auto order = pointers(trees);
  const auto gradient = [&](int64_t run_rows) {
    Arena arena(ctx.device);
    const testing_support::DeviceFloats result(
        ctx, std::vector<float>(static_cast<size_t>(model.table().flat_size())));
    LossSums sums(test_objective().loss->terms());
    testing_support::shard_gradient(ctx, model, test_objective(), pack(order, 1 << 20, run_rows),
                                    result.vec(), sums, arena);
    return result.values();
  };
  const auto regular = gradient(256), other = gradient(1);
  for (const char* name : {"model.layers.0.self_attn.q_proj.weight",
                           "model.layers.1.mlp.down_proj.weight", "model.embed_tokens.weight"}) {
    // The embedding's is a plain sum, but where the head's product lies in it; of runs,
    // where bf16 is tensor cores'.
    const bool is_sum = std::string(name).find("embed") != std::string::npos &&
                        !model.config().tie_word_embeddings && !test_device().dot16();
    const models::Parameter& p = *model.table().find(name);
    const auto a = model.table().values(Span<const float>(regular), p),
               b = model.table().values(Span<const float>(other), p);
    EXPECT_EQ(std::ranges::equal(a, b), is_sum) << name;
  }
}

TEST_P(ModelGradient, TakesWhatWasMeasured) {
  const Context ctx = test_context();
  for (const DType dtype : testing_support::test_dtypes()) {
    models::Transformer model(tiny_config(GetParam()), test_device(), dtype);
    randomize(model, 4, ctx);
    const TinyBatch batch(6, model.config().vocab_size, {5, 33, 64, 1, 40, 70, 50, 8}, 4);
    auto trees = batch.trees();
    const auto order = pointers(trees);
    const auto batches = pack(order, 1, min_run_rows(dtype));
    Arena measuring = Arena::measuring(ctx.device), exact(ctx.device);
    ShardPass::measure(model, batches, measuring);
    exact.reserve(measuring.peak(), "a shard", "nothing");
    const testing_support::DeviceFloats result(
        ctx, std::vector<float>(static_cast<size_t>(model.table().flat_size())));
    LossSums sums(test_objective().loss->terms());
    testing_support::shard_gradient(ctx, model, test_objective(), batches, result.vec(), sums,
                                    exact);
    EXPECT_EQ(exact.peak(), measuring.peak()) << dtype_name(dtype);
  }
}

TEST_P(ModelGradient, SharedPromptEqualsSeparateSequences) {
  const Context ctx = test_context();
  models::Transformer model(tiny_config(GetParam()), test_device(), DType::kF32);
  randomize(model, 7, ctx);
  const TinyBatch batch(8, model.config().vocab_size, {5, 33}, 4);
  auto shared = batch.trees(), separate = batch.trees(/*split=*/true);
  const GradientResult a = gradient_of(model, test_objective(), shared, 1 << 20);
  const GradientResult b = gradient_of(model, test_objective(), separate, 1 << 20);
  EXPECT_EQ(a.sums.loss, b.sums.loss) << "the forward must have the same bits either way";
  double largest = 0, difference = 0;
  for (size_t i = 0; i < a.gradient.size(); ++i) {
    largest = std::max<double>(largest, std::abs(a.gradient[i]));
    difference = std::max<double>(difference, std::abs(a.gradient[i] - b.gradient[i]));
  }
  EXPECT_LT(difference, 1e-5 * largest);
}

TEST_P(ModelGradient, OtherTreesInTheBatchChangeNoLogprob) {
  const Context ctx = test_context();
  models::Transformer model(tiny_config(GetParam()), test_device(), DType::kF32);
  randomize(model, 9, ctx);
  const TinyBatch batch(10, model.config().vocab_size, {7, 31, 32}, 3);
  auto trees = batch.trees();
  const auto order = pointers(trees);
  Arena arena(ctx.device);
  const MicroBatch all = pack(order, 1 << 20, 1).front();
  std::vector<float> together(all.targets.size()), entropies(all.targets.size());
  batch_logprobs(ctx, model, 1.0f, all, together, entropies, arena);
  size_t at = 0;
  for (Tree* tree : order) {
    const MicroBatch one = pack(std::vector<Tree*>{tree}, 1 << 20, 1).front();
    std::vector<float> alone(one.targets.size());
    batch_logprobs(ctx, model, 1.0f, one, alone, {}, arena);
    for (const float value : alone) EXPECT_EQ(value, together[at++]);
  }
  EXPECT_EQ(at, together.size());
}

INSTANTIATE_TEST_SUITE_P(Architectures, ModelGradient, testing::Values("llama", "qwen2", "qwen3"));

/// PPO that notes the tokens of each sequence.
class CountingPpo final : public Loss {
 public:
  Span<const Term> terms() const override { return loss_->terms(); }
  bool uses_reference() const override { return loss_->uses_reference(); }
  bool is_coupled() const override { return true; }
  void couple(Span<LossToken> tokens) const override {
    lengths_.push_back(tokens.size());
    for (LossToken& token : tokens) token.coefficient = 1;
  }
  void evaluate(const Context& ctx, const LossRows& rows) const override {
    Array<TokenEvaluation> tokens(rows.tokens.size);
    download(ctx, Span<TokenEvaluation>(tokens), rows.tokens);
    for (const TokenEvaluation& row : Span<const TokenEvaluation>(tokens))
      EXPECT_EQ(row.token.coefficient, 1);
    loss_->evaluate(ctx, rows);
  }

  /// Of all sequences that it was asked to couple since then.
  std::vector<int64_t> take_lengths() const { return std::exchange(lengths_, {}); }

 private:
  std::shared_ptr<const Loss> loss_ = make_loss(Policy<Ppo>{});
  mutable std::vector<int64_t> lengths_;
};

TEST(CoupledLoss, SeesWholeSequencesAndTakesASecondWalkWithTheSameBits) {
  const Context ctx = test_context();
  models::Transformer model(tiny_config("qwen2"), test_device(), DType::kF32);
  randomize(model, 13, ctx);
  const TinyBatch batch(14, model.config().vocab_size, {5, 33, 40}, 3);
  auto trees = batch.trees();
  const auto counting = std::make_shared<CountingPpo>();
  const Objective plain{.loss = make_loss(Policy<Ppo>{})}, coupled{.loss = counting};
  EXPECT_FALSE(plain.loss->is_coupled());
  EXPECT_TRUE(make_loss(Policy<Gspo>{})->is_coupled());
  EXPECT_TRUE(make_loss(Policy<Ppo>{{}, {}, 0, /*off_policy_mask_threshold=*/1})->is_coupled());
  std::vector<int64_t> lengths;
  for (const Tree* tree : pointers(trees)) {
    for (const Leaf& leaf : tree->leaves) lengths.push_back(leaf.loss_tokens());
  }
  const GradientResult expected = gradient_of(model, plain, trees, 1 << 20);
  for (const int64_t max_tokens : {1, 100, 1 << 20}) {
    const GradientResult result = gradient_of(model, coupled, trees, max_tokens);
    EXPECT_EQ(result.gradient, expected.gradient);
    EXPECT_EQ(result.sums.loss, expected.sums.loss);
    EXPECT_EQ(counting->take_lengths(), lengths);
  }
}

TEST(Sft, LossIsTheWeightedNegativeLogprob) {
  const Context ctx = test_context();
  models::Transformer model(tiny_config("llama"), test_device(), DType::kF32);
  randomize(model, 11, ctx);
  const TinyBatch batch(12, model.config().vocab_size, {6}, 2);
  auto trees = batch.trees();
  const Objective objective = sft_objective();
  const GradientResult result = gradient_of(model, objective, trees, 1 << 20);
  const auto order = pointers(trees);
  const MicroBatch packed = pack(order, 1 << 20, 1).front();
  std::vector<float> logprobs(packed.targets.size());
  Arena arena(ctx.device);
  batch_logprobs(ctx, model, 1.0f, packed, logprobs, {}, arena);
  double expected = 0;
  for (const float logp : logprobs) expected -= 0.01f * logp;
  EXPECT_NEAR(result.sums.loss, expected, 1e-6);
  EXPECT_EQ(result.sums.tokens, static_cast<double>(logprobs.size()));
}

}  // namespace
}  // namespace orrery::learners
