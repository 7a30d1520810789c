#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "config/config_keys.h"
#include "tests/config/config_file.h"

namespace orrery::config {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

class ConfigEffect : public ConfigFile {
 protected:
  std::string refused(const std::string& text,
                      const std::vector<std::string>& overrides = {}) const {
    return usage_error([&] {
      const proto::Config config = load(text, overrides);
      // What is accepted must be so as a resolved config, too.
      EXPECT_TRUE(MessageDifferencer::Equals(load(config_to_yaml(config)), config)) << text;
    });
  }
};

TEST_F(ConfigEffect, KeysThatChangeNothingAreErrors) {
  const struct {
    const char *text, *key, *says;
  } cases[] = {
      {"data: {env: gsm8k, arithmetic: {digits: 3}}", "data.arithmetic.digits",
       "it is of data.env arithmetic"},
      {"data: {constraint: {words: [a]}}", "data.constraint.words", "it is of data.env constraint"},
      {"data: {constraint: {ending: x}}", "data.constraint.ending", "it is of data.env constraint"},
      {"data: {env: gsm8k, external: {command: x}}", "data.external.command",
       "set data.env to external"},
      {"data: {external: {workers: 9}}", "data.external.workers", "set data.env to external"},
      {"rollout: {val_n: 4}", "rollout.val_n", "rollout.val_temperature is 0 (greedy)"},
      {"rollout: {val_n: 4, val_temperature: 0}", "rollout.val_n",
       "all samples of a prompt are the same"},
      {"sft: {train_files: s.jsonl}", "sft.train_files", "sft.total_training_steps is 0"},
      {"sft: {optim: {lr: 1e-4}}", "sft.optim.lr", "sft.total_training_steps is 0"},
      {"sft: {total_training_steps: 1, text_separator: x}", "sft.text_separator",
       "sft.text_files are not"},
      {"sft: {total_training_steps: 1, val_files: x}", "sft.val_files", "trainer.test_freq is 0"},
      {"sft: {total_training_steps: 1, optim: {min_lr_ratio: 0.1}}", "sft.optim.min_lr_ratio",
       "is constant"},
      {"actor: {optim: {min_lr_ratio: 0.1}}", "actor.optim.min_lr_ratio", "is constant"},
      {"actor: {loss_mode: gspo, clip_ratio_low: 3e-4, clip_ratio_high: 4e-4, clip_ratio_c: 4}",
       "actor.clip_ratio_c", "another than vanilla, dppo-tv and dppo-kl"},
      {"actor: {loss_mode: cispo, clip_ratio_c: 4}", "actor.clip_ratio_c", "has no such bound"},
      {"actor: {loss_mode: sapo, clip_ratio_low: 0.1}", "actor.clip_ratio_low", "clip nothing"},
      {"actor: {loss_mode: topr, clip_ratio_high: 0.1}", "actor.clip_ratio_high", "clip nothing"},
      {"actor: {loss_mode: dro, dro_beta: 1, clip_ratio_c: 0}", "actor.clip_ratio_c",
       "leave it out"},
      {"actor: {tau_pos: 2}", "actor.tau_pos", "it is of actor.loss_mode sapo"},
      {"actor: {loss_mode: cispo, tau_neg: 2}", "actor.tau_neg", "it is of actor.loss_mode sapo"},
      {"actor: {dro_beta: 2}", "actor.dro_beta", "it is of actor.loss_mode dro"},
      {"data: {overlong_buffer: {penalty_factor: 2}}", "data.overlong_buffer.penalty_factor",
       "data.overlong_buffer.len is 0"},
      {"actor: {kl_loss_type: k1}", "actor.kl_loss_type", "actor.kl_loss_coef is 0"},
      {"data: {arithmetic: {flawed_fraction: 0.5}}", "data.arithmetic.flawed_fraction",
       "SFT's demonstrations"},
      {"data: {env: constraint, constraint: {words: [a], words_per_prompt: 0, ending: b}}", nullptr,
       ""},
      {"algorithm: {adv_estimator: rloo, norm_adv_by_std_in_grpo: false}",
       "algorithm.norm_adv_by_std_in_grpo", "it is of algorithm.adv_estimator grpo, grpo-passk"},
      {"algorithm: {adv_estimator: passk, norm_adv_by_std_in_grpo: false}", nullptr, ""},
      {"algorithm: {adv_estimator: grpo-passk, passk_k: 8}", "algorithm.passk_k",
       "it is of algorithm.adv_estimator passk and that is another: set that"},
      {"algorithm: {gdpo_reward_keys: [a]}", "algorithm.gdpo_reward_keys",
       "it is of algorithm.adv_estimator gdpo"},
      {"algorithm: {adv_estimator: gpg, gdpo_reward_weights: [1]}", "algorithm.gdpo_reward_weights",
       "it is of algorithm.adv_estimator gdpo"},
      {"algorithm: {rollout_is_threshold: 3}", "algorithm.rollout_is_threshold",
       "nothing to correct"},
  };
  for (const auto& c : cases) {
    const std::string error = refused(c.text);
    if (c.key == nullptr) {
      EXPECT_EQ(error, "no error") << c.text;
      continue;
    }
    EXPECT_THAT(error, AllOf(StartsWith((folder_ / "sub" / "c.yaml").string() + ":1: " + c.key +
                                        " is set, but "),
                             HasSubstr(c.says)))
        << c.text;
  }
  EXPECT_EQ(refused("", {"rollout.val_n=4"}).substr(0, 35), "command line: rollout.val_n is set,");
}

TEST_F(ConfigEffect, WhatIsOffOnPurposeOrHasItsDefaultIsNot) {
  const std::pair<const char*, std::vector<std::string>> good[] = {
      {"rollout: {val_n: 4, val_temperature: 0.6}", {}},
      {"rollout: {val_n: 1, val_temperature: 0}", {}},
      {"data: {env: gsm8k, arithmetic: {digits: 2, zero_pad: true}}", {}},
      {"sft: {total_training_steps: 0, train_batch_size: 4, optim: {lr: 1}}", {}},
      {"sft: {total_training_steps: 9, train_files: s.jsonl, optim: {lr_scheduler_type: cosine, "
       "min_lr_ratio: 0.1}}",
       {"sft.total_training_steps=0"}},
      {"actor: {kl_loss_coef: 0, kl_loss_type: k1}", {}},
      {"actor: {kl_loss_coef: 0.1, kl_loss_type: k1}", {"actor.kl_loss_coef=0"}},
      {"actor: {loss_mode: sapo, tau_pos: 2, tau_neg: 3}", {}},
      {"actor: {loss_mode: geo_mean, clip_ratio_low: 0.4, clip_ratio_high: 0.4}", {}},
      {"actor: {loss_mode: dppo_tv, clip_ratio_low: 0.1, clip_ratio_high: 0.1, clip_ratio_c: 20}",
       {}},
      {"data: {overlong_buffer: {len: 2, penalty_factor: 2}}", {}},
      {"actor: {optim: {lr_scheduler_type: constant, min_lr_ratio: 0.1}}", {}},
      {"trainer: {test_freq: 5}", {"trainer.total_training_steps=0"}},
      {"trainer: {save_freq: -1, max_ckpt_to_keep: 9}", {}},
      {"rollout: {compute_dtype: same}\nalgorithm: {rollout_is_threshold: 3}", {}},
      {"cluster: {placement: split}\n"
       "rollout: {compute_dtype: bf16}\n"
       "algorithm: {rollout_is_threshold: 3}",
       {}},
      // The command line takes another environment than the file was written for.
      {"data: {arithmetic: {digits: 3}}", {"data.env=gsm8k", "data.train_files=x.jsonl"}},
  };
  for (const auto& [text, overrides] : good)
    EXPECT_EQ(refused(text, overrides), "no error") << text;
  const proto::Config other =
      load("data: {arithmetic: {digits: 3}, train_batch_size: 5}", {"data.env=gsm8k"});
  EXPECT_EQ(other.data().arithmetic().digits(), 2);
  EXPECT_EQ(other.data().train_batch_size(), 5);
}

TEST_F(ConfigEffect, LossesAreToldWhatHasAnotherLosssDefault) {
  EXPECT_THAT(
      refused("actor: {loss_mode: gspo, clip_ratio_high: 4e-4}"),
      AllOf(StartsWith((folder_ / "sub" / "c.yaml").string() + ":1: actor.loss_mode is gspo"),
            HasSubstr("actor.clip_ratio_low's default would never clip: set it")));
  EXPECT_THAT(refused("actor: {clip_ratio_low: 3e-4}", {"actor.loss_mode=gspo"}),
              AllOf(StartsWith("command line: actor.loss_mode is gspo"),
                    HasSubstr("actor.clip_ratio_high's default")));
  EXPECT_THAT(refused("actor: {loss_mode: dppo_kl, clip_ratio_low: 1, clip_ratio_high: 1}"),
              HasSubstr("actor.clip_ratio_c is the greatest ratio, not a dual clip: set it"));
  EXPECT_THAT(refused("actor: {loss_mode: dppo_tv, clip_ratio_low: 1, clip_ratio_c: 0}"),
              HasSubstr("how far a probability may rise: set it"));
  EXPECT_EQ(
      refused("actor: {clip_ratio_low: 0.2, clip_ratio_high: 0.28}", {"actor.loss_mode=gspo"}),
      "no error")
      << "as they were given";
}

TEST_F(ConfigEffect, AKeyOfTheCommandLineNeedsItsSwitch) {
  EXPECT_THAT(refused("actor: {kl_loss_coef: 0}", {"actor.kl_loss_type=k1"}),
              HasSubstr("command line: actor.kl_loss_type is set, but"));
  EXPECT_THAT(refused("sft: {total_training_steps: 0}", {"sft.train_files=x.jsonl"}),
              HasSubstr("command line: sft.train_files is set, but sft.total_training_steps is 0"));
  EXPECT_THAT(refused("trainer: {total_training_steps: 0}", {"trainer.test_freq=5"}),
              HasSubstr("nothing to validate"));
  EXPECT_THAT(refused("trainer: {save_freq: -1}", {"trainer.max_ckpt_to_keep=5"}),
              HasSubstr("no checkpoint is written"));
  EXPECT_THAT(refused("data: {env: gsm8k}", {"data.arithmetic.digits=5"}),
              HasSubstr("data.env is another"));
  EXPECT_THAT(refused("", {"data.env=gsm8k", "data.arithmetic.digits=5"}),
              HasSubstr("data.env is another"));
}

}  // namespace
}  // namespace orrery::config
