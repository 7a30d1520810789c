// What an actor does with rewards that are no numbers: the run ends, and says whose they are.
#include "actors/actor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <limits>

#include "core/error.h"
#include "models/config.h"
#include "tests/support/scratch.h"

namespace orrery {
namespace {

using testing::HasSubstr;
using testing_support::error_of;

constexpr uint32_t kSamples = 4;

/// The same question again and again. Sample `bad_sample` of every group gets `bad` as its reward, or as a
/// part of it.
class Judge : public Environment {
 public:
  Judge(uint32_t bad_sample, double bad, bool part) : bad_sample_(bad_sample), bad_(bad), part_(part) {}
  uint64_t size(Split) const override { return 0; }
  std::unique_ptr<Episode> reset(Split, uint64_t) const override {
    const bool bad = samples_++ == bad_sample_;
    StepResult result;
    result.reward = bad && !part_ ? static_cast<float>(bad_) : 1.0f;
    result.extra["correct"] = bad && part_ ? bad_ : 1.0;
    return std::make_unique<Verdict>(std::move(result), samples_);
  }
  std::optional<Demonstration> demonstration(uint64_t) const override { return std::nullopt; }

 private:
  struct Verdict : Episode {
    Verdict(StepResult r, std::atomic<uint32_t>& samples) : result(std::move(r)), samples_(samples) {}
    const std::vector<ChatMessage>& messages() const override { return messages_; }
    /// Asked for by the prompt source: the episodes that come next are the samples.
    const std::string& prompt() const override {
      samples_ = 0;
      return prompt_;
    }
    const std::string& data_source() const override { return source_; }
    StepResult step(const std::string&) override { return result; }
    StepResult result;
    std::atomic<uint32_t>& samples_;
    std::vector<ChatMessage> messages_;
    std::string prompt_ = "1+1=", source_ = "judge";
  };
  uint32_t bad_sample_;
  double bad_;
  bool part_;
  mutable std::atomic<uint32_t> samples_{0};
};

TEST(Actor, RewardsThatAreNotFiniteEndTheRunWhereverTheyStand) {
  const std::string folder = ORRERY_SOURCE_DIR "/experiments/quickstart_model";
  const Tokenizer tokenizer = Tokenizer::load(folder);
  Transformer model(load_model_config(folder), {}, DType::kF32);
  initialize_parameters(model.config(), model.table(), 3, model.parameters());
  model.pack({});
  const proto::DataSection data;
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  const auto run = [&](uint32_t sample, double value, bool part, Split split) {
    const Judge env(sample, value, part);
    const PromptSource source(data, env, tokenizer, 1);
    Engine engine({}, model, &tokenizer, {});
    ActorConfig config;
    config.n = kSamples;
    config.split = split;
    config.max_response_length = 3;
    Actor actor(engine, tokenizer, env, source, config);
    LocalLeases leases(7, 8);
    actor.run(0, leases);
    return leases.take();
  };
  for (const Split split : {Split::kTrain, Split::kVal}) {
    EXPECT_EQ(run(0, 0.5, false, split).front().samples.front().reward, 0.5f);
    for (uint32_t sample = 0; sample < kSamples; ++sample) {
      for (const double bad : {nan, inf, -inf}) {
        const std::string place = " for prompt 7 sample " + std::to_string(sample);
        EXPECT_THAT(error_of([&] { run(sample, bad, false, split); }),
                    AllOf(HasSubstr("the reward of judge is "), HasSubstr(place)));
        EXPECT_THAT(error_of([&] { run(sample, bad, true, split); }),
                    AllOf(HasSubstr("the reward part 'correct' of judge is "), HasSubstr(place)));
      }
    }
  }
}

}  // namespace
}  // namespace orrery
