// Logits, loss and every parameter's gradient against Hugging Face transformers
// (tests/goldens/make_goldens.py).
#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <filesystem>

#include "learners/gradient.h"
#include "learners/losses/ppo.h"
#include "storage/hf_folder.h"
#include "storage/safetensors.h"
#include "tests/learners/tiny_gradient.h"

namespace orrery::learners {
namespace {

using testing_support::test_context;
using testing_support::test_device;

constexpr double kTolerance = 1e-5;  // relative, in the 2-norm of a tensor
constexpr float kTemperature = 0.9f;

std::vector<float> read(const storage::SafetensorsFile& file, const std::string& name) {
  const storage::SafetensorsTensor* tensor = file.find(name);
  if (tensor == nullptr) throw Error("no golden " + name);
  std::vector<float> values(static_cast<size_t>(tensor->size));
  file.read_f32(*tensor, 0, values);
  return values;
}

std::vector<int32_t> read_ids(const storage::SafetensorsFile& file, const std::string& name) {
  std::vector<int32_t> ids;
  for (const float value : read(file, name)) ids.push_back(static_cast<int32_t>(value));
  return ids;
}

double relative_error(std::span<const float> ours, std::span<const float> golden) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < golden.size(); ++i) {
    difference += std::pow(static_cast<double>(ours[i]) - golden[i], 2);
    norm += std::pow(static_cast<double>(golden[i]), 2);
  }
  return std::sqrt(difference / norm);
}

class Golden : public testing::TestWithParam<const char*> {
 protected:
  std::filesystem::path folder_ =
      std::filesystem::path(ORRERY_SOURCE_DIR) / "tests/goldens" / GetParam();
};

TEST_P(Golden, LogitsLossAndGradients) {
  const Context ctx = test_context(2);
  const models::ModelConfig config = models::load_model_config(folder_);
  models::Transformer model(config, test_device(), DType::kF32);
  testing_support::change_weights(ctx, model, [&](std::vector<float>& weights) {
    storage::load_hf_weights({}, folder_, config, model.table(), weights);
  });
  model.pack(ctx);
  const storage::SafetensorsFile golden(folder_ / "golden.safetensors");

  const std::vector<int32_t> prompt = read_ids(golden, "prompt");
  std::vector<std::vector<int32_t>> responses;
  std::vector<std::vector<float>> old_logprobs;
  size_t tokens = 0;
  for (int i = 0; golden.find("response." + std::to_string(i)) != nullptr; ++i) {
    responses.push_back(read_ids(golden, "response." + std::to_string(i)));
    old_logprobs.push_back(read(golden, "old_logprobs." + std::to_string(i)));
    tokens += responses.back().size();
  }
  const std::vector<uint8_t> mask(64, 1);
  const float advantages[] = {1.2f, -0.8f, 0.5f, -0.9f};
  std::deque<std::vector<float>> token_advantages;
  std::vector<Tree> trees = {{prompt, {}}};
  for (size_t i = 0; i < responses.size(); ++i) {
    Leaf leaf;
    leaf.tokens = responses[i];
    leaf.loss_mask = std::span(mask).first(responses[i].size());
    leaf.old_logprobs = old_logprobs[i];
    leaf.ref_logprobs = read(golden, "ref_logprobs." + std::to_string(i));
    leaf.advantages = token_advantages.emplace_back(responses[i].size(), advantages[i]);
    leaf.weight = 1.0f / static_cast<float>(tokens);
    trees[0].leaves.push_back(std::move(leaf));
  }
  MicroBatch batch;
  append_tree(batch, trees[0]);

  // Logits, through the same forward.
  Arena arena(ctx.device);
  const Mat<float> hidden = arena.mat<float>(static_cast<int64_t>(tokens), config.hidden_size);
  const models::BatchPlan plan = models::plan_training(ctx, model, batch.view(), arena);
  models::transformer_forward_train(ctx, model, plan, hidden, arena);
  const Mat<float> logits = arena.mat<float>(static_cast<int64_t>(tokens), config.vocab_size);
  models::lm_head_forward(ctx, model, logits, hidden);
  std::vector<float> logprobs(tokens), entropies(tokens);
  batch_logprobs(ctx, model, kTemperature, batch, logprobs, entropies, arena);
  size_t row = 0;
  for (size_t i = 0; i < responses.size(); ++i) {
    const size_t count = responses[i].size();
    const auto name = std::to_string(i);
    const auto first = static_cast<int64_t>(row);
    const auto ours = testing_support::downloaded(
        ctx, as_vec(logits.row_range(first, first + static_cast<int64_t>(count))));
    EXPECT_LE(relative_error(ours, read(golden, "logits." + name)), kTolerance)
        << "logits of response " << i;
    EXPECT_LE(
        relative_error(std::span(logprobs).subspan(row, count), read(golden, "logprobs." + name)),
        kTolerance);
    EXPECT_LE(
        relative_error(std::span(entropies).subspan(row, count), read(golden, "entropy." + name)),
        kTolerance);
    row += count;
  }

  const Objective objective{
      .loss = make_loss(Policy<Ppo>{{.clip_ratio_c = 0}, {.coefficient = 0.1f}, 0.02f}),
      .temperature = kTemperature};
  const testing_support::DeviceFloats gradient(
      ctx, std::vector<float>(static_cast<size_t>(model.table().flat_size())));
  LossSums sums(objective.loss->terms());
  testing_support::shard_gradient(ctx, model, objective, std::span(&batch, 1), gradient.vec(), sums,
                                  arena);
  const std::vector<float> gradients = gradient.values();
  EXPECT_NEAR(sums.loss, read(golden, "loss")[0], 1e-5 * std::abs(read(golden, "loss")[0]) + 1e-6);
  EXPECT_GT(testing_support::term_sum(sums, "pg_clipfrac"), 0)
      << "the golden is meant to clip some tokens";
  double worst = 0;
  for (const models::Parameter& p : model.table().parameters()) {
    const auto ours = model.table().values(Span<const float>(gradients), p);
    const double error = relative_error(ours, read(golden, "grad." + p.name));
    EXPECT_LE(error, kTolerance) << p.name;
    worst = std::max(worst, error);
  }
  RecordProperty("worst_relative_gradient_error", std::to_string(worst));
}

INSTANTIATE_TEST_SUITE_P(Transformers, Golden,
                         testing::Values("llama", "llama3_rope", "linear_rope", "qwen2",
                                         "qwen2_untied", "qwen3", "qwen3_yarn", "mistral"),
                         [](const auto& instance) { return instance.param; });

}  // namespace
}  // namespace orrery::learners
