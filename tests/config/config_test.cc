#include "config/config.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <map>

#include "config/yaml_to_proto.h"
#include "core/error.h"
#include "tests/config/config_file.h"

namespace orrery::config {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::util::MessageDifferencer;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(ConfigText, ReadsEveryKindOfValue) {
  const proto::Config config = parse(R"(
experiment_name: 'a: b'
seed: 18446744073709551615
model: {path: x, from_scratch: true, compute_dtype: bf16}
data:
  env: gsm8k
  train_files: [a.jsonl, "b c.jsonl"]
  prompt_template: "Q: {}\nA:"
  system_prompt: be brief
rollout: {temperature: 1, top_p: .5, stop: ["\n\n", end]}
algorithm: {adv_estimator: reinforce_plus_plus-baseline}
actor:
  loss_agg_mode: seq-mean-token-sum-norm
  optim: &same {lr: 2.5e-5, clip_grad: +0}
sft: {optim: *same}
trainer: {save_freq: -1}
cluster:
)");
  EXPECT_EQ(config.experiment_name(), "a: b");
  EXPECT_EQ(config.seed(), UINT64_MAX);
  EXPECT_TRUE(config.model().from_scratch());
  EXPECT_EQ(config.model().compute_dtype(), proto::ModelSection::BF16);
  EXPECT_EQ(config.data().env(), proto::DataSection::GSM8K);
  EXPECT_THAT(config.data().train_files(), ElementsAre("a.jsonl", "b c.jsonl"));
  EXPECT_EQ(config.data().prompt_template(), "Q: {}\nA:");
  EXPECT_EQ(config.rollout().temperature(), 1.0);
  EXPECT_EQ(config.rollout().top_p(), 0.5);
  EXPECT_THAT(config.rollout().stop(), ElementsAre("\n\n", "end"));
  EXPECT_EQ(config.algorithm().adv_estimator(),
            proto::AlgorithmSection::REINFORCE_PLUS_PLUS_BASELINE);
  EXPECT_EQ(config.actor().loss_agg_mode(), proto::ActorSection::SEQ_MEAN_TOKEN_SUM_NORM);
  EXPECT_EQ(config.actor().optim().lr(), 2.5e-5);
  EXPECT_EQ(config.sft().optim().lr(), 2.5e-5);
  EXPECT_EQ(config.trainer().save_freq(), -1);
  EXPECT_TRUE(config.has_cluster());
  EXPECT_EQ(config.cluster().gradient_shards(), 8);
}

void expect_all_present(const google::protobuf::Message& message) {
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *message.GetDescriptor()->field(i);
    if (field.is_repeated()) continue;
    if (field.type() == FieldDescriptor::TYPE_STRING && !field.has_default_value()) continue;
    EXPECT_TRUE(message.GetReflection()->HasField(message, &field)) << field.full_name();
    if (field.type() == FieldDescriptor::TYPE_MESSAGE) {
      expect_all_present(message.GetReflection()->GetMessage(message, &field));
    }
  }
}

TEST(ConfigText, EmptyFileIsAllDefaultsAndEveryKeyIsPresent) {
  for (const char* text : {"", "# nothing\n", "data:\n", "---\n"}) {
    const proto::Config config = parse(text);
    expect_all_present(config);
    EXPECT_EQ(config.rollout().n(), 8);
    EXPECT_EQ(config.trainer().resume(), "auto");
    EXPECT_FALSE(config.data().has_system_prompt());
    EXPECT_FALSE(config.model().has_path());
  }
}

struct BadText {
  const char* text;
  const char* error;
};

TEST(ConfigText, BadInputGetsOneExactMessage) {
  const BadText cases[] = {
      {"actor:\n  clip_ration_low: 0.1\n",
       "f.yaml:2: unknown key 'actor.clip_ration_low'; did you mean 'actor.clip_ratio_low'?"},
      {"actor:\n  lr: 0.1\n", "f.yaml:2: unknown key 'actor.lr'; did you mean 'actor.optim.lr'?"},
      {"trainer:\n  save_freq: 1\n  n: 8\n",
       "f.yaml:3: unknown key 'trainer.n'; did you mean 'rollout.n'?"},
      {"actor: {mini_batch_size: 4}",
       "f.yaml:1: unknown key 'actor.mini_batch_size'; did you mean 'actor.ppo_mini_batch_size'?"},
      {"rolout: {n: 1}", "f.yaml:1: unknown key 'rolout'; did you mean 'rollout'?"},
      {"rollout.n: 4\n",
       "f.yaml:1: unknown key 'rollout.n'; in a file sections are nested: "
       "write 'rollout:' and 'n:' indented below it"},
      {"algorithm: {zzzz: 1}",
       "f.yaml:1: unknown key 'algorithm.zzzz'; section 'algorithm' has adv_estimator, "
       "norm_adv_by_std_in_grpo, passk_k, gdpo_reward_keys, gdpo_reward_weights, verify_logprobs, "
       "rollout_is_threshold"},
      {"<<: {seed: 1}",
       "f.yaml:1: unknown key '<<'; a config has experiment_name, run_dir, seed, device, model, data, "
       "sft, rollout, algorithm, actor, trainer, cluster"},
      {"seed: 1\nactor:\n  ppo_epochs: 1\nseed: 2\n",
       "f.yaml:4: duplicate key 'seed', first set at f.yaml:1: remove one"},
      {"rollout:\n  n: many\n", "f.yaml:2: rollout.n is 'many': expected a whole number"},
      {"rollout: {n: 1.5}", "f.yaml:1: rollout.n is '1.5': expected a whole number"},
      {"rollout: {n: 1e3}", "f.yaml:1: rollout.n is '1e3': expected a whole number"},
      {"rollout: {n: \"8\"}",
       "f.yaml:1: rollout.n is the text '8': expected a whole number without quotes"},
      {"rollout: {n: }", "f.yaml:1: rollout.n has no value: expected a whole number"},
      {"rollout: {n: 99999999999999999999}",
       "f.yaml:1: rollout.n is 99999999999999999999: it must be at most 9223372036854775807"},
      {"seed: -1", "f.yaml:1: seed is '-1': expected a whole number that is not negative"},
      {"rollout: {temperature: hot}", "f.yaml:1: rollout.temperature is 'hot': expected a number"},
      {"rollout: {temperature: 1,5: 3}",
       "f.yaml:1: unknown key 'rollout.5'; section 'rollout' has n, temperature, top_p, "
       "top_k, min_p, stop, max_num_seqs, max_num_batched_tokens, kv_cache_gb, "
       "val_temperature, val_n, compute_dtype, device"},
      {"rollout: {temperature: .nan}",
       "f.yaml:1: rollout.temperature is .nan: expected a finite number that fits float32"},
      {"rollout: {temperature: inf}",
       "f.yaml:1: rollout.temperature is inf: expected a finite number that fits float32"},
      {"actor: {optim: {lr: 1e39}}",
       "f.yaml:1: actor.optim.lr is 1e39: expected a finite number that fits float32"},
      {"actor: {optim: {lr: 1e999}}",
       "f.yaml:1: actor.optim.lr is 1e999: expected a finite number that fits float32"},
      {"actor:\n  clip_ratio_low: 1.5",
       "f.yaml:2: actor.clip_ratio_low is 1.5: it must be in [0, 1]"},
      {"rollout: {top_p: 0}", "f.yaml:1: rollout.top_p is 0: it must be in (0, 1]"},
      {"actor: {optim: {beta1: 1}}", "f.yaml:1: actor.optim.beta1 is 1: it must be in [0, 1)"},
      {"actor: {optim: {eps: 0}}", "f.yaml:1: actor.optim.eps is 0: it must be > 0"},
      {"trainer: {save_freq: -2}", "f.yaml:1: trainer.save_freq is -2: it must be >= -1"},
      {"rollout: {n: 0}", "f.yaml:1: rollout.n is 0: it must be in [1, 65536]"},
      {"data: {shuffle: tRUE}", "f.yaml:1: data.shuffle is 'tRUE': expected true or false"},
      {"data: {shuffle: yes}", "f.yaml:1: data.shuffle is 'yes': expected true or false"},
      {"data: {env: maths}",
       "f.yaml:1: data.env is 'maths': expected arithmetic, gsm8k, constraint or external"},
      {"data: {env: GSM8K}",
       "f.yaml:1: data.env is 'GSM8K': expected arithmetic, gsm8k, constraint or external"},
      {"data: {env: [gsm8k]}",
       "f.yaml:1: data.env is a list: expected arithmetic, gsm8k, constraint or external"},
      {"data:\n  train_files:",
       "f.yaml:2: data.train_files has no value: expected a list such as [a, b], or [] for none"},
      {"data:\n  train_files: {a: b}",
       "f.yaml:2: data.train_files is a section: expected a list of text, such as [a, b]"},
      {"data:\n  train_files: [a, [b]]", "f.yaml:2: data.train_files[1] is a list: expected text"},
      {"data:\n  train_files: [a, ~]",
       "f.yaml:2: data.train_files[1] has no value: expected text (\"\" for none)"},
      {"data: {prompt_template: }",
       "f.yaml:1: data.prompt_template has no value: expected text (\"\" for none)"},
      {"seed: [1]", "f.yaml:1: seed is a list: expected a whole number"},
      {"seed: {a: 1}", "f.yaml:1: seed is a section: expected a whole number"},
      {"algorithm: grpo",
       "f.yaml:1: algorithm is a single value: expected keys (adv_estimator, "
       "norm_adv_by_std_in_grpo, passk_k, gdpo_reward_keys, gdpo_reward_weights, verify_logprobs, "
       "rollout_is_threshold)"},
      {"algorithm: [grpo]",
       "f.yaml:1: algorithm is a list: expected keys (adv_estimator, norm_adv_by_std_in_grpo, "
       "passk_k, gdpo_reward_keys, gdpo_reward_weights, verify_logprobs, rollout_is_threshold)"},
      {"- seed",
       "f.yaml: the config is a list: expected keys (experiment_name, run_dir, seed, device, model, "
       "data, sft, rollout, algorithm, actor, trainer, cluster)"},
      {"seed: !!str 1", "f.yaml:1: seed has the YAML tag tag:yaml.org,2002:str: remove it"},
      {"? [a, b]\n: 1", "f.yaml:1: a key must be a plain word"},
      {"seed: 1\n---\nseed: 2\n",
       "f.yaml:2: a second document begins (---): a config is one document"},
      {"seed: *nowhere",
       "f.yaml:1: not valid YAML: the referenced anchor is not defined (column 7)"},
      {"seed: 1\n\tn: 2\n",
       "f.yaml:2: not valid YAML: illegal tab when looking for indentation (column 1)"},
      {"data: {a: [1, 2\n", "f.yaml:2: not valid YAML: end of sequence flow not found (column 1)"},
      {"seed: \xff\n", "f.yaml: byte 6 is not UTF-8: save the file as UTF-8"},
  };
  for (const BadText& c : cases) EXPECT_EQ(usage_error([&] { parse(c.text); }), c.error) << c.text;
  EXPECT_THAT(usage_error([] { parse(std::string("seed: 1\n\0", 9)); }),
              HasSubstr("byte 8 is NUL"));
  EXPECT_THAT(usage_error([] { parse("experiment_name: \"a\\0b\""); }),
              HasSubstr("experiment_name has a NUL character"));
}

TEST(ConfigText, HostileFilesEndInAMessage) {
  EXPECT_THAT(usage_error([] { parse("seed: " + std::string(100'000, '[')); }),
              HasSubstr("nested too deeply"));
  EXPECT_THAT(usage_error([] { parse(std::string(100'000, '{')); }),
              HasSubstr("nested too deeply"));
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 30; ++i) {
    std::string row = fmt::format("a{}: &a{} [", i, i);
    for (int k = 0; k < 10; ++k) row += fmt::format("{}*a{}", k > 0 ? ", " : "", i - 1);
    bomb += row + "]\n";
  }
  EXPECT_THAT(usage_error([&] { parse(bomb); }), HasSubstr("f.yaml:1: unknown key 'a0'"));
  // Where yaml-cpp finds documents without end.
  EXPECT_THAT(usage_error([] { parse("!tp,ain\n="); }), HasSubstr("f.yaml"));
  EXPECT_THAT(usage_error([] { parse("data: {train_files: &a [x, *a]}"); }),
              HasSubstr("train_files[1] is a list"));
  EXPECT_THAT(usage_error([] { parse("sft: &a {optim: *a}"); }),
              HasSubstr("unknown key 'sft.optim.optim'"));
  EXPECT_THAT(usage_error([] { parse(std::string(1 << 19, '#')); }),
              HasSubstr("too many for a config"));
  std::string list = "data: {train_files: [";
  for (int i = 0; i < 10'001; ++i) list += "a,";
  EXPECT_THAT(usage_error([&] { parse(list + "]}"); }),
              HasSubstr("data.train_files has 10001 items"));
  EXPECT_THAT(usage_error([] { parse("experiment_name: " + std::string(70'000, 'x')); }),
              HasSubstr("at most 65536"));
  // A long key or value is not repeated in full.
  EXPECT_LT(usage_error([] { parse(std::string(900, 'k') + ": 1"); }).size(), 300u);
  EXPECT_LT(usage_error([] { parse("seed: " + std::string(5000, 'v')); }).size(), 200u);
}

TEST(ConfigOverrides, AreTypedAndTheLastWins) {
  const proto::Config config =
      parse("rollout: {n: 2, stop: [x]}\ndata: {train_files: [old], system_prompt: hi}\n",
            {"rollout.n=4", "rollout.n=16", "actor.optim.lr=1e-5",
             "data.train_files=[a.jsonl, 'b, c']", "rollout.stop=[]",
             "data.prompt_template=Q: {} = ?", "experiment_name=\"x\\ty\"", "data.env=gsm8k",
             "data.system_prompt=null", "model.from_scratch=true", "data.constraint.ending="});
  EXPECT_EQ(config.rollout().n(), 16);
  EXPECT_EQ(config.actor().optim().lr(), 1e-5);
  EXPECT_THAT(config.data().train_files(), ElementsAre("a.jsonl", "b, c"));
  EXPECT_EQ(config.rollout().stop_size(), 0);
  EXPECT_EQ(config.data().prompt_template(), "Q: {} = ?");
  EXPECT_EQ(config.experiment_name(), "x\ty");
  EXPECT_FALSE(config.data().has_system_prompt());
  EXPECT_EQ(config.data().constraint().ending(), "");

  const BadText cases[] = {
      {"rollout.n",
       "command line: 'rollout.n' is not an override: "
       "write key=value, such as actor.optim.lr=1e-5"},
      {"=4", "command line: '=4' is not an override: write key=value, such as actor.optim.lr=1e-5"},
      {"rollout.m=4",
       "command line: unknown key 'rollout.m'; section 'rollout' has n, temperature, top_p, top_k, "
       "min_p, stop, max_num_seqs, max_num_batched_tokens, kv_cache_gb, val_temperature, val_n, "
       "compute_dtype, device"},
      {"actor.optim.lrr=4",
       "command line: unknown key 'actor.optim.lrr'; did you mean 'actor.optim.lr'?"},
      {"actor.lr=4", "command line: unknown key 'actor.lr'; did you mean 'actor.optim.lr'?"},
      {"rollout=4",
       "command line: rollout is a section: set one of its keys, such as rollout.n=..."},
      {"rollout.n.x=4", "command line: 'rollout.n' in 'rollout.n.x' is not a section"},
      {"rollout.n=", "command line: rollout.n is '': expected a whole number"},
      {"rollout.n=\"4\"",
       "command line: rollout.n is the text '4': expected a whole number without quotes"},
      {"rollout.top_p=2", "command line: rollout.top_p is 2: it must be in (0, 1]"},
      {"data.train_files=null",
       "command line: data.train_files has no value: "
       "expected a list such as [a, b], or [] for none"},
      {"data.train_files=[a",
       "command line: not valid YAML: end of sequence flow not found (column 1)"},
      {"..=4",
       "command line: unknown key ''; a config has experiment_name, run_dir, seed, device, model, "
       "data, sft, rollout, algorithm, actor, trainer, cluster"},
      {"seed=\xff", "command line: byte 5 is not UTF-8: save the file as UTF-8"},
  };
  for (const BadText& c : cases)
    EXPECT_EQ(usage_error([&] { parse("", {c.text}); }), c.error) << c.text;
}

TEST(ConfigText, OneTextIsAListOfOne) {
  const auto stop = [](const std::string& yaml, const std::vector<std::string>& overrides = {}) {
    const auto list = parse(yaml, overrides).rollout().stop();
    return std::vector<std::string>(list.begin(), list.end());
  };
  EXPECT_THAT(stop("rollout: {stop: \"###\"}"), ElementsAre("###"));
  EXPECT_THAT(stop("rollout: {stop: end}"), ElementsAre("end"));
  EXPECT_THAT(stop("rollout: {stop: '[/INST]'}"), ElementsAre("[/INST]"));
  EXPECT_THAT(stop("rollout: {stop: 5}"), ElementsAre("5"));
  EXPECT_THAT(stop("rollout: {stop: [a, b]}", {"rollout.stop=###"}), ElementsAre("###"));
  EXPECT_THAT(stop("", {"rollout.stop=\"\\n\\n\""}), ElementsAre("\n\n"));
  EXPECT_THAT(stop("", {"rollout.stop='[/INST]'"}), ElementsAre("[/INST]"));
  EXPECT_THAT(stop("", {"rollout.stop=a, b"}), ElementsAre("a, b"));
  EXPECT_THAT(stop("", {"rollout.stop=[a, b]"}), ElementsAre("a", "b"));
  EXPECT_THAT(
      parse("data:\n  train_files: a b.jsonl\n", {"data.val_files=~/v.jsonl"}).data().train_files(),
      ElementsAre("a b.jsonl"));
  EXPECT_THAT(parse("", {"data.train_files=x.jsonl"}).data().train_files(), ElementsAre("x.jsonl"));
}

TEST(ConfigText, TemplateVariablesKeepTheirKinds) {
  const auto variables = [](const std::string& yaml,
                            const std::vector<std::string>& overrides = {}) {
    const proto::Config config = parse(yaml, overrides);
    EXPECT_TRUE(MessageDifferencer::Equals(parse(config_to_yaml(config)), config))
        << config_to_yaml(config);
    std::map<std::string, std::string> out(config.data().chat_template_kwargs().begin(),
                                           config.data().chat_template_kwargs().end());
    return out;
  };
  using Map = std::map<std::string, std::string>;
  EXPECT_EQ(
      variables("data: {chat_template_kwargs: {enable_thinking: false, n: 3, x: 1.5, t: low, q: "
                "\"3\", z: null, l: [1, a], d: 2025-07-26}}"),
      (Map{{"enable_thinking", "false"},
           {"n", "3"},
           {"x", "1.5"},
           {"t", "\"low\""},
           {"q", "\"3\""},
           {"z", "null"},
           {"l", "[1,\"a\"]"},
           {"d", "\"2025-07-26\""}}));
  EXPECT_EQ(variables("data: {chat_template_kwargs: {a: 1, b: 2}}",
                      {"data.chat_template_kwargs.a=true", "data.chat_template_kwargs.c.d=x"}),
            (Map{{"a", "true"}, {"b", "2"}, {"c.d", "\"x\""}}));
  EXPECT_EQ(variables("data: {chat_template_kwargs: {a: 1}}", {"data.chat_template_kwargs={b: 2}"}),
            (Map{{"b", "2"}}));
  EXPECT_EQ(variables("data:\n  chat_template_kwargs:\n"), Map());
  EXPECT_EQ(usage_error([&] { parse("data: {chat_template_kwargs: [a]}"); }),
            "f.yaml:1: data.chat_template_kwargs is a list: "
            "expected names with values, such as {enable_thinking: false}");
  EXPECT_THAT(usage_error([&] { parse("data: {chat_template_kwargs: {a: 1, a: 2}}"); }),
              HasSubstr("duplicate key"));
  EXPECT_THAT(
      usage_error([&] { parse("data: {chat_template_kwargs: {a: 99999999999999999999}}"); }),
      HasSubstr("at most 64 bits"));
}

}  // namespace
}  // namespace orrery::config
