#include "experiments/config_check.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "config/config.h"
#include "core/cuda_api.h"
#include "tests/config/config_file.h"

namespace orrery::experiments {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class CheckConfigFile : public config::ConfigFile {};

proto::Config usable(const std::vector<std::string>& overrides) {
  std::vector<std::string> all = {"model.path=/m", "data.train_batch_size=32", "rollout.n=16"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  return config::parse("", all);
}

TEST(CheckConfig, ExplainsWhatDoesNotFitTogether) {
  check_config(usable({}), 1);
  check_config(usable({"actor.ppo_mini_batch_size=8"}), 4);
  check_config(usable({"cluster.placement=split"}), 3);
  check_config(usable({"device=debug"}), 1);
  check_config(usable({"device=auto"}), 2);
  check_config(usable({"cluster.data_plane=mpi"}), 2);
  check_config(usable({"trainer.total_training_steps=0", "rollout.n=1", "rollout.temperature=0"}),
               1);

  const auto refused = [](const std::vector<std::string>& overrides, int ranks = 1) {
    return config::usage_error([&] { check_config(usable(overrides), ranks); });
  };
  EXPECT_EQ(config::usage_error([] { check_config(config::parse(""), 1); }),
            "model.path is not set: give the folder of a Hugging Face model, "
            "such as model.path=models/SmolLM2-135M");
  EXPECT_EQ(
      refused({"device=cuda:x"}),
      kCudaBuilt
          ? "device is 'cuda:x', which is no device: use cpu or cpu-dot16 or debug or auto or cuda"
          : "device is 'cuda:x', which is no device: use cpu or cpu-dot16 or debug or auto");
  EXPECT_THAT(refused({"rollout.device=nonsense"}),
              testing::StartsWith("rollout.device is 'nonsense', which is no device: "
                                  "use same or cpu or cpu-dot16 or debug or auto"));
  EXPECT_EQ(refused({"device=debug", "cluster.data_plane=nccl"}),
            "cluster.data_plane is nccl but device is debug, and NCCL is for CUDA devices: "
            "set device to cuda, or cluster.data_plane to auto");
  if (!kCudaBuilt) {
    EXPECT_EQ(refused({"device=cuda:7"}),
              "device is 'cuda:7', which this build has no kernels for: "
              "use cpu or cpu-dot16 or debug or auto");
  }
  EXPECT_EQ(
      refused({"actor.ppo_mini_batch_size=12"}),
      "actor.ppo_mini_batch_size (12 prompts) does not divide data.train_batch_size (32 prompts): "
      "set it to 8, or train_batch_size to 36");
  EXPECT_EQ(
      refused({"actor.ppo_mini_batch_size=64"}),
      "actor.ppo_mini_batch_size is 64 prompts but data.train_batch_size has only 32 (both count "
      "prompts, not samples): lower the first to 32 or less, or 0 for one update a step");
  EXPECT_EQ(refused({"actor.ppo_mini_batch_size=2"}, 4),
            "4 learner ranks share mini-batches of 2 prompt(s), so some would have no work: "
            "start fewer ranks, or raise actor.ppo_mini_batch_size");
  EXPECT_EQ(
      refused({"data.train_batch_size=2", "cluster.placement=split", "cluster.learners=1"}, 4),
      "3 actor ranks share data.train_batch_size = 2 prompt(s) a step, so some would have no work: "
      "start fewer ranks, or raise data.train_batch_size");
  EXPECT_EQ(refused({"sft.total_training_steps=5", "sft.train_batch_size=2"}, 4),
            "4 learner ranks share sft.train_batch_size = 2 example(s) a step, "
            "so some would have no work: start fewer ranks, or raise sft.train_batch_size");
  EXPECT_THAT(refused({"cluster.gradient_shards=6"}),
              HasSubstr("cluster.gradient_shards is 6: it must be a power of two"));
  EXPECT_THAT(refused({"cluster.placement=split"}),
              HasSubstr("cluster.placement: split needs at least 2 ranks"));

  EXPECT_THAT(refused({"rollout.temperature=0"}), HasSubstr("rollout.temperature is 0 (greedy)"));
  for (const char* key : {"rollout.temperature", "rollout.val_temperature"}) {
    for (const char* value : {"1e-60", "1e-40", "1e-7"}) {
      EXPECT_THAT(
          refused({fmt::format("{}={}", key, value)}),
          AllOf(HasSubstr(key), HasSubstr("float32"), HasSubstr("0 (greedy) or at least 1e-06")))
          << value;
    }
    check_config(usable({fmt::format("{}=1e-6", key)}), 1);
    check_config(usable({fmt::format("{}=1e38", key)}), 1);
  }
  const std::vector<std::string> gspo = {"actor.loss_mode=gspo", "actor.clip_ratio_low=3e-4",
                                         "actor.clip_ratio_high=4e-4"};
  EXPECT_EQ(refused(gspo),
            "actor.loss_mode is gspo, which is a loss of whole responses: "
            "set actor.loss_agg_mode to seq-mean-token-mean "
            "(or to seq-mean-token-sum, which is LUSPO)");
  std::vector<std::string> whole = gspo;
  whole.push_back("actor.loss_agg_mode=seq-mean-token-mean");
  check_config(usable(whole), 1);
  std::vector<std::string> luspo = gspo;
  luspo.emplace_back("actor.loss_agg_mode=seq-mean-token-sum");
  check_config(usable(luspo), 1);
  EXPECT_EQ(refused({"actor.loss_mode=sapo"}),
            "actor.loss_mode is sapo, which is a loss of whole responses: "
            "set actor.loss_agg_mode to seq-mean-token-mean");
  EXPECT_THAT(refused({"actor.loss_mode=geo_mean", "actor.loss_agg_mode=seq-mean-token-sum"}),
              HasSubstr("actor.loss_mode is geo-mean, which is a loss of whole responses"));
  EXPECT_THAT(refused({"actor.loss_mode=dro"}), HasSubstr("actor.dro_beta is 0"));
  check_config(usable({"actor.loss_mode=dro", "actor.dro_beta=0.1"}), 1);
  EXPECT_THAT(refused({"data.max_response_length=8", "data.overlong_buffer.len=9"}),
              HasSubstr("data.overlong_buffer.len is 9 but data.max_response_length is 8"));
  check_config(usable({"data.max_response_length=8", "data.overlong_buffer.len=8"}), 1);
  EXPECT_THAT(refused({"rollout.n=1"}),
              HasSubstr("rollout.n is 1: algorithm.adv_estimator compares"));
  for (const char* estimator : {"opo", "gpg", "grpo-passk", "passk", "gdpo", "maxrl"}) {
    EXPECT_THAT(refused({"rollout.n=1", fmt::format("algorithm.adv_estimator={}", estimator)}),
                HasSubstr("set rollout.n to 2 or more (8 or 16 are usual), or the estimator to "
                          "reinforce-plus-plus or remax"));
  }
  check_config(usable({"rollout.n=1", "algorithm.adv_estimator=reinforce-plus-plus"}), 1);
  check_config(usable({"rollout.n=1", "algorithm.adv_estimator=remax"}), 1);
  const std::string passk = "algorithm.adv_estimator=passk", gdpo = "algorithm.adv_estimator=gdpo";
  check_config(usable({passk, "algorithm.passk_k=15"}), 1);
  for (const char* k : {"16", "17"}) {
    EXPECT_THAT(refused({passk, fmt::format("algorithm.passk_k={}", k)}),
                AllOf(StartsWith(fmt::format("algorithm.passk_k is {} but rollout.n is 16: ", k)),
                      HasSubstr("lower passk_k, or raise rollout.n")));
  }
  check_config(usable({gdpo, "algorithm.gdpo_reward_keys=[a, b]",
                       "algorithm.gdpo_reward_weights=[1, -0.5]"}),
               1);
  EXPECT_THAT(refused({gdpo}), HasSubstr("algorithm.gdpo_reward_keys is empty: list the parts"));
  EXPECT_THAT(refused({gdpo, "algorithm.gdpo_reward_keys=[a]", "data.overlong_buffer.len=2"}),
              HasSubstr("data.overlong_buffer takes from the reward, and"));
  EXPECT_THAT(refused({gdpo, "algorithm.gdpo_reward_keys=[a, b, a]"}),
              HasSubstr("algorithm.gdpo_reward_keys has 'a' twice: leave one out"));
  EXPECT_THAT(
      refused({gdpo, "algorithm.gdpo_reward_keys=[a]", "algorithm.gdpo_reward_weights=[0]"}),
      HasSubstr("algorithm.gdpo_reward_weights has zeros alone"));
  EXPECT_EQ(refused({gdpo, "algorithm.gdpo_reward_keys=[a, b]", "algorithm.gdpo_reward_weights=2"}),
            "algorithm.gdpo_reward_weights has 1 number(s) but algorithm.gdpo_reward_keys has 2 "
            "part(s): give one weight for each part, or none");
  EXPECT_THAT(refused({"actor.clip_ratio_c=0.5"}), HasSubstr("must be above 1 (3 is usual), or 0"));
  EXPECT_THAT(refused({"rollout.compute_dtype=bf16"}),
              AllOf(HasSubstr("rollout.compute_dtype is bf16 but model.compute_dtype is f32"),
                    HasSubstr("leave it `same`, or set cluster.placement=split")));
  check_config(usable({"rollout.compute_dtype=f32"}), 1);
  check_config(usable({"rollout.compute_dtype=bf16", "cluster.placement=split"}), 2);
  EXPECT_THAT(refused({"data.prompt_template=hello"}),
              HasSubstr("must contain {}, where the prompt goes"));
  EXPECT_THAT(refused({"data.system_prompt=Be brief."}),
              HasSubstr("data.apply_chat_template is not"));
  EXPECT_THAT(refused({"rollout.stop=[a, \"\"]"}), HasSubstr("rollout.stop has an empty text"));
  check_config(usable({"data.prompt_template=Q: {}", "data.apply_chat_template=true"}), 1);
  EXPECT_THAT(refused({"data.env=gsm8k"}), HasSubstr("set data.train_files"));
  EXPECT_THAT(refused({"data.env=gsm8k", "data.train_files=[a]", "trainer.test_freq=5"}),
              HasSubstr("set data.val_files"));
  check_config(usable({"data.env=gsm8k", "data.train_files=[a]"}), 1);
  // An evaluation reads held-out items and nothing else.
  const auto refused_for_eval = [](const std::vector<std::string>& overrides) {
    return config::usage_error([&] { check_config(usable(overrides), 1, ConfigUse::kEvaluation); });
  };
  check_config(
      usable({"data.env=gsm8k", "data.val_files=[a]", "rollout.n=1", "rollout.temperature=0",
              "actor.ppo_mini_batch_size=5", "sft.total_training_steps=9"}),
      1, ConfigUse::kEvaluation);
  EXPECT_THAT(refused_for_eval({"data.env=gsm8k", "data.train_files=[a]"}),
              HasSubstr("set data.val_files"));
  EXPECT_THAT(refused_for_eval({"rollout.val_temperature=1e-7"}),
              HasSubstr("rollout.val_temperature"));
  EXPECT_THAT(refused({"data.train_files=[a]"}), HasSubstr("would be ignored: remove them"));
  EXPECT_THAT(refused({"data.reward_rule=gsm8k"}),
              HasSubstr("data.reward_rule is set, but it is for data.env gsm8k"));
  EXPECT_THAT(refused({"data.answer_extraction=strict"}),
              HasSubstr("data.answer_extraction is set, but"));
  const std::vector<std::string> external = {"data.env=external", "data.train_files=[a]",
                                             "data.external.command=python3 r.py"};
  const auto with = [&external](const std::string& more) {
    std::vector<std::string> all = external;
    all.push_back(more);
    return all;
  };
  check_config(usable(external), 1);
  check_config(usable(with("data.external.workers=64")), 1);
  EXPECT_THAT(refused({"data.env=external", "data.train_files=[a]"}),
              HasSubstr("data.external.command is not set"));
  EXPECT_THAT(refused(with("data.external.command= ")),
              HasSubstr("data.external.command is not set"));
  EXPECT_THAT(refused(with("data.train_files=[]")),
              HasSubstr("data.env external reads its problems from files"));
  EXPECT_THAT(refused(with("trainer.test_freq=5")), HasSubstr("set data.val_files"));
  EXPECT_THAT(refused(with("data.reward_rule=gsm8k")),
              HasSubstr("data.env external has its own rewards"));
  EXPECT_THAT(refused(with("data.env=gsm8k")),
              HasSubstr("data.external.command is set but data.env is gsm8k"));
  for (const char* key : {"workers=3", "timeout_s=3", "start_timeout_s=3", "retries=3"}) {
    EXPECT_THAT(refused({std::string("data.external.") + key}),
                HasSubstr("is set but data.env is arithmetic"));
  }
  EXPECT_THAT(refused_for_eval(external), HasSubstr("set data.val_files"));
  EXPECT_THAT(refused({"data.env=constraint", "data.constraint.words=[sun]"}),
              HasSubstr("words_per_prompt is 3 but data.constraint.words lists 1 word(s)"));
  EXPECT_THAT(refused({"data.env=constraint", "data.constraint.words_per_prompt=0"}),
              HasSubstr("asks for nothing"));
  EXPECT_THAT(refused({"data.env=constraint", "data.constraint.words_per_prompt=0",
                       "data.constraint.min_words=9", "data.constraint.max_words=3"}),
              HasSubstr("no response can have both"));
  EXPECT_THAT(refused({"sft.text_separator=", "sft.text_files=[a]", "sft.total_training_steps=1"}),
              HasSubstr("sft.text_separator is empty"));
}

TEST(DescribeBatch, StatesPromptsAndSamples) {
  EXPECT_EQ(
      describe_batch(usable({"sft.total_training_steps=600", "actor.ppo_mini_batch_size=8",
                             "actor.ppo_epochs=2"}),
                     4),
      "ranks           4: 4 learning, 4 generating (colocated)\n"
      "SFT step        256 examples, one optimizer step; 64 a learner rank, 32 a gradient shard; "
      "600 steps\n"
      "RL step         32 prompts x 16 samples = 512 samples; 100 steps\n"
      "mini-batch      8 prompts = 128 samples; 4 mini-batches a step x 2 epochs = 8 optimizer "
      "steps a step\n"
      "learner rank    2 prompts = 32 samples of a mini-batch, in 2 gradient shards of 8\n"
      "gradient shard  1 prompts = 16 samples of a mini-batch\n"
      "actor rank      8 prompts = 128 samples of a step, leased as it has room\n"
      "sequence        at most 512 + 256 = 768 tokens (prompt + response)\n");
  const std::string split =
      describe_batch(usable({"cluster.placement=split", "data.train_batch_size=4"}), 4);
  EXPECT_THAT(split, HasSubstr("4: 2 learning, 2 generating (split)"));
  EXPECT_THAT(split,
              HasSubstr("about 0.5 prompts = 8 samples of a mini-batch; some shards may be empty"));
  EXPECT_THAT(split, HasSubstr("1 of 2 ranks have no work: lower cluster.gradient_shards to 4"));
  EXPECT_THAT(split, Not(HasSubstr("dtype")));
  EXPECT_THAT(describe_batch(usable({"cluster.placement=split", "rollout.compute_dtype=bf16"}), 2),
              HasSubstr("rollout dtype   bf16, learners f32: log-probs are recomputed, "
                        "importance weights capped at 2\n"));
}

TEST_F(CheckConfigFile, FilesOfGeneratedEnvironmentsAreRefused) {
  for (const char* env : {"arithmetic", "constraint"}) {
    for (const char* key : {"train_files", "val_files"}) {
      const proto::Config config = load("model: {path: m}", {fmt::format("data.env={}", env),
                                                             fmt::format("data.{}=x.jsonl", key)});
      EXPECT_THAT(config::usage_error([&] { check_config(config, 1); }),
                  AllOf(StartsWith(fmt::format("data.env {} generates its problems", env)),
                        HasSubstr("ignored")));
    }
  }
  const proto::Config jinja = load("model: {path: m, chat_template_file: t.jinja}");
  EXPECT_THAT(config::usage_error([&] { check_config(jinja, 1); }),
              HasSubstr("data.apply_chat_template is not"));
}

TEST(ExampleConfigs, AreValidAndReadBackEqual) {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(
           std::filesystem::path(ORRERY_SOURCE_DIR) / "experiments")) {
    if (entry.path().extension() != ".yaml") continue;
    ++count;
    const proto::Config config = config::load_config(entry.path(), {});
    check_config(config, 1);
    const testing_support::ScratchFolder scratch;
    std::ofstream(scratch.path() / "c.yaml", std::ios::binary) << config::config_to_yaml(config);
    EXPECT_TRUE(
        MessageDifferencer::Equals(config::load_config(scratch.path() / "c.yaml", {}), config))
        << entry.path();
  }
  EXPECT_GE(count, 6u);
}

}  // namespace
}  // namespace orrery::experiments
