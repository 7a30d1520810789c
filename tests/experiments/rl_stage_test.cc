// A step of RL on one rank with a small model: its bits, what a stop and missing
// samples make of it, and validation.
#include "experiments/rl_stage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "config/config.h"
#include "tests/support/scratch.h"
#include "tests/support/weights.h"

namespace orrery::experiments {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing_support::error_of;

constexpr uint64_t kPrompts = 3, kSamples = 4, kHeldOut = 5;

/// Rewards by the length of the response, which differ within a group. Of some prompts
/// all or some samples are dropped.
class Lengths : public actors::Environment {
 public:
  /// Samples to drop, by prompt index.
  using Dropped = std::map<uint64_t, std::set<uint32_t>>;

  explicit Lengths(Dropped dropped) : dropped_(std::move(dropped)) {}
  uint64_t size(actors::Split) const override { return 0; }
  std::unique_ptr<actors::Episode> reset(actors::Split split, uint64_t item) const override {
    return begin(split, item, {});
  }
  std::unique_ptr<actors::Episode> begin(actors::Split split, uint64_t,
                                         const actors::SampleId& id) const override {
    const auto found = dropped_.find(id.prompt_index);
    const bool drop = split == actors::Split::kTrain && found != dropped_.end() &&
                      found->second.contains(id.sample_index);
    return std::make_unique<Measured>(drop);
  }
  std::optional<actors::Demonstration> demonstration(uint64_t) const override {
    return std::nullopt;
  }

 private:
  struct Measured : actors::Episode {
    explicit Measured(bool drop) : drop_(drop) {}
    const std::vector<text::ChatMessage>& messages() const override { return messages_; }
    const std::string& prompt() const override { return prompt_; }
    const std::string& data_source() const override { return source_; }
    actors::StepResult step(const std::string& response) override {
      actors::StepResult result;
      result.dropped = drop_;
      result.reward = static_cast<float>(response.size());
      result.extra["correct"] = response.size() % 2 == 0 ? 1 : 0;
      return result;
    }
    bool drop_;
    std::vector<text::ChatMessage> messages_;
    std::string prompt_ = "1+1=", source_ = "lengths";
  };
  Dropped dropped_;
};

/// Everything that a stage needs, from random weights.
struct Rank {
  explicit Rank(Lengths::Dropped dropped = {}, const std::vector<std::string>& more = {}) {
    std::vector<std::string> overrides = {"data.train_batch_size=" + std::to_string(kPrompts),
                                          "rollout.n=" + std::to_string(kSamples),
                                          "data.val_size=" + std::to_string(kHeldOut),
                                          "actor.optim.lr=1e-3",
                                          "actor.optim.lr_warmup_steps=0",
                                          "rollout.max_num_seqs=8",
                                          "cluster.threads=1",
                                          "device=" + device_name(testing_support::test_device()),
                                          "run_dir=" + (scratch.path() / "run").string()};
    overrides.insert(overrides.end(), more.begin(), more.end());
    config = config::load_config(ORRERY_SOURCE_DIR "/experiments/quickstart.yaml", overrides);
    const actors::PromptUse use = training_prompts(config);
    job = make_job(config, *comm, {}, use, nullptr);
    auto env = std::make_unique<Lengths>(std::move(dropped));
    job->source = std::make_unique<actors::PromptSource>(config.data(), *env, job->tokenizer,
                                                         config.seed(), check_setup(*job), use);
    job->env = std::move(env);
    learner = std::make_unique<learners::Learner>(
        job->ctx, job->model(), *job->learners,
        learners::LearnerConfig{config.cluster().gradient_shards(),
                                config.actor().ppo_max_token_len_per_gpu(), false});
    stage =
        std::make_unique<RlStage>(*job, learner.get(), 0, [this] { return ++asked == stop_at; });
    stage->publish(0);
  }
  std::vector<float> weights() const { return testing_support::weights_of(job->ctx, job->model()); }

  testing_support::ScratchFolder scratch;
  proto::Config config;
  std::unique_ptr<comm::Communicator> comm = comm::make_local_communicator();
  int64_t asked = 0, stop_at = 0;  ///< how often whether to stop, and when the answer is yes
  std::unique_ptr<Job> job;
  std::unique_ptr<learners::Learner> learner;
  std::unique_ptr<RlStage> stage;
};

TEST(RlStage, AStepLearnsAndHasTheSameBitsAgain) {
  Rank one, other;
  const std::vector<float> before = one.weights();
  const auto step = one.stage->step(0);
  ASSERT_TRUE(step.has_value());
  EXPECT_NE(one.weights(), before);
  EXPECT_EQ(one.learner->optimizer().t(), 1);
  ASSERT_TRUE(other.stage->step(0).has_value());
  EXPECT_EQ(other.weights(), one.weights());
  ASSERT_TRUE(one.stage->step(1).has_value());
  EXPECT_NE(other.weights(), one.weights());

  const StepStats& stats = step->stats;
  EXPECT_GT(stats.grad_norm, 0);
  EXPECT_GT(stats.entropy, 0);
  EXPECT_TRUE(stats.signal);
  EXPECT_EQ(stats.skipped_updates, 0);
  // What steers is what is written.
  EXPECT_EQ(stats.grad_norm, step->metrics.at("actor/grad_norm"));
  EXPECT_EQ(stats.entropy, step->metrics.at("actor/entropy"));
  EXPECT_EQ(stats.loss, step->metrics.at("actor/loss"));
  EXPECT_EQ(stats.lr, step->metrics.at("actor/lr"));
  EXPECT_EQ(stats.reward, step->metrics.at("critic/rewards/mean"));
  EXPECT_EQ(stats.response_length, step->metrics.at("response_length/mean"));
  EXPECT_EQ(step->metrics.at("rollout/logprob_diff_max"), 0);
  EXPECT_EQ(step->metrics.at("training/global_step"), 1);
}

TEST(RlStage, GroupsAreOfTheStepsPromptsUnderItsWeights) {
  Rank rank;
  rank.stage->publish(70);
  for (uint64_t step = 0; step < 2; ++step) {
    ASSERT_TRUE(rank.stage->step(step).has_value());
    const auto& groups = rank.stage->last_groups();
    ASSERT_EQ(groups.size(), kPrompts);
    for (uint64_t g = 0; g < kPrompts; ++g) {
      EXPECT_EQ(groups[g].prompt_index, step * kPrompts + g);
      ASSERT_EQ(groups[g].samples.size(), kSamples);
      for (const rollout::Trajectory& t : groups[g].samples)
        EXPECT_EQ(t.weight_versions.front(), 70 + step);
    }
  }
  ASSERT_TRUE(rank.stage->probe().has_value());
}

TEST(RlStage, AStopDropsTheStepWhicheverPlaceItFinds) {
  Rank whole;
  ASSERT_TRUE(whole.stage->step(0).has_value());
  const int64_t asked = whole.asked;
  ASSERT_GT(asked, 4);
  // In the first engine step, in the middle, and as the last micro-batch's gradient is
  // done.
  for (const int64_t stop_at : {int64_t{1}, asked / 2, asked - 1, asked}) {
    Rank rank;
    const std::vector<float> before = rank.weights();
    rank.stop_at = stop_at;
    EXPECT_FALSE(rank.stage->step(0).has_value()) << stop_at << " of " << asked;
    EXPECT_EQ(rank.weights(), before);
    EXPECT_EQ(rank.learner->optimizer().t(), 0);
    rank.stage->publish(0);
    ASSERT_TRUE(rank.stage->step(0).has_value());
    EXPECT_EQ(rank.weights(), whole.weights()) << "the step comes again to the bit";
  }
}

TEST(RlStage, DroppedSamplesAreLeftOutAndCounted) {
  // Of prompt 0 two samples are left, of prompt 1 one, which has none to be compared
  // with.
  Rank rank({{0, {0, 2}}, {1, {0, 1, 3}}});
  rank.config.mutable_data()->set_env(proto::DataSection::EXTERNAL);
  const auto step = rank.stage->step(0);
  ASSERT_TRUE(step.has_value());
  EXPECT_EQ(step->metrics.at("rollout/dropped_samples"), 5);
  EXPECT_EQ(step->metrics.at("rollout/dropped_groups"), 1);
  const auto& groups = rank.stage->last_groups();
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0].samples.size(), 2u);
  EXPECT_EQ(groups[1].prompt_index, 2u);

  Rank none({{0, {0, 1, 2, 3}}, {1, {0, 1, 2}}, {2, {1, 2, 3}}});
  none.config.mutable_data()->set_env(proto::DataSection::EXTERNAL);
  EXPECT_THAT(error_of([&] { none.stage->step(0); }),
              HasSubstr("generate step 1: 10 of 12 samples are dropped"));
}

const std::vector<std::string> kRemax = {"algorithm.adv_estimator=remax"};

TEST(RlStage, RemaxComparesWithTheGreedyResponseAndLearnsFromTheSamplesAlone) {
  Rank rank({}, kRemax), plain;
  // All prompts of this environment are the same text, so that the greedy response is.
  const auto greedy = rank.stage->validate(0);
  const auto step = rank.stage->step(0);
  ASSERT_TRUE(step.has_value());
  ASSERT_TRUE(plain.stage->step(0).has_value());
  EXPECT_EQ(step->metrics.at("critic/greedy_reward/mean"), greedy->reward);
  EXPECT_EQ(step->metrics.at("critic/greedy_reward/min"), greedy->reward);
  EXPECT_FLOAT_EQ(step->metrics.at("critic/advantages/max"),
                  step->metrics.at("critic/rewards/max") - greedy->reward);
  EXPECT_FLOAT_EQ(step->metrics.at("critic/advantages/min"),
                  step->metrics.at("critic/rewards/min") - greedy->reward);
  for (uint64_t g = 0; g < kPrompts; ++g) {
    const auto& samples = rank.stage->last_groups()[g].samples;
    ASSERT_EQ(samples.size(), kSamples);
    for (uint64_t i = 0; i < kSamples; ++i)
      EXPECT_EQ(samples[i].tokens, plain.stage->last_groups()[g].samples[i].tokens);
  }
  EXPECT_NE(rank.weights(), plain.weights());
}

TEST(RlStage, APromptWithoutAGreedyResponseIsLeftOut) {
  // The greedy response is the sample after the last; one sample alone is enough.
  Rank rank({{0, {0, 1, 2}}, {1, {kSamples}}}, kRemax);
  rank.config.mutable_data()->set_env(proto::DataSection::EXTERNAL);
  const auto step = rank.stage->step(0);
  ASSERT_TRUE(step.has_value());
  EXPECT_EQ(step->metrics.at("rollout/dropped_samples"), 4);
  EXPECT_EQ(step->metrics.at("rollout/dropped_groups"), 1);
  const auto& groups = rank.stage->last_groups();
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0].samples.size(), 1u);
  EXPECT_EQ(groups[1].prompt_index, 2u);

  Rank none({{0, {kSamples}}, {1, {0, 1, 2, 3}}, {2, {0, 1, 2, 3}}}, kRemax);
  none.config.mutable_data()->set_env(proto::DataSection::EXTERNAL);
  EXPECT_THAT(error_of([&] { none.stage->step(0); }),
              AllOf(HasSubstr("generate step 1: 9 of 15 samples are dropped"),
                    HasSubstr("no prompt has both a sample and a greedy response")));
}

TEST(RlStage, AValidationScoresTheHeldOutPromptsAndChangesNothing) {
  Rank rank;
  const std::vector<float> before = rank.weights();
  const auto validation = rank.stage->validate(0);
  ASSERT_TRUE(validation.has_value());
  ASSERT_EQ(validation->groups.size(), kHeldOut);
  double reward = 0, correct = 0;
  for (const rollout::Group& group : validation->groups) {
    ASSERT_EQ(group.samples.size(), 1u);
    reward += group.samples.front().reward;
    correct += group.samples.front().reward_extra.at("correct");
  }
  EXPECT_EQ(validation->reward, reward / kHeldOut);
  EXPECT_EQ(validation->accuracy, correct / kHeldOut);
  EXPECT_EQ(validation->score(), validation->accuracy);
  EXPECT_EQ(validation->metrics.at("val-core/lengths/acc/mean@1"), validation->accuracy);
  EXPECT_EQ(rank.weights(), before);

  rank.stop_at = rank.asked + 1;
  EXPECT_FALSE(rank.stage->validate(0).has_value());
  // A validation before a step takes nothing from it.
  ASSERT_TRUE(rank.stage->step(0).has_value());
  Rank without;
  ASSERT_TRUE(without.stage->step(0).has_value());
  EXPECT_EQ(rank.weights(), without.weights());
}

}  // namespace
}  // namespace orrery::experiments
