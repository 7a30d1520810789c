// The engine's promises: a sample's bits depend on its request and the weights alone,
// and are those of the training forward.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/rollout/engine_testing.h"

namespace orrery::rollout {
namespace {

using testing_support::Architecture;
using testing_support::expect_same_bits;
using testing_support::generate;
using testing_support::kArchitectures;
using testing_support::make_request;
using testing_support::mixed_requests;
using testing_support::randomize;
using testing_support::score_group;
using testing_support::Scores;
using testing_support::test_context;
using testing_support::test_device;
using testing_support::tiny_config;

class EngineBits : public testing::TestWithParam<std::tuple<Architecture, DType>> {
 protected:
  EngineBits()
      : model_(tiny_config(std::get<0>(GetParam())), test_device(), std::get<1>(GetParam())) {
    randomize(test_context(), model_, 5);
  }
  models::Transformer model_;
};

TEST_P(EngineBits, DependOnTheRequestAlone) {
  const std::vector<GenerateRequest> requests = mixed_requests();
  const std::vector<GenerateResult> expected = generate(model_, requests, {});
  ASSERT_EQ(expected.size(), 17u);

  for (const int64_t budget : {1, 7, 32, 1000}) {
    expect_same_bits(generate(model_, requests, {.max_num_batched_tokens = budget}), expected,
                     fmt::format("budget {}", budget).c_str());
  }
  for (const int64_t slots : {1, 3, 6}) {
    expect_same_bits(generate(model_, requests, {.max_num_seqs = slots}), expected,
                     fmt::format("{} slots", slots).c_str());
  }
  for (const int threads : {2, 3})
    expect_same_bits(generate(model_, requests, {}, threads), expected, "threads");

  std::vector<GenerateRequest> reversed(requests.rbegin(), requests.rend());
  expect_same_bits(generate(model_, reversed, {.max_num_batched_tokens = 40}), expected,
                   "reversed order");

  std::vector<GenerateRequest> singles;
  for (const GenerateRequest& request : requests) {
    for (uint32_t s = 0; s < request.n; ++s) {
      singles.push_back(request);
      singles.back().first_sample = s;
      singles.back().n = 1;
    }
  }
  expect_same_bits(generate(model_, singles, {}), expected, "single requests");
  std::vector<GenerateResult> alone;
  for (const GenerateRequest& request : singles)
    alone.push_back(generate(model_, {request}, {})[0]);
  expect_same_bits(alone, expected, "one request at a time");
}

TEST_P(EngineBits, SurvivePreemption) {
  std::vector<GenerateRequest> requests;
  for (uint64_t i = 0; i < 6; ++i)
    requests.push_back(make_request(i, 5 + 9 * static_cast<int64_t>(i), 3, 80));
  const std::vector<GenerateResult> expected = generate(model_, requests, {});
  for (const int64_t blocks : {6, 9, 20}) {
    EngineStats stats;
    const EngineConfig config{.max_num_batched_tokens = 50, .kv_blocks = blocks};
    expect_same_bits(generate(model_, requests, config, 1, &stats), expected,
                     fmt::format("{} blocks", blocks).c_str());
    EXPECT_GT(stats.preemptions, 0) << blocks << " blocks";
  }
}

TEST_P(EngineBits, AreThoseOfTheTrainingForward) {
  const std::vector<GenerateRequest> requests = mixed_requests();
  const std::vector<GenerateResult> results =
      generate(model_, requests, {.max_num_batched_tokens = 37});
  for (const GenerateRequest& request : requests) {
    std::vector<GenerateResult> group;
    for (const GenerateResult& r : results) {
      if (r.prompt_index == request.prompt_index) group.push_back(r);
    }
    ASSERT_EQ(group.size(), request.n);
    std::vector<float> logprobs, entropies;
    for (const GenerateResult& r : group) {
      logprobs.insert(logprobs.end(), r.logprobs.begin(), r.logprobs.end());
      entropies.insert(entropies.end(), r.entropies.begin(), r.entropies.end());
      const Scores alone = score_group(model_, request, {&r, 1});
      EXPECT_EQ(alone.logprobs, r.logprobs) << "prompt " << request.prompt_index;
      EXPECT_EQ(alone.entropies, r.entropies) << "prompt " << request.prompt_index;
      if (request.sampling.temperature == 0) {
        EXPECT_EQ(alone.argmax, r.tokens);
      }
    }
    const Scores tree = score_group(model_, request, group);
    EXPECT_EQ(tree.logprobs, logprobs) << "prompt " << request.prompt_index;
    EXPECT_EQ(tree.entropies, entropies) << "prompt " << request.prompt_index;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EngineBits,
                         testing::Combine(testing::ValuesIn(kArchitectures),
                                          testing::ValuesIn(testing_support::test_dtypes())),
                         [](const auto& param_info) {
                           return std::get<0>(param_info.param).model_type + "_" +
                                  std::string(dtype_name(std::get<1>(param_info.param)));
                         });

/// Prompts whose keys fill tiles of 128 and, where bf16 is tensor cores', a split of
/// 1,024; the samples of a group share the tiles of its prompt.
TEST(EngineBitsOfLongPrompts, AreThoseOfTheTrainingForwardForAnyBatch) {
  for (const DType dtype : testing_support::test_dtypes()) {
    models::ModelConfig config = tiny_config(kArchitectures[1]);
    config.max_position_embeddings = 1200;
    models::Transformer model(config, test_device(), dtype);
    randomize(test_context(), model, 7);
    std::vector<GenerateRequest> requests;
    for (const int64_t tokens : {100, 127, 128, 300, 1015, 1100})
      requests.push_back(make_request(requests.size(), tokens, 2, 12));
    const std::vector<GenerateResult> expected = generate(model, requests, {});
    expect_same_bits(generate(model, requests, {.max_num_batched_tokens = 90}), expected,
                     "chunks of 90");
    expect_same_bits(generate(model, requests, {.max_num_seqs = 2}, 2), expected, "two slots");
    for (size_t i = 0; i < requests.size(); ++i) {
      const std::vector<GenerateResult> group(expected.begin() + 2 * i,
                                              expected.begin() + 2 * i + 2);
      std::vector<float> logprobs, entropies;
      for (const GenerateResult& r : group) {
        logprobs.insert(logprobs.end(), r.logprobs.begin(), r.logprobs.end());
        entropies.insert(entropies.end(), r.entropies.begin(), r.entropies.end());
      }
      const Scores tree = score_group(model, requests[i], group);
      EXPECT_EQ(tree.logprobs, logprobs) << "prompt " << i;
      EXPECT_EQ(tree.entropies, entropies) << "prompt " << i;
    }
  }
}

}  // namespace
}  // namespace orrery::rollout
