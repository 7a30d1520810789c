// What the engine's tests share: requests, results, and their log-probs through the
// training forward.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "core/transfer.h"
#include "kernels/logprob.h"
#include "rollout/engine.h"
#include "tests/rollout/tiny_model.h"
#include "tests/support/device_values.h"

namespace orrery::testing_support {

using rollout::Engine;
using rollout::EngineConfig;
using rollout::EngineStats;
using rollout::GenerateRequest;
using rollout::GenerateResult;

inline GenerateRequest make_request(uint64_t prompt_index, int64_t prompt_tokens, uint32_t n,
                                    int64_t max_new_tokens) {
  GenerateRequest r;
  r.seed = 42;
  r.step = 3;
  r.prompt_index = prompt_index;
  r.n = n;
  r.max_new_tokens = max_new_tokens;
  Philox random(prompt_index, RngPurpose::kTest);
  for (int64_t i = 0; i < prompt_tokens; ++i)
    r.prompt.push_back(static_cast<int32_t>(random.below(95)));
  return r;
}

/// Prompts shorter and longer than a block, at its edges; all kinds of sampling; stop
/// tokens.
inline std::vector<GenerateRequest> mixed_requests() {
  std::vector<GenerateRequest> all = {make_request(0, 1, 3, 40),  make_request(1, 31, 2, 9),
                                      make_request(2, 32, 4, 35), make_request(3, 33, 1, 20),
                                      make_request(4, 70, 5, 50), make_request(5, 64, 2, 1)};
  all[1].sampling.temperature = 0;
  all[2].sampling.temperature = 0.6f;
  all[3].sampling.top_k = 5;
  all[4].sampling.top_p = 0.8f;
  all[4].sampling.temperature = 1.3f;
  all[4].stop_token_ids = {7, 30};
  all[0].sampling.min_p = 0.05f;
  all[0].stop_token_ids = {11};
  return all;
}

inline std::vector<GenerateResult> generate(const models::Transformer& model,
                                            const std::vector<GenerateRequest>& requests,
                                            const EngineConfig& config, int threads = 1,
                                            EngineStats* stats = nullptr) {
  const Context ctx = test_context(threads);
  Engine engine(ctx, model, nullptr, config);
  for (const GenerateRequest& request : requests) engine.submit(request);
  std::vector<GenerateResult> results = engine.run();
  EXPECT_EQ(engine.stats().kv_blocks_in_use, 0);
  if (stats != nullptr) *stats = engine.stats();
  return results;
}

inline void expect_same_bits(const std::vector<GenerateResult>& a,
                             const std::vector<GenerateResult>& b, const char* what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].prompt_index, b[i].prompt_index) << what;
    ASSERT_EQ(a[i].sample_index, b[i].sample_index) << what;
    const std::string place =
        fmt::format("{}: prompt {} sample {}", what, a[i].prompt_index, a[i].sample_index);
    ASSERT_EQ(a[i].tokens, b[i].tokens) << place;
    ASSERT_EQ(a[i].logprobs, b[i].logprobs) << place;
    ASSERT_EQ(a[i].entropies, b[i].entropies) << place;
    ASSERT_EQ(a[i].weight_versions, b[i].weight_versions) << place;
    ASSERT_EQ(a[i].finish_reason, b[i].finish_reason) << place;
  }
}

/// Log-probs and entropies of the response tokens through the training forward.
struct Scores {
  std::vector<float> logprobs, entropies;
  std::vector<int32_t> argmax;
};

inline Scores score(const models::Transformer& model, const models::TrainBatch& batch,
                    const std::vector<int32_t>& targets, float inv_temperature) {
  const Context ctx = test_context();
  Arena arena(ctx.device);
  const auto rows = static_cast<int64_t>(batch.output_rows.size());
  const ActMat hidden = arena.act_mat(model.compute_dtype(), rows, model.config().hidden_size);
  const models::BatchPlan plan = models::plan_training(ctx, model, batch, arena);
  models::transformer_forward_train(ctx, model, plan, hidden, arena);
  const Mat<float> logits = arena.mat<float>(rows, model.config().vocab_size);
  models::lm_head_forward(ctx, model, logits, hidden);
  const std::vector<float> zeros(targets.size());
  const testing_support::DeviceFloats logprobs(ctx, zeros), entropies(ctx, zeros),
      inverse(ctx, std::vector<float>(targets.size(), inv_temperature));
  const testing_support::DeviceValues<int32_t> ids(ctx, targets);
  kernels::logprob_forward(
      ctx, {.logprobs = logprobs.vec(),
            .entropies = entropies.vec(),
            .logits = logits,
            .targets = ids.vec(),
            .inv_temperature = inverse.vec(),
            .numerics = kernels::numerics_class(ctx.device, model.compute_dtype())});
  Scores scores{logprobs.values(), entropies.values(), {}};
  const std::vector<float> all = testing_support::downloaded(ctx, as_vec(logits));
  for (int64_t i = 0; i < rows; ++i) {
    const float* row = all.data() + i * logits.cols;
    scores.argmax.push_back(static_cast<int32_t>(std::max_element(row, row + logits.cols) - row));
  }
  return scores;
}

/// A group as the learner packs it: the prompt is one segment, the responses (without
/// their last token) its children.
inline Scores score_group(const models::Transformer& model, const GenerateRequest& request,
                          std::span<const GenerateResult> samples) {
  std::vector<int32_t> tokens = request.prompt, positions(request.prompt.size()), output_rows,
                       targets;
  std::iota(positions.begin(), positions.end(), 0);
  const auto prompt_tokens = static_cast<int64_t>(request.prompt.size());
  std::vector<kernels::AttentionSegment> segments = {{0, prompt_tokens, 0, -1}};
  for (const GenerateResult& sample : samples) {
    targets.insert(targets.end(), sample.tokens.begin(), sample.tokens.end());
    output_rows.push_back(static_cast<int32_t>(prompt_tokens) - 1);
    const auto inputs = static_cast<int64_t>(sample.tokens.size()) - 1;
    if (inputs > 0)
      segments.push_back({static_cast<int64_t>(tokens.size()), inputs, prompt_tokens, 0});
    for (int64_t i = 0; i < inputs; ++i) {
      output_rows.push_back(static_cast<int32_t>(tokens.size()));
      tokens.push_back(sample.tokens[static_cast<size_t>(i)]);
      positions.push_back(static_cast<int32_t>(prompt_tokens + i));
    }
  }
  const float temperature = request.sampling.temperature;
  return score(model, {tokens, positions, segments, output_rows}, targets,
               temperature == 0 ? 1.0f : 1.0f / temperature);
}

}  // namespace orrery::testing_support
