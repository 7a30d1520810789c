// What is learned from an answer is what Hugging Face's template prints for it after
// the generation prompt.
#include "text/chat_training.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "core/file.h"
#include "tests/support/assets.h"
#include "tests/support/scratch.h"
#include "tests/text/tokenizer_fixtures.h"

namespace orrery::text {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using namespace testing_support;  // NOLINT(google-build-using-namespace)
using Conversation = std::vector<ChatMessage>;

constexpr const char* kChatMl =
    R"J({% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})J";
// The last turn has a thought, an empty one at least; thoughts of earlier turns are
// left out.
constexpr const char* kThinking = R"J({%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
        {%- if loop.last %}
            {{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' + content + '<|im_end|>\n' }}
        {%- else %}
            {{- '<|im_start|>assistant\n' + content + '<|im_end|>\n' }}
        {%- endif %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %})J";
constexpr const char* kLlama3 =
    R"J({% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %})J";
constexpr const char* kDeepseek =
    R"J({% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\n\n' }}{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %})J";
constexpr const char* kInstruct =  // there is no generation prompt
    R"J({% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'].strip() + ' [/INST]' }}{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %})J";

/// A tokenizer whose ids are the 256 bytes and the template's special tokens.
Tokenizer byte_tokenizer(const std::string& chat_template, const std::vector<std::string>& stops) {
  nlohmann::json tokenizer = byte_level_tokenizer();
  tokenizer["normalizer"] = nullptr;
  tokenizer["post_processor"] = nullptr;
  tokenizer["added_tokens"] = nlohmann::json::array();
  int id = 300;
  for (const char* token : {"<eos>", "<|im_start|>", "<|im_end|>", "<|eot_id|>"})
    tokenizer["added_tokens"].push_back(added_token(token, id++, {{"special", true}}));
  nlohmann::json eos = nlohmann::json::array();
  for (const std::string& stop : stops)
    for (const auto& token : tokenizer["added_tokens"])
      if (token["content"] == stop) eos.push_back(token["id"]);
  const TemporaryFolder folder;
  folder.write("tokenizer.json", tokenizer.dump());
  folder.write("tokenizer_config.json",
               nlohmann::json{{"chat_template", chat_template}, {"eos_token", stops.at(0)}}.dump());
  folder.write("generation_config.json", nlohmann::json{{"eos_token_id", eos}}.dump());
  return Tokenizer::load(folder.path());
}

struct Texts {
  std::string prompt, response;
};

Texts example(const std::string& chat_template, const std::vector<std::string>& stops,
              const Conversation& messages, const std::string& answer,
              const ChatOptions& options = {}) {
  const Tokenizer tokenizer = byte_tokenizer(chat_template, stops);
  const ChatExample found =
      chat_example(ChatTemplate(tokenizer), tokenizer, messages, answer, options);
  return {tokenizer.decode(found.prompt, false), tokenizer.decode(found.response, false)};
}

const Conversation kQuestion = {{"user", "1+1?"}};

TEST(ChatExample, EndsAsTheTemplateEndsTheTurn) {
  const Texts chatml = example(kChatMl, {"<eos>", "<|im_end|>"}, kQuestion, "#### 2");
  EXPECT_EQ(chatml.prompt, "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(chatml.response, "#### 2<|im_end|>");
  const Texts llama = example(kLlama3, {"<eos>", "<|eot_id|>"}, kQuestion, " #### 2\n");
  EXPECT_EQ(llama.response, "#### 2<|eot_id|>") << "the template trims";
  EXPECT_EQ(example(kDeepseek, {"<eos>"}, kQuestion, "#### 2").response, " #### 2<eos>");
  const Texts instruct = example(kInstruct, {"<eos>"}, kQuestion, "#### 2");
  EXPECT_EQ(instruct.prompt, "[INST] 1+1? [/INST]");
  EXPECT_EQ(instruct.response, " #### 2 <eos>");
}

TEST(ChatExample, AThoughtBelongsToTheResponseUnlessThePromptHasIt) {
  const std::vector<std::string> stops = {"<|im_end|>", "<eos>"};
  const Texts thinking = example(kThinking, stops, kQuestion, "#### 2");
  EXPECT_EQ(thinking.response, "<think>\n\n</think>\n\n#### 2<|im_end|>");
  ChatOptions without;
  without.variables["enable_thinking"] = false;
  const Texts direct = example(kThinking, stops, kQuestion, "#### 2", without);
  EXPECT_TRUE(direct.prompt.ends_with("assistant\n<think>\n\n</think>\n\n"));
  EXPECT_EQ(direct.response, "#### 2<|im_end|>");
  const Conversation turns = {
      {"system", "s"}, {"user", "a"}, {"assistant", "<think>x</think>\n\nb"}, {"user", "c"}};
  const Texts later = example(kThinking, stops, turns, "d");
  EXPECT_TRUE(
      later.prompt.ends_with("assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n"
                             "<|im_start|>assistant\n"));
  EXPECT_EQ(later.response, "<think>\n\n</think>\n\nd<|im_end|>");
}

TEST(ChatExample, LearnsToStopWhereTheTemplateDoesNot) {
  // <|im_end|> does not end a sequence of this model, so what does is added.
  EXPECT_EQ(example(kChatMl, {"<eos>"}, kQuestion, "2").response, "2<|im_end|>\n<eos>");
  EXPECT_EQ(example("{% for m in messages %}{{ m.content }}{% endfor %}", {"<eos>"}, kQuestion, "2")
                .response,
            "2<eos>");
  // Generation ends at the first such token, so nothing after it is learned.
  EXPECT_EQ(example(kChatMl, {"<eos>", "<|im_end|>"}, kQuestion, "2<eos>3").response, "2<eos>");
  EXPECT_EQ(example(kChatMl, {"<|im_end|>"}, kQuestion, "").response, "<|im_end|>");
}

std::string refusal(const char* chat_template) {
  return error_of([&] { example(chat_template, {"<eos>"}, kQuestion, "zwei"); });
}

TEST(ChatExample, NamesATemplateWhoseResponseIsUnknown) {
  // The generation prompt opens a thought that the template never prints.
  EXPECT_THAT(
      refusal(
          R"J({% for m in messages %}<{{ m.role }}>é{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>è<think>
{% endif %})J"),
      AllOf(HasSubstr("tokenizer_config.json"),
            HasSubstr("generation prompt goes on with \"è<think>\\n\""),
            HasSubstr("has \"ézwei\"")));
  EXPECT_THAT(
      refusal(
          "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"),
      AllOf(HasSubstr("tokenizer_config.json"), HasSubstr("prints nothing for an assistant")));
  EXPECT_THAT(
      refusal(
          "{% for m in messages %}{% if not loop.first %}<eos>{% endif %}{{ m.content }}{% endfor "
          "%}"),
      AllOf(HasSubstr("tokenizer_config.json"),
            HasSubstr("(<eos>) before the assistant's answer")));
  EXPECT_THAT(
      refusal(
          "{% for m in messages %}{% if m.role == 'assistant' %}{{ raise_exception('no teachers') "
          "}}{% endif %}{{ m.content }}{% endfor %}"),
      HasSubstr("no teachers"));
}

/// In SentencePiece's way a text begins with a space that is not there; a response does
/// not begin a text.
TEST(ChatExample, AResponseIsNoNewTextToASentencePieceTokenizer) {
  const TemporaryFolder folder;
  folder.write("tokenizer.json", sentencepiece_tokenizer().dump());
  const auto response = [&](const char* between, const char* question, const char* answer) {
    const std::string chat_template = fmt::format(
        "{{% for m in messages %}}{{% if m.role == 'assistant' %}}{}{{% endif %}}{{{{ m.content "
        "}}}}{{% endfor %}}",
        between);
    folder.write("tokenizer_config.json",
                 nlohmann::json{{"chat_template", chat_template}, {"eos_token", "</s>"}}.dump());
    const Tokenizer tokenizer = Tokenizer::load(folder.path());
    const Conversation messages = {{"user", question}};
    std::vector<std::string> tokens;
    for (const int32_t id :
         chat_example(ChatTemplate(tokenizer), tokenizer, messages, answer).response)
      tokens.emplace_back(tokenizer.id_to_token(id));
    return tokens;
  };
  EXPECT_THAT(response(" ", "c", "ab"), testing::ElementsAre("\u2581ab", "</s>"));
  EXPECT_THAT(response("", "a", "bc"), testing::ElementsAre("bc", "</s>"))
      << "\"ab\" would be one token";
}

TEST(ChatExampleAssets, IdsAreThoseOfTransformers) {
  ORRERY_NEEDS_ASSET("tokenizers/qwen3");
  ORRERY_NEEDS_ASSET("tokenizers/minimind-6400");
  const Tokenizer qwen = Tokenizer::load(assets() / "tokenizers/qwen3");
  const ChatTemplate chat(qwen);
  EXPECT_THAT(chat_example(chat, qwen, kQuestion, "#### 2").response,
              testing::ElementsAre(151667, 271, 151668, 271, 820, 220, 17, 151645));
  ChatOptions options;
  options.variables["enable_thinking"] = false;
  EXPECT_THAT(chat_example(chat, qwen, kQuestion, "#### 2", options).response,
              testing::ElementsAre(820, 220, 17, 151645));

  const Tokenizer mini = Tokenizer::load(assets() / "tokenizers/minimind-6400");
  const ChatTemplate mini_chat(mini);
  EXPECT_THAT(chat_example(mini_chat, mini, kQuestion, "#### 2").response,
              testing::ElementsAre(4407, 546, 2));
  // The prompt opens a thought, which the template closes over a border inside of a
  // token.
  options.variables = {{"open_thinking", true}};
  const ChatExample open = chat_example(mini_chat, mini, kQuestion, "#### 2", options);
  EXPECT_TRUE(mini.decode(open.prompt, false).ends_with("assistant\n<think>\n"));
  EXPECT_EQ(mini.decode(open.response, false), "\n</think>\n\n#### 2<|im_end|>");
}

/// "[prompt] learned [between] learned": what is masked stands in brackets.
std::string turns(const std::string& chat_template, const std::vector<std::string>& stops,
                  const Conversation& conversation) {
  const Tokenizer tokenizer = byte_tokenizer(chat_template, stops);
  const ChatExample found =
      chat_example(ChatTemplate(tokenizer), tokenizer, conversation, LearnedTurns::kAll);
  std::string text = "[" + tokenizer.decode(found.prompt, false) + "]";
  std::vector<uint8_t> mask = found.loss_mask;
  if (mask.empty()) mask.resize(found.response.size(), 1);
  EXPECT_EQ(mask.size(), found.response.size());
  for (size_t begin = 0, end = 0; begin < mask.size(); begin = end) {
    while (end < mask.size() && mask[end] == mask[begin]) ++end;
    const std::string part = tokenizer.decode(std::span(found.response).subspan(begin, end - begin),
                                              /*skip_special_tokens=*/false);
    text += mask[begin] != 0 ? part : "[" + part + "]";
  }
  return text;
}

const Conversation kTwice = {{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}};

TEST(ChatTurns, EachIsLearnedAsIfItWereTheLast) {
  EXPECT_EQ(turns(kChatMl, {"<|im_end|>"}, kTwice),
            "[<|im_start|>user\n"
            "a<|im_end|>\n"
            "<|im_start|>assistant\n"
            "]b<|im_end|>[\n"
            "<|im_start|>user\n"
            "c<|im_end|>\n"
            "<|im_start|>assistant\n"
            "]d<|im_end|>");
  EXPECT_EQ(turns(kDeepseek, {"<eos>"}, kTwice),
            "[User: a\n\nAssistant:] b<eos>[User: c\n\nAssistant:] d<eos>");
  EXPECT_EQ(turns(kInstruct, {"<eos>"}, kTwice),
            "[[INST] a [/INST]] b <eos>[[INST] c [/INST]] d <eos>");
  // <|im_end|> does not end a sequence of this model: everything that is printed for a
  // message is learned, and the last message learns to stop.
  EXPECT_EQ(turns(kChatMl, {"<eos>"}, kTwice),
            "[<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n]b<|im_end|>\n"
            "[<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n]d<|im_end|>\n<eos>");
  // The end of the user's turn is no end of the assistant's.
  EXPECT_EQ(
      turns("{% for m in messages %}{{ m.content }}{{ '<eos>' if m.role == 'user' }}{% endfor %}",
            {"<eos>"}, kTwice),
      "[a<eos>]b[c<eos>]d<eos>");
  // Two messages of the assistant's in a row, and an end that a text has of its own.
  EXPECT_EQ(turns(kChatMl, {"<|im_end|>"},
                  {{"user", "a"}, {"assistant", "b<|im_end|>"}, {"assistant", "c"}}),
            "[<|im_start|>user\n"
            "a<|im_end|>\n"
            "<|im_start|>assistant\n"
            "]b<|im_end|>[<|im_end|>\n"
            "<|im_start|>assistant\n"
            "]c<|im_end|>");
  // One alone is as ever.
  const Conversation answered = {{"user", "1+1?"}, {"assistant", "2"}};
  EXPECT_EQ(turns(kChatMl, {"<|im_end|>"}, answered),
            "[<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n]2<|im_end|>");
  EXPECT_TRUE(example(kChatMl, {"<|im_end|>"}, kQuestion, "2").response == "2<|im_end|>");
}

TEST(ChatTurns, NamesATemplateThatRewritesThem) {
  EXPECT_THAT(error_of([] { turns(kThinking, {"<|im_end|>"}, kTwice); }),
              AllOf(HasSubstr("tokenizer_config.json"),
                    HasSubstr("prints an earlier turn otherwise"), HasSubstr("(\"b<|im_end|>"),
                    HasSubstr("where it had \"<think>"), HasSubstr("give each a row of its own")));
  // The last message alone can be learned.
  EXPECT_EQ(example(kThinking, {"<|im_end|>"}, {kTwice.begin(), kTwice.end() - 1}, "d").response,
            "<think>\n\n</think>\n\nd<|im_end|>");
  // An end that only the whole conversation has is not known to an earlier turn.
  EXPECT_THAT(
      error_of([] {
        turns(
            "{% for m in messages %}{{ m.content }}{% endfor %}{% if not add_generation_prompt "
            "%}<eos>{% endif %}",
            {"<eos>"}, kTwice);
      }),
      HasSubstr("prints an earlier turn otherwise"));
}

TEST(ChatTurns, AnEndInsideIsRefusedWhereverItStands) {
  const Tokenizer tokenizer = byte_tokenizer(kChatMl, {"<|im_end|>", "<eos>"});
  const auto refusal = [&](const char* json) {
    const ChatMessage message = chat_message_from_json(OrderedJson::parse(json), "row");
    return error_of([&] { check_no_end_inside(tokenizer, message); });
  };
  EXPECT_EQ(refusal(R"({"role": "assistant", "content": "a<|im_end|> \n"})"), "no error");
  EXPECT_THAT(refusal(R"({"role": "assistant", "content": "a<|im_end|>b"})"),
              HasSubstr("<|im_end|> inside"));
  EXPECT_THAT(refusal(R"({"role": "assistant", "content": "a<eos>b"})"), HasSubstr("<eos> inside"));
  EXPECT_THAT(refusal(R"({"role": "assistant", "content": [{"type": "text", "text": "a<eos>b"}]})"),
              HasSubstr("<eos> inside"));
  EXPECT_THAT(refusal(R"({"role": "assistant", "content": "a", "reasoning_content": "x<eos>"})"),
              HasSubstr("<eos> inside"));
  EXPECT_THAT(
      refusal(
          R"({"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"x": ["<eos>"]}}}]})"),
      HasSubstr("<eos> inside"));
  EXPECT_EQ(
      refusal(R"({"role": "assistant", "content": "a<|im_start|>b", "tool_calls": [{"x": 1}]})"),
      "no error");
}

/// tests/goldens/make_chat_turns.py asked transformers.
TEST(ChatTurnsAssets, IdsAndMasksAreThoseOfTransformers) {
  ORRERY_NEEDS_ASSET("tokenizers/qwen3");
  ORRERY_NEEDS_ASSET("tokenizers/minimind-6400");
  const OrderedJson cases = OrderedJson::parse(
      read_file(std::filesystem::path(ORRERY_SOURCE_DIR) / "tests/goldens/chat_turns.json"));
  std::map<std::string, Tokenizer> tokenizers;
  int learned = 0, refused = 0;
  for (const OrderedJson& one : cases) {
    const auto folder = one["folder"].get<std::string>();
    if (!tokenizers.contains(folder))
      tokenizers.emplace(folder, Tokenizer::load(assets() / folder));
    const Tokenizer& tokenizer = tokenizers.at(folder);
    const ChatTemplate chat = one.contains("template")
                                  ? ChatTemplate(one["template"].get<std::string>(), "golden",
                                                 tokenizer.template_tokens())
                                  : ChatTemplate(tokenizer);
    ChatOptions options;
    options.variables = one["variables"];
    options.tools = one["tools"];
    const Conversation conversation = chat_messages_from_json(one["messages"], "golden");
    const std::string name = folder + " " + one["variables"].dump() + " " + one["name"].dump();
    if (one["ids"].is_null()) {
      ++refused;
      EXPECT_NE(error_of([&] {
                  chat_example(chat, tokenizer, conversation, LearnedTurns::kAll, options);
                }),
                "no error")
          << name;
      continue;
    }
    ++learned;
    const ChatExample found =
        chat_example(chat, tokenizer, conversation, LearnedTurns::kAll, options);
    std::vector<int32_t> ids = found.prompt;
    ids.insert(ids.end(), found.response.begin(), found.response.end());
    EXPECT_EQ(ids, one["ids"].get<std::vector<int32_t>>()) << name;
    std::string mask(found.prompt.size(), '0');
    for (size_t i = 0; i < found.response.size(); ++i)
      mask += found.loss_mask.empty() || found.loss_mask[i] != 0 ? '1' : '0';
    EXPECT_EQ(mask, one["mask"].get<std::string>()) << name;
  }
  EXPECT_GT(learned, 20);
  EXPECT_GT(refused, 5);
}

}  // namespace
}  // namespace orrery::text
