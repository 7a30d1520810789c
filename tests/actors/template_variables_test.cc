#include "actors/template_variables.h"

#include <gtest/gtest.h>

#include "actors/environment.h"
#include "actors/prompt_source.h"
#include "core/error.h"
#include "tests/text/tokenizer_fixtures.h"

namespace orrery::actors {
namespace {

TEST(TemplateVariables, KeepTheirKindsInTheOrderOfTheirNames) {
  proto::DataSection data;
  EXPECT_EQ(template_variables(data), text::OrderedJson::object());
  (*data.mutable_chat_template_kwargs())["b"] = "false";
  (*data.mutable_chat_template_kwargs())["a"] = R"(["x", 1.5, null])";
  EXPECT_EQ(template_variables(data).dump(), R"({"a":["x",1.5,null],"b":false})");
  (*data.mutable_chat_template_kwargs())["c"] = "not JSON";
  EXPECT_THROW(template_variables(data), Error);
}

TEST(TemplateVariables, ReachEveryPrompt) {
  const testing_support::TemporaryFolder folder;
  folder.write("tokenizer.json", testing_support::sentencepiece_tokenizer().dump());
  folder.write(
      "chat_template.jinja",
      "{% if enable_thinking is defined and enable_thinking is false %}ab{% else %}b{% endif %}");
  const text::Tokenizer tokenizer = text::Tokenizer::load(folder.path());
  proto::DataSection data;
  data.set_apply_chat_template(true);
  const std::unique_ptr<Environment> env = make_environment(data, 1);
  const std::vector<int32_t> plain = PromptSource(data, *env, tokenizer, 1).train_prompt(0).tokens;
  (*data.mutable_chat_template_kwargs())["enable_thinking"] = "false";
  const PromptSource source(data, *env, tokenizer, 1);
  const std::vector<int32_t> varied = tokenizer.encode("ab", false);
  EXPECT_NE(plain, varied);
  EXPECT_EQ(source.train_prompt(0).tokens, varied);
  EXPECT_EQ(source.val_prompt(0).tokens, varied);
}

TEST(TemplateVariables, RowsKeepEveryKeyOfTheirMessagesAndTheirTools) {
  const testing_support::TemporaryFolder folder;
  folder.write("tokenizer.json", testing_support::sentencepiece_tokenizer().dump());
  folder.write("chat_template.jinja", "{{ messages|tojson }}{{ tools|tojson }}");
  const std::string messages =
      R"([{"role": "user", "content": "q", "name": "n"}, {"role": "assistant", "tool_calls": )"
      R"([{"function": {"name": "f", "arguments": {"z": 1, "a": [null, 1.5]}}}]}])";
  const std::string tools = R"([{"type": "function", "function": {"z": 1, "a": 2}}])";
  const auto row = [&](const std::string& more) {
    return R"({"data_source": "gsm8k", "prompt": )" + messages +
           R"(, "reward_model": {"ground_truth": "1"})" + more + "}\n";
  };
  folder.write("rows.jsonl", row(R"(, "tools": )" + tools) + row(""));
  const text::Tokenizer tokenizer = text::Tokenizer::load(folder.path());
  proto::DataSection data;
  data.set_env(proto::DataSection::GSM8K);
  data.set_apply_chat_template(true);
  data.set_shuffle(false);
  data.add_train_files((folder.path() / "rows.jsonl").string());
  data.add_val_files((folder.path() / "rows.jsonl").string());
  const std::unique_ptr<Environment> env = make_environment(data, 1);
  const PromptSource source(data, *env, tokenizer, 1);
  EXPECT_EQ(source.train_prompt(0).tokens, tokenizer.encode(messages + tools, false));
  EXPECT_EQ(source.val_prompt(1).tokens, tokenizer.encode(messages + "null", false));

  folder.write("bad.jsonl", row(R"(, "tools": {})"));
  data.add_train_files((folder.path() / "bad.jsonl").string());
  EXPECT_THROW(make_environment(data, 1), Error);
}

}  // namespace
}  // namespace orrery::actors
