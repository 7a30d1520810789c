// The profile of real work: its operations are the formula's, and nothing is computed
// otherwise under it.
#include "core/profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "comm/communicator.h"
#include "learners/learner.h"
#include "proto/config.pb.h"
#include "rollout/engine.h"
#include "tests/learners/tiny_model.h"
#include "tools/bench/breakdown.h"

namespace orrery::tools {
namespace {

using testing_support::randomize;
using testing_support::tiny_config;
using testing_support::TinyBatch;

const Profile::Op* find(const Profile& profile, const std::string& phase, const std::string& op) {
  for (const Profile::Phase& p : profile.phases()) {
    if (p.name != phase) continue;
    const auto found =
        std::ranges::find_if(p.ops, [&](const Profile::Op& o) { return o.name == op; });
    if (found != p.ops.end()) return &*found;
  }
  return nullptr;
}

double flops(const Profile& profile, const std::string& phase, const std::string& op) {
  const Profile::Op* found = find(profile, phase, op);
  return found != nullptr ? found->flops : -1;
}

int64_t calls(const Profile& profile, const std::string& phase, const std::string& op) {
  const Profile::Op* found = find(profile, phase, op);
  return found != nullptr ? found->calls : 0;
}

void expect_ops_within_phases(const Profile& profile) {
  for (const Profile::Phase& phase : profile.phases()) {
    Profile::Clock::duration sum{};
    for (const Profile::Op& op : phase.ops) sum += op.time;
    EXPECT_LE(sum, phase.time) << phase.name;
  }
}

bool same(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

/// An update of a model with random weights, and the weights that it leaves.
struct Update {
  Update(const std::string& architecture, Profile* profile)
      : model(tiny_config(architecture), {}, DType::kF32) {
    Context ctx;
    randomize(model, 31, ctx);
    ctx.profile = profile;
    const auto comm = comm::make_local_communicator();
    learners::Learner learner(ctx, model, *comm, {2, 64, false});
    const TinyBatch batch(17, model.config().vocab_size, {9, 35, 3}, 3);
    trees = batch.trees();
    if (profile != nullptr) profile->start();
    {
      const ProfilePhaseScope phase(ctx, "update");
      result = learner.update(trees, learners::policy_objective({}), {}, 1.0);
    }
    if (profile != nullptr) profile->stop();
    for (learners::Tree& tree : trees) {
      learners::MicroBatch one;
      learners::append_tree(one, tree);
      const models::ForwardFlops f = models::forward_flops(
          model.config(), one.segments, static_cast<int64_t>(one.output_rows.size()));
      expected.matmul += f.matmul;
      expected.attention_causal += f.attention_causal;
      expected.head += f.head;
    }
  }
  models::Transformer model;
  std::vector<learners::Tree> trees;
  learners::UpdateResult result;
  models::ForwardFlops expected;
};

class ProfileOf : public ::testing::TestWithParam<const char*> {};

TEST_P(ProfileOf, AnUpdateHasTheFormulasOperations) {
  Profile profile(Context{}.stream());
  const Update update(GetParam(), &profile);
  const models::ForwardFlops& expected = update.expected;
  EXPECT_DOUBLE_EQ(flops(profile, "forward", "matmul forward"), expected.matmul);
  EXPECT_DOUBLE_EQ(flops(profile, "forward", "attention forward"), expected.attention_causal);
  EXPECT_DOUBLE_EQ(flops(profile, "backward", "matmul dX"), expected.matmul);
  EXPECT_DOUBLE_EQ(flops(profile, "backward", "matmul dW"), expected.matmul);
  EXPECT_DOUBLE_EQ(flops(profile, "backward", "attention backward"), 2 * expected.attention_causal);
  for (const char* op : {"matmul forward", "matmul dX", "matmul dW"})
    EXPECT_DOUBLE_EQ(flops(profile, "head and loss", op), expected.head) << op;
  double total = 0;
  for (const Profile::Phase& phase : profile.phases()) {
    for (const Profile::Op& op : phase.ops) total += op.flops;
  }
  EXPECT_DOUBLE_EQ(total, update.result.model_flops);

  const int64_t passes = calls(profile, "head and loss", "log-prob backward");  // micro-batches
  const int64_t layers = update.model.config().num_hidden_layers;
  EXPECT_GE(passes, 2);
  EXPECT_EQ(calls(profile, "forward", "matmul forward"), 4 * layers * passes);
  EXPECT_EQ(calls(profile, "forward", "attention forward"), layers * passes);
  EXPECT_EQ(calls(profile, "backward", "matmul dW"), 4 * layers * passes);
  EXPECT_EQ(calls(profile, "backward", "attention backward"), layers * passes);
  EXPECT_EQ(calls(profile, "optimizer", "adamw"), 1);
  EXPECT_EQ(find(profile, "optimizer", "adamw")->bytes,
            7.0 * sizeof(float) * static_cast<double>(update.model.parameters().size));
  EXPECT_EQ(calls(profile, "pack", "pack weights"), 4 * layers + 1);
  expect_ops_within_phases(profile);
}

TEST_P(ProfileOf, AnUpdateChangesNoBit) {
  Profile profile(Context{}.stream());
  const Update with(GetParam(), &profile), without(GetParam(), nullptr);
  EXPECT_TRUE(same(testing_support::weights_of({}, with.model),
                   testing_support::weights_of({}, without.model)));
  EXPECT_EQ(with.result.grad_norm, without.result.grad_norm);
  EXPECT_EQ(with.result.sums.loss, without.result.sums.loss);
}

INSTANTIATE_TEST_SUITE_P(Architectures, ProfileOf, ::testing::Values("llama", "qwen2", "qwen3"),
                         [](const auto& test) { return std::string(test.param); });

constexpr int64_t kPrompt = 9, kNew = 12;
constexpr uint32_t kSamples = 3;

std::vector<rollout::GenerateResult> generate(const models::Transformer& model, Profile* profile) {
  Context ctx;
  ctx.profile = profile;
  rollout::EngineConfig config;
  config.max_num_seqs = 8;
  config.kv_blocks = 64;
  rollout::Engine engine(ctx, model, nullptr, config);
  if (profile != nullptr) profile->start();
  for (uint64_t i = 0; i < 2; ++i) {
    rollout::GenerateRequest request;
    request.seed = 5;
    request.prompt_index = i;
    request.n = kSamples;
    for (int32_t t = 0; t < kPrompt; ++t) request.prompt.push_back(t + static_cast<int32_t>(i));
    request.max_new_tokens = kNew;
    engine.submit(std::move(request));
  }
  std::vector<rollout::GenerateResult> results = engine.run();
  if (profile != nullptr) profile->stop();
  return results;
}

TEST(Profile, ARolloutHasTheFormulasOperationsAndItsBits) {
  models::Transformer model(tiny_config("llama"), {}, DType::kF32);
  randomize(model, 3, Context{});
  Profile profile(Context{}.stream());
  const std::vector<rollout::GenerateResult> with = generate(model, &profile),
                                             without = generate(model, nullptr);
  ASSERT_EQ(with.size(), without.size());
  for (size_t i = 0; i < with.size(); ++i) {
    EXPECT_EQ(with[i].tokens, without[i].tokens);
    EXPECT_TRUE(same(with[i].logprobs, without[i].logprobs));
  }
  const kernels::AttentionSegment prompt{0, kPrompt, 0, -1}, response{0, kNew - 1, kPrompt, 0};
  const models::ForwardFlops prefill =
                                 models::forward_flops(model.config(), std::span(&prompt, 1), 1),
                             decode = models::forward_flops(model.config(), std::span(&response, 1),
                                                            kNew - 1);
  EXPECT_DOUBLE_EQ(flops(profile, "prefill", "matmul forward"), 2 * prefill.matmul);
  EXPECT_DOUBLE_EQ(flops(profile, "prefill", "attention forward"), 2 * prefill.attention_causal);
  EXPECT_DOUBLE_EQ(flops(profile, "prefill", "lm head"), 2 * prefill.head);
  EXPECT_DOUBLE_EQ(flops(profile, "decode", "matmul forward"), 2 * kSamples * decode.matmul);
  EXPECT_DOUBLE_EQ(flops(profile, "decode", "attention forward"),
                   2 * kSamples * decode.attention_causal);
  EXPECT_DOUBLE_EQ(flops(profile, "decode", "lm head"), 2 * kSamples * decode.head);
  EXPECT_EQ(calls(profile, "decode", "sampling"), kNew - 1);
  expect_ops_within_phases(profile);
}

TEST(Breakdown, IsOfOneStepAndAddsUp) {
  Profile profile(Context{}.stream());
  const Update update("llama", &profile);
  constexpr double kPeak = 1e9, kBandwidth = 1e10;
  const Breakdown one = make_breakdown(profile, 1, kPeak, kBandwidth),
                  half = make_breakdown(profile, 2, kPeak, kBandwidth);
  EXPECT_DOUBLE_EQ(half.seconds, one.seconds / 2);
  double share = 0;
  for (const Breakdown::Phase& phase : one.phases) {
    share += phase.share;
    double seconds = 0;
    for (const Breakdown::Row& op : phase.ops) {
      seconds += op.seconds;
      EXPECT_DOUBLE_EQ(op.of_product, op.flops / kPeak);
      EXPECT_DOUBLE_EQ(op.of_bandwidth, op.bytes / kBandwidth);
    }
    if (!phase.ops.empty()) {
      EXPECT_NEAR(seconds, phase.seconds, 1e-12) << phase.name;
      EXPECT_EQ(phase.ops.back().name, "other");
      EXPECT_TRUE(
          std::is_sorted(phase.ops.begin(), phase.ops.end() - 1,
                         [](const auto& a, const auto& b) { return a.seconds > b.seconds; }));
    }
  }
  EXPECT_NEAR(share, 1, 1e-12);
  EXPECT_EQ(one.phases.back().name, Profile::kNoPhase);
  const std::string table = breakdown_table(one);
  EXPECT_THAT(table, ::testing::HasSubstr("\n  head and loss "));
  EXPECT_THAT(table, ::testing::HasSubstr("\n    matmul dW "));
  EXPECT_THAT(table, ::testing::Not(::testing::ContainsRegex("nan|inf")));
}

}  // namespace
}  // namespace orrery::tools
