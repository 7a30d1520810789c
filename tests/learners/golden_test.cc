// Logits, loss and every parameter's gradient against Hugging Face transformers
// (tests/goldens/make_goldens.py).
#include <gtest/gtest.h>

#include <cmath>

#include "tests/learners/golden_model.h"

namespace orrery::learners {
namespace {

using testing_support::kGoldenTemperature;
using testing_support::read_golden;
using testing_support::relative_error;
using testing_support::test_context;

constexpr double kTolerance = 1e-5;  // relative, in the 2-norm of a tensor

class Golden : public testing::TestWithParam<const char*> {
 protected:
  std::filesystem::path folder_ = testing_support::goldens_folder() / GetParam();
};

TEST_P(Golden, LogitsLossAndGradients) {
  const Context ctx = test_context(2);
  const models::Transformer model = testing_support::golden_model(ctx, folder_, DType::kF32);
  const models::ModelConfig& config = model.config();
  const storage::SafetensorsFile golden(folder_ / "golden.safetensors");
  testing_support::GoldenBatch golden_batch(golden);
  const auto& responses = golden_batch.responses();
  const int64_t tokens = golden_batch.tokens();
  MicroBatch batch;
  append_tree(batch, golden_batch.trees()[0]);

  // Logits, through the same forward.
  Arena arena(ctx.device);
  const Mat<float> hidden = arena.mat<float>(tokens, config.hidden_size);
  const models::BatchPlan plan = models::plan_training(ctx, model, batch.view(), arena);
  models::transformer_forward_train(ctx, model, plan, hidden, arena);
  const Mat<float> logits = arena.mat<float>(tokens, config.vocab_size);
  models::lm_head_forward(ctx, model, logits, hidden);
  std::vector<float> logprobs(static_cast<size_t>(tokens)), entropies(logprobs.size());
  batch_logprobs(ctx, model, kGoldenTemperature, batch, logprobs, entropies, arena);
  size_t row = 0;
  for (size_t i = 0; i < responses.size(); ++i) {
    const size_t count = responses[i].size();
    const auto name = std::to_string(i);
    const auto first = static_cast<int64_t>(row);
    const auto ours = testing_support::downloaded(
        ctx, as_vec(logits.row_range(first, first + static_cast<int64_t>(count))));
    EXPECT_LE(relative_error(ours, read_golden(golden, "logits." + name)), kTolerance)
        << "logits of response " << i;
    EXPECT_LE(relative_error(std::span(logprobs).subspan(row, count),
                             read_golden(golden, "logprobs." + name)),
              kTolerance);
    EXPECT_LE(relative_error(std::span(entropies).subspan(row, count),
                             read_golden(golden, "entropy." + name)),
              kTolerance);
    row += count;
  }

  const Objective objective = testing_support::golden_objective();
  const testing_support::DeviceFloats gradient(
      ctx, std::vector<float>(static_cast<size_t>(model.table().flat_size())));
  LossSums sums(objective.loss->terms());
  testing_support::shard_gradient(ctx, model, objective, std::span(&batch, 1), gradient.vec(), sums,
                                  arena);
  const std::vector<float> gradients = gradient.values();
  EXPECT_NEAR(sums.loss, read_golden(golden, "loss")[0],
              1e-5 * std::abs(read_golden(golden, "loss")[0]) + 1e-6);
  EXPECT_GT(testing_support::term_sum(sums, "pg_clipfrac"), 0)
      << "the golden is meant to clip some tokens";
  double worst = 0;
  for (const models::Parameter& p : model.table().parameters()) {
    const auto ours = model.table().values(Span<const float>(gradients), p);
    const double error = relative_error(ours, read_golden(golden, "grad." + p.name));
    EXPECT_LE(error, kTolerance) << p.name;
    worst = std::max(worst, error);
  }
  RecordProperty("worst_relative_gradient_error", std::to_string(worst));
}

INSTANTIATE_TEST_SUITE_P(Transformers, Golden, testing::ValuesIn(testing_support::kGoldenModels),
                         [](const auto& instance) { return instance.param; });

}  // namespace
}  // namespace orrery::learners
