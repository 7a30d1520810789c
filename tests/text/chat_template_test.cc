#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/support/assets.h"
#include "tests/text/chat_template_cases.h"
#include "tests/text/tokenizer_fixtures.h"

namespace orrery::text {
namespace {

using testing::HasSubstr;
using namespace testing_support;  // NOLINT(google-build-using-namespace)

ChatTemplate make_template(const std::string& jinja) {
  return {jinja, "test.json", {{"bos_token", "<BOS>"}, {"eos_token", "<EOS>"}}};
}

/// The template over one message, which is JSON as in a row of a data set.
std::string render_message(const char* jinja, const char* message, const char* variables = "null") {
  ChatOptions options;
  options.variables = OrderedJson::parse(variables);
  return make_template(jinja).render(
      Conversation{chat_message_from_json(OrderedJson::parse(message), "row")}, options);
}

/// What the template says against the conversation; empty when it renders.
std::string render_error(const std::string& jinja, const Conversation& conversation) {
  try {
    make_template(jinja).render(conversation);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(ChatTemplate, RendersAsJinjaDoes) {
  for (const RenderCase& c : render_cases()) {
    const ChatTemplate chat = make_template(templates().at(c.name));
    EXPECT_EQ(chat.render(conversations()[c.conversation], {c.add_generation_prompt, {}, {}}),
              c.text)
        << c.name << " on conversation " << c.conversation;
  }
}

TEST(ChatTemplate, DateComesFromTheCallerOrTheTemplate) {
  const ChatTemplate chat = make_template(templates().at("llama 3.2"));
  EXPECT_THAT(chat.render(conversations()[0]), HasSubstr("Today Date: 26 Jul 2024\n"));
  EXPECT_THAT(
      chat.render(conversations()[0], {true, {}, OrderedJson{{"date_string", "01 Jan 2025"}}}),
      HasSubstr("Today Date: 01 Jan 2025\n"));
}

TEST(ChatTemplate, PlainIsTheContentsOneAfterTheOther) {
  const ChatTemplate chat({}, "", {});
  EXPECT_TRUE(chat.is_plain());
  EXPECT_EQ(chat.render(Conversation{{"user", "1+1="}, {"assistant", "2"}}), "1+1=2");
  EXPECT_THROW(chat.render({}), Error);
}

TEST(ChatTemplate, EncodesWithoutDoublingBos) {
  nlohmann::json file = sentencepiece_tokenizer();
  file["post_processor"] = nlohmann::json::parse(R"({"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}})");
  const TemporaryFolder folder;
  folder.write("tokenizer.json", file.dump());
  folder.write("tokenizer_config.json", R"({"bos_token": "<s>", "chat_template":
    "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"})");
  const Tokenizer tokenizer = Tokenizer::load(folder.path());
  const ChatTemplate chat(tokenizer);
  EXPECT_FALSE(chat.is_plain());
  EXPECT_EQ(chat.encode(tokenizer, Conversation{{"user", "ab"}}), (std::vector<int32_t>{1, 266}));
  const ChatTemplate plain({}, "", {});
  EXPECT_EQ(plain.encode(tokenizer, Conversation{{"user", "ab"}}), (std::vector<int32_t>{1, 266}));
}

std::string repeated(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

struct BadTemplate {
  std::string jinja;
  const char* message;
};

TEST(ChatTemplate, WhatAConversationMustHaveIsKnownWhenItIsThere) {
  EXPECT_EQ(render_message("{{ messages[0].name.upper() }}",
                           R"({"role": "user", "content": "x", "name": "bob"})"),
            "BOB");
  EXPECT_EQ(render_message("{{ '%03d' % messages[0].idx }}",
                           R"({"role": "user", "content": "x", "idx": 4})"),
            "004");
  EXPECT_EQ(
      render_message("{{ (messages | selectattr('role', 'equalto', 'judge') | first).content }}",
                     R"({"role": "judge", "content": "t"})"),
      "t");
  EXPECT_EQ(render_message("{{ strftime_now('%d %B %Y') }}|{{ date_string.split('-')[0] }}",
                           R"({"role": "user", "content": "x"})",
                           R"({"strftime_now": "2025-07-26", "date_string": "2024-01"})"),
            "26 July 2025|2024");
  EXPECT_EQ(
      render_message(
          "{% if messages[0].role == 'user' %}{{ raise_exception('user is not supported') }}{% "
          "endif %}x",
          R"({"role": "judge", "content": "t"})"),
      "x");
  EXPECT_EQ(render_message("{{ messages[0]['not supported'].x }}",
                           R"({"role": "user", "content": "t", "not supported": {"x": "y"}})"),
            "y")
      << "the samples lack the key, and the error that names it is no refusal";
  EXPECT_THROW(make_template("{{ messages | pprint }}"), Error)
      << "not supported: said when it is read";
}

TEST(ChatTemplate, ReasoningStandsWhereTransformersPutsIt) {
  const auto render = [](const char* message) {
    return render_message("{{ messages[0] }}", message);
  };
  EXPECT_EQ(render(R"({"role": "assistant", "thinking": "t", "content": "c"})"),
            "{'thinking': 't', 'role': 'assistant', 'content': 'c', 'reasoning_content': 't'}");
  EXPECT_EQ(
      render(
          R"({"content": "x", "role": "assistant", "thinking": ["a"], "reasoning_content": "b"})"),
      "{'thinking': ['a'], 'content': 'x', 'role': 'assistant', 'reasoning_content': 'b'}");
  EXPECT_EQ(render(R"({"role": "assistant", "reasoning_content": null, "thinking": "t"})"),
            "{'thinking': 't', 'role': 'assistant', 'reasoning_content': 't'}");
}

TEST(ChatTemplate, RefusesWhatItCannotRender) {
  const std::vector<BadTemplate> cases = {
      {"x\n{% include 'y' %}", "line 2: the tag \"include\""},
      {"x\n{{ messages | pprint }}", "line 2: the filter pprint is not supported"},
      {"{{ messages is prime }}", "the test prime is not supported"},
      {"{{ messages[0].content.encode() }}", "the method encode of strings is not supported"},
      {"{{ strftime_now('%d') }}", "--template-arg strftime_now="},
      {"{{ missing.x }}", "missing is undefined"},
      {"{{ missing + 'x' }}", "missing is undefined"},
      {"{{ 99999999999999999999 }}", "too large"},
      {"{{ 9223372036854775807 + 1 }}", "too large"},
      {"{{ 1 // 0 }}", "division by 0"},
      {"{{ 'a", "without its end"},
      {"{{ '\\x' }}", "escape"},
      {"{{ }}", "expected a value"},
      {"{{ a b }}", "expected }}"},
      {"{% if a %}", "not closed"},
      {"{% endif %}", "endif"},
      {"{% for x in 3 %}{% endfor %}", "looping over an integer"},
      {"{% for a, b in messages[0].role %}{% endfor %}", "loop variables"},
      {"{% break %}", "outside of a loop"},
      {"{% set messages.x = 1 %}", "no namespace"},
      {"{# never closed", "comment"},
      {"{{ $ }}", "unexpected character"},
      {"{{ " + std::string(10'000, '(') + "1" + std::string(10'000, ')') + " }}", "too deep"},
      {"{% set x = 'x' %}{% for i in range(99) %}{% set x %}{{ x }}{{ x }}{% endset %}{% set x = x "
       "~ x %}{% endfor %}",
       ""},
      {"{% set n = namespace(x='x') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor "
       "%}",
       "too large"},
      {"{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor "
       "%}",
       "too large"},
      {"{% set n = namespace(x='xx') %}{% for i in range(99) %}{% set n.x = n.x | replace('x', "
       "n.x) %}{% endfor %}",
       "too large"},
      {"{{ " + std::string(10'000, '-') + "1 }}", "too deep"},
      {"{{ 'a'" + std::string(100'000, ' ') + "}}", ""},
      {"{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}",
       "does not come to an end"},
      {"{% set x = 'aaaaaaaaaaaaaaaa' %}{% for a in range(40) %}{{ x }}{% endfor %}{{ "
       "range(99999999) }}",
       "too long"},
      {std::string(2'000'000, 'x'), "too long"},
      // Deep without brackets: the tree of a chain of operators, lists built from
      // lists.
      {"{{ 'a'" + repeated(" + 'a'", 100'000) + " }}", "operators in a row"},
      {"{{ messages" + repeated(".a", 300'000) + " }}", "operators in a row"},
      {"{% set n = namespace(x=[]) %}{% for i in range(99999) %}{% set n.x = [n.x] %}{% endfor %}",
       "nested too deep"},
      {"{% set n = namespace() %}{% set n.x = n %}",
       "a namespace inside"},  // a cycle is never freed
      // Few steps of much work.
      {"{% set x = [" + repeated("range(100000), ", 1000) + "] %}", "does not come to an end"},
      {"{% set n = namespace(a=[1], b=[1]) %}{% for i in range(40) %}{% set n.a = [n.a, "
       "n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}",
       "does not come to an end"},
      {"{% set n = namespace(x='x') %}{% for i in range(24) %}{% set n.x = n.x + n.x %}{% endfor "
       "%}{% for c in n.x %}{% endfor %}",
       "too large"},
      {"{% set n = namespace(x='x') %}{% for i in range(20) %}{% set n.x = n.x + n.x %}{% endfor "
       "%}{% for i in range(9999) %}{% set y = (n.x + 'y') in n.x %}{% endfor %}",
       "does not come to an end"}};
  for (const BadTemplate& c : cases) {
    const std::string message = render_error(c.jinja, {{"user", "Hello"}});
    EXPECT_THAT(message, HasSubstr(c.message)) << c.jinja.substr(0, 80);
    if (*c.message != 0) {
      EXPECT_THAT(message, HasSubstr("test.json")) << c.jinja.substr(0, 80);
      EXPECT_EQ(message.find('\n'), std::string::npos);
    }
  }
  EXPECT_THROW(make_template(repeated("{% if a %}", 10'000)), Error);
}

TEST(ChatTemplate, RefusalOfAConversationNamesTheFile) {
  const std::string jinja =
      "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% "
      "endif %}ok";
  EXPECT_EQ(make_template(jinja).render(conversations()[0]), "ok");
  EXPECT_EQ(render_error(jinja, conversations()[1]),
            "test.json: chat template: the template says: System role not supported");
}

ChatTemplate asset_template(const char* tokenizer) {
  return ChatTemplate(Tokenizer::load(assets() / "tokenizers" / tokenizer));
}

const Conversation kThought = {{"system", "S"},
                               {"user", "1+1?"},
                               {"assistant", "<think>\nadd\n</think>\n\n2"},
                               {"user", "2+2?"}};
const Conversation kAnswered = {{"user", "q"}, {"assistant", "<think>\nw\n</think>\n\na"}};

TEST(ChatTemplateAssets, Qwen3ForgetsOldThoughts) {
  ORRERY_NEEDS_ASSET("tokenizers/qwen3");
  const ChatTemplate chat = asset_template("qwen3");
  EXPECT_EQ(chat.render(conversations()[0]),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(chat.render(conversations()[0], {true, {}, OrderedJson{{"enable_thinking", false}}}),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n");
  EXPECT_EQ(chat.render(kThought),
            "<|im_start|>system\n"
            "S<|im_end|>\n"
            "<|im_start|>user\n"
            "1+1?<|im_end|>\n"
            "<|im_start|>assistant\n"
            "2<|im_end|>\n"
            "<|im_start|>user\n"
            "2+2?<|im_end|>\n"
            "<|im_start|>assistant\n");
  EXPECT_EQ(chat.render(kAnswered, {false, {}, {}}),
            "<|im_start|>user\n"
            "q<|im_end|>\n"
            "<|im_start|>assistant\n"
            "<think>\n"
            "w\n"
            "</think>\n"
            "\n"
            "a<|im_end|>\n");
}

TEST(ChatTemplateAssets, MinimindKeepsThoughts) {
  ORRERY_NEEDS_ASSET("tokenizers/minimind-6400");
  const ChatTemplate chat = asset_template("minimind-6400");
  EXPECT_EQ(chat.render(conversations()[0]),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n");
  EXPECT_EQ(chat.render(kThought, {true, {}, OrderedJson{{"open_thinking", true}}}),
            "<|im_start|>system\n"
            "S<|im_end|>\n"
            "<|im_start|>user\n"
            "1+1?<|im_end|>\n"
            "<|im_start|>assistant\n"
            "<think>\n"
            "add\n"
            "</think>\n"
            "\n"
            "2<|im_end|>\n"
            "<|im_start|>user\n"
            "2+2?<|im_end|>\n"
            "<|im_start|>assistant\n"
            "<think>\n");
}

}  // namespace
}  // namespace orrery::text
