// Expected texts come from Python's jinja2, set up as Hugging Face transformers does
// (trim_blocks, lstrip_blocks).
#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/support/assets.h"
#include "tests/text/tokenizer_fixtures.h"

namespace orrery::text {
namespace {

using testing::HasSubstr;
using namespace testing_support;  // NOLINT(google-build-using-namespace)
using Conversation = std::vector<ChatMessage>;

const std::map<std::string, std::string>& templates() {
  static const std::map<std::string, std::string> kTemplates = {
      {"chatml",
       R"J({% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})J"},
      {"chatml with a default system prompt",
       R"J({% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a test.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})J"},
      {"chatml over lines, with tools", R"J({%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- for tool in tools %}
        {{- tool | tojson }}
    {%- endfor %}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>system\nYou are a test.<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n[' }}
        {{- message.content }}
        {{- ']' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
)J"},
      {"llama 3",
       R"J({% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>

'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>

' }}{% endif %})J"},
      {"llama 3.2", R"J({{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message goes into the header. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{{- "Cutting Knowledge Date: December 2023\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {{- raise_exception("no tools") }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
)J"},
      {"white space and comments", R"J({# a comment #}
  {% for m in messages %}
  {{ m.role }}: {{ m.content }} {# inline #} !
    {%+ if m.role == 'user' %}U{% endif +%}
 {%- if loop.last -%}  

   end   {%- endif %}
)J"
                                   "\t"
                                   R"J({% endfor %} tail {{- ' x ' -}}   

)J"},
      {"language", R"J({%- set ns = namespace(found=false, n=0) -%}
{%- for m in messages[::-1] if m.role != 'system' -%}
{%- set ns.n = ns.n + 1 -%}
{%- if not ns.found and m.role == "user" -%}{%- set ns.found = true -%}[{{ loop.index0 }}/{{ loop.length }} {{ m.content.split('</think>')[-1].lstrip('\n') }}]{%- endif -%}
{%- else -%}nobody{%- endfor -%}
{%- for k, v in messages[0].items() -%}{{ k ~ '=' ~ (v | length) }};{%- endfor -%}
{%- for m in messages -%}{%- if loop.index == 3 -%}{%- break -%}{%- endif -%}{%- if m.role == 'system' -%}{%- continue -%}{%- endif -%}{{ m.role[0] | upper }}{{ ',' if not loop.last }}{%- endfor -%}
{{ missing }}{{ missing is defined }}{{ none }}{{ 7 // 2 }}{{ -7 % 3 }}{{ 'b' in 'abc' and 'x' not in ['y'] }}{{ messages[0].nothing is none }}{{ [1, 2] | length }}{{ {'a': 'b'}['a'] }}
{%- set x %}  block {{ ns.n }}{% endset %}{{ x | trim }}{{ missing | default('d') }}{{ 'a' 'b' }}{{ "q\"t\t" }}{{ messages[-1].content is string }}{{ '%s' | replace('s', 'r') }}{{ range(3) | join('-') }}{{ (1 if false) is undefined }}
{%- for i in [1, 2] %}{{ y is defined }}{% set y = i %}{% endfor %}{{ y is defined }}
)J"},
  };
  return kTemplates;
}

ChatTemplate make_template(const std::string& jinja) {
  return {jinja, "test.json", {{"bos_token", "<BOS>"}, {"eos_token", "<EOS>"}}};
}

const std::vector<Conversation>& conversations() {
  static const std::vector<Conversation> kConversations = {
      {{"user", "Hi"}},
      {{"system", " Be brief. "},
       {"user", " What is 2+2?\n"},
       {"assistant", "4"},
       {"user", "你好 <think>a</think>\n\nb"}},
      {{"user", "a"}, {"tool", "t1"}, {"tool", "t2"}, {"assistant", ""}}};
  return kConversations;
}

struct RenderCase {
  const char* name;
  size_t conversation;
  bool add_generation_prompt;
  std::string text;
};

TEST(ChatTemplate, RendersAsJinjaDoes) {
  const std::vector<RenderCase> cases = {
      {"chatml", 0, true, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"},
      {"chatml", 1, true,
       "<|im_start|>system\n"
       " Be brief. <|im_end|>\n"
       "<|im_start|>user\n"
       " What is 2+2?\n"
       "<|im_end|>\n"
       "<|im_start|>assistant\n"
       "4<|im_end|>\n"
       "<|im_start|>user\n"
       "你好 <think>a</think>\n"
       "\n"
       "b<|im_end|>\n"
       "<|im_start|>assistant\n"},
      {"chatml", 2, false,
       "<|im_start|>user\n"
       "a<|im_end|>\n"
       "<|im_start|>tool\n"
       "t1<|im_end|>\n"
       "<|im_start|>tool\n"
       "t2<|im_end|>\n"
       "<|im_start|>assistant\n"
       "<|im_end|>\n"},
      {"chatml with a default system prompt", 0, true,
       "<|im_start|>system\n"
       "You are a test.<|im_end|>\n"
       "<|im_start|>user\n"
       "Hi<|im_end|>\n"
       "<|im_start|>assistant\n"},
      {"chatml with a default system prompt", 1, true,
       "<|im_start|>system\n"
       " Be brief. <|im_end|>\n"
       "<|im_start|>user\n"
       " What is 2+2?\n"
       "<|im_end|>\n"
       "<|im_start|>assistant\n"
       "4<|im_end|>\n"
       "<|im_start|>user\n"
       "你好 <think>a</think>\n"
       "\n"
       "b<|im_end|>\n"
       "<|im_start|>assistant\n"},
      {"chatml with a default system prompt", 2, false,
       "<|im_start|>system\n"
       "You are a test.<|im_end|>\n"
       "<|im_start|>user\n"
       "a<|im_end|>\n"
       "<|im_start|>tool\n"
       "t1<|im_end|>\n"
       "<|im_start|>tool\n"
       "t2<|im_end|>\n"
       "<|im_start|>assistant\n"
       "<|im_end|>\n"},
      {"chatml over lines, with tools", 0, true,
       "<|im_start|>system\n"
       "You are a test.<|im_end|>\n"
       "<|im_start|>user\n"
       "Hi<|im_end|>\n"
       "<|im_start|>assistant\n"},
      {"chatml over lines, with tools", 1, true,
       "<|im_start|>system\n"
       " Be brief. <|im_end|>\n"
       "<|im_start|>user\n"
       " What is 2+2?\n"
       "<|im_end|>\n"
       "<|im_start|>assistant\n"
       "4<|im_end|>\n"
       "<|im_start|>user\n"
       "你好 <think>a</think>\n"
       "\n"
       "b<|im_end|>\n"
       "<|im_start|>assistant\n"},
      {"chatml over lines, with tools", 2, false,
       "<|im_start|>system\n"
       "You are a test.<|im_end|>\n"
       "<|im_start|>user\n"
       "a<|im_end|>\n"
       "<|im_start|>user\n"
       "[t1]\n"
       "[t2]<|im_end|>\n"
       "<|im_start|>assistant\n"
       "<|im_end|>\n"},
      {"llama 3", 0, true,
       "<BOS><|start_header_id|>user<|end_header_id|>\n"
       "\n"
       "Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
       "\n"},
      {"llama 3", 1, true,
       "<BOS><|start_header_id|>system<|end_header_id|>\n"
       "\n"
       "Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n"
       "\n"
       "What is 2+2?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
       "\n"
       "4<|eot_id|><|start_header_id|>user<|end_header_id|>\n"
       "\n"
       "你好 <think>a</think>\n"
       "\n"
       "b<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
       "\n"},
      {"llama 3", 2, false,
       "<BOS><|start_header_id|>user<|end_header_id|>\n"
       "\n"
       "a<|eot_id|><|start_header_id|>tool<|end_header_id|>\n"
       "\n"
       "t1<|eot_id|><|start_header_id|>tool<|end_header_id|>\n"
       "\n"
       "t2<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
       "\n"
       "<|eot_id|>"},
      {"llama 3.2", 0, true,
       "<BOS><|start_header_id|>system<|end_header_id|>\n"
       "\n"
       "Cutting Knowledge Date: December 2023\n"
       "Today Date: 26 Jul 2024\n"
       "\n"
       "<|eot_id|><|start_header_id|>user<|end_header_id|>\n"
       "\n"
       "Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
       "\n"},
      {"llama 3.2", 1, true,
       "<BOS><|start_header_id|>system<|end_header_id|>\n"
       "\n"
       "Cutting Knowledge Date: December 2023\n"
       "Today Date: 26 Jul 2024\n"
       "\n"
       "Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n"
       "\n"
       "What is 2+2?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
       "\n"
       "4<|eot_id|><|start_header_id|>user<|end_header_id|>\n"
       "\n"
       "你好 <think>a</think>\n"
       "\n"
       "b<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
       "\n"},
      {"llama 3.2", 2, false,
       "<BOS><|start_header_id|>system<|end_header_id|>\n"
       "\n"
       "Cutting Knowledge Date: December 2023\n"
       "Today Date: 26 Jul 2024\n"
       "\n"
       "<|eot_id|><|start_header_id|>user<|end_header_id|>\n"
       "\n"
       "a<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
       "\n"
       "<|eot_id|>"},
      {"white space and comments", 0, true, "  user: Hi  !\n    Uend tail x "},
      {"white space and comments", 1, true,
       "  system:  Be brief.   !\n"
       "      user:  What is 2+2?\n"
       "  !\n"
       "    U  assistant: 4  !\n"
       "      user: 你好 <think>a</think>\n"
       "\n"
       "b  !\n"
       "    Uend tail x "},
      {"white space and comments", 2, false,
       "  user: a  !\n"
       "    U  tool: t1  !\n"
       "      tool: t2  !\n"
       "      assistant:   !\n"
       "    end tail x "},
      {"language", 0, true,
       "[0/1 Hi]role=4;content=2;UFalseNone32TrueFalse2bblock "
       "1dabq\"t\tTrue%r0-1-2TrueFalseFalseFalse"},
      {"language", 1, true,
       "[0/3 b]role=6;content=11;U,FalseNone32TrueFalse2bblock "
       "3dabq\"t\tTrue%r0-1-2TrueFalseFalseFalse"},
      {"language", 2, false,
       "[3/4 a]role=4;content=1;U,T,FalseNone32TrueFalse2bblock "
       "4dabq\"t\tTrue%r0-1-2TrueFalseFalseFalse"},
  };
  for (const RenderCase& c : cases) {
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
  const auto render = [](const char* jinja, const char* message, const char* variables = "null") {
    ChatOptions options;
    options.variables = OrderedJson::parse(variables);
    return make_template(jinja).render(
        std::vector<ChatMessage>{chat_message_from_json(OrderedJson::parse(message), "row")},
        options);
  };
  EXPECT_EQ(render("{{ messages[0].name.upper() }}",
                   R"({"role": "user", "content": "x", "name": "bob"})"),
            "BOB");
  EXPECT_EQ(
      render("{{ '%03d' % messages[0].idx }}", R"({"role": "user", "content": "x", "idx": 4})"),
      "004");
  EXPECT_EQ(render("{{ (messages | selectattr('role', 'equalto', 'judge') | first).content }}",
                   R"({"role": "judge", "content": "t"})"),
            "t");
  EXPECT_EQ(render("{{ strftime_now('%d %B %Y') }}|{{ date_string.split('-')[0] }}",
                   R"({"role": "user", "content": "x"})",
                   R"({"strftime_now": "2025-07-26", "date_string": "2024-01"})"),
            "26 July 2025|2024");
  EXPECT_EQ(
      render("{% if messages[0].role == 'user' %}{{ raise_exception('user is not supported') }}{% "
             "endif %}x",
             R"({"role": "judge", "content": "t"})"),
      "x");
  EXPECT_EQ(render("{{ messages[0]['not supported'].x }}",
                   R"({"role": "user", "content": "t", "not supported": {"x": "y"}})"),
            "y")
      << "the samples lack the key, and the error that names it is no refusal";
  EXPECT_THROW(make_template("{{ messages | pprint }}"), Error)
      << "not supported: said when it is read";
}

TEST(ChatTemplate, ReasoningStandsWhereTransformersPutsIt) {
  const auto render = [](const char* message) {
    return make_template("{{ messages[0] }}")
        .render(
            std::vector<ChatMessage>{chat_message_from_json(OrderedJson::parse(message), "row")});
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
    std::string message;
    try {
      make_template(c.jinja).render(std::vector<ChatMessage>{{"user", "Hello"}});
    } catch (const Error& error) {
      message = error.what();
    }
    EXPECT_THAT(message, HasSubstr(c.message)) << c.jinja.substr(0, 80);
    if (*c.message != 0) {
      EXPECT_THAT(message, HasSubstr("test.json")) << c.jinja.substr(0, 80);
      EXPECT_EQ(message.find('\n'), std::string::npos);
    }
  }
  EXPECT_THROW(make_template(repeated("{% if a %}", 10'000)), Error);
}

TEST(ChatTemplate, RefusalOfAConversationNamesTheFile) {
  const ChatTemplate chat = make_template(
      "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% "
      "endif %}ok");
  EXPECT_EQ(chat.render(conversations()[0]), "ok");
  try {
    chat.render(conversations()[1]);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "test.json: chat template: the template says: System role not supported");
  }
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
