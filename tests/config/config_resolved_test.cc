// What load_config() makes of a file: absolute paths, a run folder, and YAML that reads
// back equal.
#include "config/config.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "config/config_keys.h"
#include "config/yaml_to_proto.h"
#include "core/error.h"
#include "tests/config/config_file.h"

namespace orrery::config {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::util::MessageDifferencer;
using testing::ElementsAre;
using testing::HasSubstr;
namespace fs = std::filesystem;

TEST_F(ConfigFile, PathsAreRelativeToWhereTheyWereWritten) {
  setenv("ORRERY_TEST_ROOT", "/data/models", 1);
  unsetenv("ORRERY_TEST_UNSET");
  setenv("HOME", "/home/u", 1);
  const std::string text = R"(
model: {path: "${ORRERY_TEST_ROOT}/llama"}
data: {train_files: [../t.jsonl, /abs/x.jsonl, ~/y.jsonl], val_files: [v.jsonl]}
sft: {text_files: [./stories.txt], total_training_steps: 1}
trainer: {resume: ckpt/7}
run_dir: runs/${ORRERY_TEST_ROOT}
)";
  const proto::Config config = load(text);
  EXPECT_EQ(config.model().path(), "/data/models/llama");
  EXPECT_THAT(config.data().train_files(),
              ElementsAre((folder_ / "t.jsonl").string(), "/abs/x.jsonl", "/home/u/y.jsonl"));
  EXPECT_THAT(config.data().val_files(), ElementsAre((folder_ / "sub" / "v.jsonl").string()));
  EXPECT_THAT(config.sft().text_files(), ElementsAre((folder_ / "sub" / "stories.txt").string()));
  EXPECT_EQ(config.trainer().resume(), (folder_ / "sub" / "ckpt/7").string());
  EXPECT_EQ(config.run_dir(), "runs//data/models");
  EXPECT_EQ(load("model: {path: m}", {"model.path=m"}).model().path(),
            (fs::current_path() / "m").string());
  EXPECT_EQ(load("trainer: {resume: off}").trainer().resume(), "off");
  EXPECT_EQ(load("model: {chat_template_file: t.jinja}").model().chat_template_file(),
            (folder_ / "sub" / "t.jinja").string());
  const proto::Config sft = load(
      "sft: {train_files: s.jsonl, val_files: [v.jsonl], total_training_steps: 1}\n"
      "trainer: {test_freq: 1}");
  EXPECT_THAT(sft.sft().train_files(), ElementsAre((folder_ / "sub" / "s.jsonl").string()));
  EXPECT_THAT(sft.sft().val_files(), ElementsAre((folder_ / "sub" / "v.jsonl").string()));

  const std::string file = (folder_ / "sub" / "c.yaml").string();
  EXPECT_EQ(usage_error([&] { load("model:\n  path: ${ORRERY_TEST_UNSET}/x"); }),
            file +
                ":2: model.path is '${ORRERY_TEST_UNSET}/x' but the environment variable "
                "ORRERY_TEST_UNSET is not set");
  EXPECT_EQ(usage_error([&] { load("run_dir: ${ORRERY_TEST_ROOT"); }),
            file + ":1: run_dir is '${ORRERY_TEST_ROOT': its ${ is not closed");
  EXPECT_EQ(usage_error([&] { load("model: {path: ''}"); }),
            file + ":1: model.path is an empty path");
  EXPECT_EQ(usage_error([&] { load_config(folder_ / "none.yaml", {}); }),
            (folder_ / "none.yaml").string() + ": there is no such config file");
  EXPECT_EQ(usage_error([&] { load_config(folder_, {}); }),
            folder_.string() + ": not a file; give the path of a YAML config");
}

TEST_F(ConfigFile, TheRunFolderIsTheExperimentsByDefault) {
  EXPECT_EQ(load("").run_dir(), "runs/orrery");
  EXPECT_EQ(load("experiment_name: a").run_dir(), "runs/a");
  EXPECT_EQ(load("experiment_name: a", {"experiment_name=project/b"}).run_dir(), "runs/project/b");
  EXPECT_EQ(load("experiment_name: a\nrun_dir: x").run_dir(), "x");
  EXPECT_EQ(load("experiment_name: ../a\nrun_dir: x").run_dir(), "x");
  EXPECT_EQ(load("run_dir: null").run_dir(), "runs/orrery");
  for (const char* name : {"../a", "a/../../b", "/a", ".", "a${HOME}", "${"}) {
    EXPECT_THAT(usage_error([&] { load(std::string("experiment_name: ") + name); }),
                AllOf(HasSubstr("experiment_name is '"), HasSubstr("give run_dir")))
        << name;
  }
}

/// A value for every key that is not its default, so that a key lost on the way is
/// noticed.
void disturb(google::protobuf::Message& message) {
  const auto& r = *message.GetReflection();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *message.GetDescriptor()->field(i);
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE:
        if (field.is_map()) {
          for (const char* json : {"true", "1e-05", "[1, {\"a\": null}]", "\"\\u0001 true #\""}) {
            google::protobuf::Message* entry = r.AddMessage(&message, &field);
            entry->GetReflection()->SetString(entry, field.message_type()->map_key(),
                                              std::string("k: ") + json);
            entry->GetReflection()->SetString(entry, field.message_type()->map_value(),
                                              nlohmann::json::parse(json).dump());
          }
          break;
        }
        disturb(*r.MutableMessage(&message, &field));
        break;
      case FieldDescriptor::CPPTYPE_INT64:
        r.SetInt64(&message, &field, field.default_value_int64() + 1);
        break;
      case FieldDescriptor::CPPTYPE_UINT64:
        r.SetUInt64(&message, &field, field.default_value_uint64() + 1);
        break;
      case FieldDescriptor::CPPTYPE_DOUBLE:
        if (field.is_repeated()) {
          for (const double value : {1.0 / 3, -2.0, 1e-300}) r.AddDouble(&message, &field, value);
          break;
        }
        r.SetDouble(
            &message, &field,
            field.default_value_double() == 0 ? 1.0 / 3 : field.default_value_double() * 0.7);
        break;
      case FieldDescriptor::CPPTYPE_BOOL:
        r.SetBool(&message, &field, !field.default_value_bool());
        break;
      case FieldDescriptor::CPPTYPE_ENUM:
        r.SetEnum(&message, &field, field.enum_type()->value(field.enum_type()->value_count() - 1));
        break;
      case FieldDescriptor::CPPTYPE_STRING: {
        const std::string odd =
            "/a \"b\" \\ 'c' #: - [x] {y}\n"
            "\t\r\x01\x7f \xc2\x85 \xe2\x80\xa8 \xf0\x9f\x98\x80 ~null";
        if (field.is_repeated()) {
          r.AddString(&message, &field, "/one, two");
          r.AddString(&message, &field, odd);
          r.AddString(&message, &field, "/");
        } else {
          r.SetString(&message, &field, odd);
        }
        break;
      }
      default:
        ADD_FAILURE() << field.full_name();
    }
  }
}

TEST_F(ConfigFile, ResolvedYamlReadsBackEqual) {
  const proto::Config plain =
      load("model: {path: m}\nactor: {optim: {lr: 3.3e-5}}\ndata: {train_files: [a, b]}\n");
  EXPECT_TRUE(MessageDifferencer::Equals(load(config_to_yaml(plain)), plain));

  proto::Config odd;
  fill_defaults(odd);
  disturb(odd);
  odd.mutable_data()->clear_prompt_template_file();  // becomes the text
  // Of the environments the chosen one's section counts.
  odd.mutable_data()->clear_arithmetic();
  odd.mutable_data()->clear_constraint();
  // Of other losses than the last one, dro.
  odd.mutable_actor()->clear_clip_ratio_low();
  odd.mutable_actor()->clear_clip_ratio_high();
  odd.mutable_actor()->clear_clip_ratio_c();
  odd.mutable_actor()->clear_tau_pos();
  odd.mutable_actor()->clear_tau_neg();
  // Of the estimators the chosen one's keys count.
  odd.mutable_algorithm()->set_adv_estimator(proto::AlgorithmSection::GDPO);
  odd.mutable_algorithm()->clear_norm_adv_by_std_in_grpo();
  odd.mutable_algorithm()->clear_passk_k();
  fill_defaults(odd);
  const std::string yaml = config_to_yaml(odd);
  proto::Config back = load(yaml);
  EXPECT_TRUE(MessageDifferencer::Equals(back, odd)) << yaml;
  for (const std::string& key : all_keys(*proto::Config::descriptor())) {
    EXPECT_THAT(yaml, HasSubstr(key.substr(key.rfind('.') + 1) + ":"));
  }
  EXPECT_THAT(config_to_yaml(plain), HasSubstr("  system_prompt: null\n"));
  EXPECT_THAT(config_to_yaml(plain), HasSubstr("    lr: 3.3e-05\n"));
  EXPECT_THAT(config_to_yaml(plain), HasSubstr("  adv_estimator: grpo\n"));
}

TEST(ConfigSchema, DefaultsAreInTheirOwnRanges) {
  // Writing every default out runs every range check on it.
  const proto::Config defaults = parse("");
  EXPECT_TRUE(MessageDifferencer::Equals(parse(config_to_yaml(defaults)), defaults));
}

TEST(ConfigKeys, EditDistanceCountsSwapsAsOne) {
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("lr", "rl"), 1u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("same", "same"), 0u);
}

}  // namespace
}  // namespace orrery::config
