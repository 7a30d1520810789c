// The engine: how samples begin and end, its memory and its errors.
#include "rollout/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include <set>

#include "core/error.h"
#include "core/transfer.h"

#include "tests/rollout/engine_testing.h"
#include "tests/support/scratch.h"

namespace orrery::rollout {
namespace {

using testing::HasSubstr;
using testing_support::error_of;
using testing_support::expect_same_bits;
using testing_support::generate;
using testing_support::kArchitectures;
using testing_support::make_request;
using testing_support::mixed_requests;
using testing_support::randomize;
using testing_support::test_context;
using testing_support::test_device;
using testing_support::tiny_config;

class EngineTest : public testing::Test {
 protected:
  EngineTest() : model_(tiny_config(kArchitectures[0]), test_device(), DType::kF32) {
    randomize(ctx_, model_, 5);
  }
  Context ctx_ = test_context();
  models::Transformer model_;
};

TEST_F(EngineTest, SamplesDifferAndFollowSeedStepAndPosition) {
  GenerateRequest request = make_request(9, 20, 4, 30);
  const auto base = generate(model_, {request}, {});
  EXPECT_NE(base[0].tokens, base[1].tokens);
  GenerateRequest other = request;
  other.seed = 43;
  EXPECT_NE(generate(model_, {other}, {})[0].tokens, base[0].tokens);
  other = request;
  other.step = 4;
  EXPECT_NE(generate(model_, {other}, {})[0].tokens, base[0].tokens);
  // A later turn: its own response so far is part of the prompt, and the draws go on
  // where they were.
  other = request;
  other.n = 1;
  other.prompt.insert(other.prompt.end(), base[0].tokens.begin(), base[0].tokens.begin() + 10);
  other.generated_before = 10;
  other.max_new_tokens = 20;
  const auto later = generate(model_, {other}, {});
  EXPECT_EQ(later[0].tokens,
            std::vector<int32_t>(base[0].tokens.begin() + 10, base[0].tokens.end()));
  EXPECT_EQ(later[0].logprobs,
            std::vector<float>(base[0].logprobs.begin() + 10, base[0].logprobs.end()));
}

TEST_F(EngineTest, EndsAtTheContextLimitAndAtMaxNewTokens) {
  const auto at_limit = generate(model_, {make_request(0, 30, 2, 1000)}, {.max_model_len = 41});
  EXPECT_EQ(at_limit[1].tokens.size(), 11u);
  EXPECT_EQ(at_limit[1].finish_reason, FinishReason::kLength);
  const auto at_model = generate(model_, {make_request(0, 199, 1, 1000)}, {});
  EXPECT_EQ(at_model[0].tokens.size(), 1u);
  const auto short_one = generate(model_, {make_request(0, 30, 1, 4)}, {});
  EXPECT_EQ(short_one[0].tokens.size(), 4u);
  EXPECT_EQ(short_one[0].finish_reason, FinishReason::kLength);
}

TEST_F(EngineTest, StopsAtAStopTokenAndKeepsIt) {
  GenerateRequest request = make_request(0, 30, 1, 40);
  const auto free_run = generate(model_, {request}, {});
  const int32_t stop = free_run[0].tokens[12];
  const auto first = std::ranges::find(free_run[0].tokens, stop);
  request.stop_token_ids = {-1, stop};
  const auto stopped = generate(model_, {request}, {});
  EXPECT_EQ(stopped[0].tokens, std::vector<int32_t>(free_run[0].tokens.begin(), first + 1));
  EXPECT_EQ(stopped[0].finish_reason, FinishReason::kStop);
}

TEST_F(EngineTest, CountsWhatItDoes) {
  EngineStats stats;
  generate(model_, {make_request(0, 50, 4, 10), make_request(1, 20, 1, 10)}, {}, 1, &stats);
  EXPECT_EQ(stats.prefill_tokens, 70);
  EXPECT_EQ(stats.decode_tokens, 5 * 9);
  EXPECT_EQ(stats.shared_prompt_tokens, 150);
  EXPECT_EQ(stats.steps, 10);
  EXPECT_EQ(stats.preemptions, 0);
}

TEST_F(EngineTest, ReusesItsMemory) {
  Engine engine(ctx_, model_, nullptr, {.max_num_batched_tokens = 64});
  const auto round = [&] {
    for (const GenerateRequest& request : mixed_requests()) engine.submit(request);
    engine.run();
  };
  round();
  round();
  const size_t bytes = engine.memory_bytes();
  round();
  EXPECT_EQ(engine.memory_bytes(), bytes);
}

/// Keys and values of f32, or of bf16: a float's NaN is no bf16 NaN in its lower half,
/// but is one in its upper half.
class LentMemory : public EngineTest, public testing::WithParamInterface<DType> {};

TEST_P(LentMemory, IsUsedWhateverWasLeftInIt) {
  models::Transformer model(tiny_config(kArchitectures[0]), test_device(), GetParam());
  randomize(ctx_, model, 5);
  const auto requests = mixed_requests();
  const auto expected = generate(model, requests, {});
  EngineConfig config;
  config.kv_blocks = 40;
  const auto needed = static_cast<int64_t>(
      40 * models::KvCache::bytes_per_block(model.config(), GetParam()) / sizeof(float));
  std::vector<float> host(static_cast<size_t>(needed + 5));
  const Buffer lent(ctx_.device, host.size() * sizeof(float));
  const Vec<float> memory(static_cast<float*>(lent.data()), needed + 5);
  const auto fill_with_nan = [&] {  // a learner's gradient that overflowed
    std::ranges::fill(host, std::numeric_limits<float>::quiet_NaN());
    upload(ctx_, memory, host);
  };
  fill_with_nan();
  config.kv_memory = memory;
  Engine engine(ctx_, model, nullptr, config);
  EngineConfig own = config;
  own.kv_memory = memory.part(0, needed - 1);  // too small
  EXPECT_EQ(Engine(ctx_, model, nullptr, own).memory_bytes() - engine.memory_bytes(),
            static_cast<size_t>(needed) * sizeof(float));
  for (int round = 0; round < 2; ++round) {
    for (const GenerateRequest& request : requests) engine.submit(request);
    expect_same_bits(engine.run(), expected, "lent memory");
    fill_with_nan();
    engine.set_weight_version(0);
    fill_with_nan();  // until work comes
  }
  engine.submit(requests.front());
  download(ctx_, Span<float>(host), memory);
  EXPECT_TRUE(std::all_of(host.begin(), host.begin() + needed, [](float v) { return v == 0; }));
  EXPECT_TRUE(std::isnan(host[static_cast<size_t>(needed)])) << "beyond what the cache needs";
}

TEST_P(LentMemory, IsAllThatTheEngineUses) {
  models::Transformer model(tiny_config(kArchitectures[0]), test_device(), GetParam());
  randomize(ctx_, model, 5);
  const auto requests = mixed_requests();
  const auto expected = generate(model, requests, {});
  EngineConfig config{.max_num_seqs = 16, .max_num_batched_tokens = 64};
  const auto memory_error = [&](const Vec<float>& memory) {
    config.memory = memory;
    return error_of([&] { Engine(ctx_, model, nullptr, config); });
  };
  const Buffer all(ctx_.device, size_t{8} << 20);
  EXPECT_THAT(memory_error(all.vec<float>().part(0, 1000)),
              HasSubstr("a step of the rollout engine needs"));
  config.memory = all.vec<float>();
  Engine engine(ctx_, model, nullptr, config);
  EXPECT_EQ(engine.memory_bytes(), 0u);
  // As many blocks as 16 sequences need, or what fits.
  int64_t least = 0, most = all.vec<float>().size;
  while (least + 1 < most) {
    const int64_t size = (least + most) / 2;
    (memory_error(all.vec<float>().part(0, size)) == "no error" ? most : least) = size;
  }
  config.memory = all.vec<float>().part(0, most);
  Engine smallest(ctx_, model, nullptr, config);
  EXPECT_LT(smallest.stats().kv_blocks, engine.stats().kv_blocks);
  for (Engine* each : {&engine, &smallest}) {
    for (const GenerateRequest& request : requests) each->submit(request);
    expect_same_bits(each->run(), expected, "given memory");
  }
}

INSTANTIATE_TEST_SUITE_P(Types, LentMemory, testing::ValuesIn(testing_support::test_dtypes()),
                         [](const auto& type) { return std::string(dtype_name(type.param)); });

TEST_F(EngineTest, StampsWeightVersionsAndRefusesThemInFlight) {
  Engine engine(ctx_, model_, nullptr, {});
  engine.set_weight_version(17);
  engine.submit(make_request(0, 10, 2, 5));
  EXPECT_THROW(engine.set_weight_version(18), Error);
  const auto results = engine.run();
  EXPECT_EQ(results[0].weight_versions, std::vector<uint64_t>(5, 17));
  engine.set_weight_version(18);
  engine.submit(make_request(0, 10, 1, 2));
  EXPECT_EQ(engine.run()[0].weight_versions, std::vector<uint64_t>(2, 18));
}

TEST_F(EngineTest, AbortsAndGoesOn) {
  Engine engine(ctx_, model_, nullptr, {.max_num_batched_tokens = 16});
  for (const GenerateRequest& request : mixed_requests()) engine.submit(request);
  for (int i = 0; i < 5; ++i) engine.step();
  EXPECT_GT(engine.stats().kv_blocks_in_use, 0);
  engine.abort_all();
  EXPECT_FALSE(engine.has_work());
  EXPECT_EQ(engine.stats().kv_blocks_in_use, 0);
  engine.set_weight_version(1);
  const std::vector<GenerateRequest> requests = {make_request(0, 20, 2, 12)};
  engine.submit(requests[0]);
  auto results = engine.run();
  for (GenerateResult& r : results) std::ranges::fill(r.weight_versions, 0);
  expect_same_bits(results, generate(model_, requests, {}), "after abort");
}

TEST_F(EngineTest, SaysWhichSampleYieldsNan) {
  testing_support::change_weights(ctx_, model_, [&](std::vector<float>& weights) {
    const models::ParameterTable& table = model_.table();
    const models::Parameter& down = *table.find("model.layers.1.mlp.down_proj.weight");
    table.values(Span<float>(weights), down)[0] = std::numeric_limits<float>::quiet_NaN();
  });
  model_.pack(ctx_);
  Engine engine(ctx_, model_, nullptr, {});
  engine.submit(make_request(77, 10, 2, 5));
  try {
    engine.run();
    FAIL() << "NaN was sampled";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("NaN for prompt 77 sample 0"));
  }
  engine.abort_all();
  EXPECT_FALSE(engine.has_work());
}

TEST_F(EngineTest, RefusesBadRequests) {
  struct BadCase {
    const char* part;
    std::function<void(GenerateRequest&)> spoil;
  };
  const std::vector<BadCase> cases = {
      {"is empty", [](GenerateRequest& r) { r.prompt.clear(); }},
      {"token 2 is 95, outside the model's vocabulary of 95",
       [](GenerateRequest& r) { r.prompt[2] = 95; }},
      {"token 0 is -1", [](GenerateRequest& r) { r.prompt[0] = -1; }},
      {"60 tokens leave no room to generate within max_model_len 60",
       [](GenerateRequest& r) { r.prompt.assign(60, 1); }},
      {"need 5 KV blocks of 32 tokens, and the cache has 4",
       [](GenerateRequest& r) {
         r = make_request(6, 60, 1, 1000);
         r.prompt.resize(59);
         r.n = 1;
       }},
      {"n must be between", [](GenerateRequest& r) { r.n = 0; }},
      {"n must be between", [](GenerateRequest& r) { r.first_sample = UINT32_MAX - 1; }},
      {"max_new_tokens is 0", [](GenerateRequest& r) { r.max_new_tokens = 0; }},
      {"temperature -1", [](GenerateRequest& r) { r.sampling.temperature = -1; }},
      {"temperature nan", [](GenerateRequest& r) { r.sampling.temperature = std::nanf(""); }},
      {"temperature 1e-45", [](GenerateRequest& r) { r.sampling.temperature = 1e-45f; }},
      {"at least 1e-06", [](GenerateRequest& r) { r.sampling.temperature = 1e-10f; }},
      {"top_p 0", [](GenerateRequest& r) { r.sampling.top_p = 0; }},
      {"top_p 1.5", [](GenerateRequest& r) { r.sampling.top_p = 1.5f; }},
      {"min_p 2", [](GenerateRequest& r) { r.sampling.min_p = 2; }},
      {"min_p -0.5", [](GenerateRequest& r) { r.sampling.min_p = -0.5f; }},
      {"stop string is empty", [](GenerateRequest& r) { r.stop_strings = {""}; }},
      {"need a tokenizer", [](GenerateRequest& r) { r.stop_strings = {"x"}; }},
  };
  for (const BadCase& bad : cases) {
    const bool about_blocks = std::string(bad.part).find("KV blocks") != std::string::npos;
    Engine engine(ctx_, model_, nullptr,
                  {.kv_blocks = 4, .max_model_len = about_blocks ? 160 : 60});
    GenerateRequest request = make_request(6, 10, 2, 5);
    bad.spoil(request);
    try {
      engine.submit(request);
      FAIL() << bad.part << " was accepted";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(bad.part));
      EXPECT_THAT(error.what(), HasSubstr("prompt 6"));
    }
    EXPECT_FALSE(engine.has_work());
  }
}

TEST_F(EngineTest, RefusesBadLimits) {
  EXPECT_EQ(Engine(ctx_, model_, nullptr, {.max_num_seqs = 9}).max_num_seqs(), 9);
  EXPECT_THROW(Engine(ctx_, model_, nullptr, {.max_num_seqs = 0}), Error);
  EXPECT_THROW(Engine(ctx_, model_, nullptr, {.max_num_batched_tokens = 0}), Error);
  EXPECT_THROW(Engine(ctx_, model_, nullptr, {.kv_blocks = -1}), Error);
  EXPECT_THROW(Engine(ctx_, model_, nullptr, {.kv_cache_bytes = 100}), Error);
  EXPECT_THROW(Engine(ctx_, model_, nullptr, {.max_model_len = 201}), Error);
}

TEST(SampleUniform, DependsOnEveryNumber) {
  std::set<float> values;
  const uint64_t big = uint64_t{1} << 40;
  for (const uint64_t seed : {uint64_t{1}, uint64_t{2}, big}) {
    for (const uint64_t step : {uint64_t{0}, uint64_t{1}, big}) {
      for (const uint64_t prompt : {uint64_t{0}, uint64_t{1}, big}) {
        for (const uint32_t sample : {0u, 1u, 1u << 31}) {
          for (const uint32_t position : {0u, 1u, 1u << 31}) {
            values.insert(sample_uniform(seed, step, prompt, sample, position));
          }
        }
      }
    }
  }
  EXPECT_EQ(values.size(), 243u);
  double sum = 0;
  for (uint32_t i = 0; i < 10000; ++i) sum += sample_uniform(1, 2, 3, i / 100, i % 100);
  EXPECT_NEAR(sum / 10000, 0.5, 0.02);
}

}  // namespace
}  // namespace orrery::rollout
