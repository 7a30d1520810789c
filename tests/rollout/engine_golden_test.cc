// Greedy continuations of real models against an independent float64 forward pass.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/file.h"
#include "rollout/engine.h"
#include "storage/hf_folder.h"
#include "tests/support/assets.h"
#include "tests/support/weights.h"

namespace orrery::rollout {
namespace {

void expect_golden(const std::filesystem::path& folder) {
  const nlohmann::json golden = nlohmann::json::parse(read_file(folder / "golden_greedy.json"));
  const auto prompt = golden.at("prompt_ids").get<std::vector<int32_t>>();
  const auto ids = golden.at("ids").get<std::vector<int32_t>>();
  const auto logprobs = golden.at("logprobs").get<std::vector<double>>();
  const auto entropies = golden.at("entropies").get<std::vector<double>>();

  const Context ctx = testing_support::test_context(2);
  const models::ModelConfig config = models::load_model_config(folder);
  models::Transformer model(config, ctx.device, DType::kF32);
  testing_support::change_weights(ctx, model, [&](std::vector<float>& weights) {
    storage::load_hf_weights({}, folder, config, model.table(), weights);
  });
  model.pack(ctx);
  Engine engine(ctx, model, nullptr, {});
  GenerateRequest request;
  request.prompt = prompt;
  request.sampling.temperature = 0;
  request.max_new_tokens = static_cast<int64_t>(ids.size() - prompt.size());
  engine.submit(request);
  const std::vector<GenerateResult> results = engine.run();

  ASSERT_EQ(results.size(), 1u);
  const size_t first = prompt.size();
  EXPECT_EQ(results[0].tokens,
            std::vector<int32_t>(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end()));
  for (size_t i = 0; i < results[0].tokens.size(); ++i) {  // logprobs[i] predicts ids[i + 1]
    EXPECT_NEAR(results[0].logprobs[i], logprobs[first - 1 + i], 1e-4) << "response token " << i;
    EXPECT_NEAR(results[0].entropies[i], entropies[first - 1 + i], 1e-4) << "response token " << i;
  }
}

TEST(EngineGolden, TinyStories656K) {
  ORRERY_NEEDS_ASSET("models/tinystories-656k/golden_greedy.json");
  expect_golden(testing_support::assets() / "models/tinystories-656k");
}

TEST(EngineGolden, Stories260K) {
  ORRERY_NEEDS_ASSET("models/stories260K-hf/golden_greedy.json");
  expect_golden(testing_support::assets() / "models/stories260K-hf");
}

}  // namespace
}  // namespace orrery::rollout
