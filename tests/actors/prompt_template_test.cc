#include "actors/prompt_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace orrery::actors {
namespace {

using testing::HasSubstr;

std::string refused(const std::string& pattern) {
  try {
    check_prompt_template(pattern);
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), kExitUsage);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "accepted";
}

TEST(PromptTemplate, HasOnePlaceForThePrompt) {
  for (const char* good :
       {"{}", "Q: {}\nA:", "{prompt}", "{prompt} in \\boxed{}", "{} {} {prompt}"}) {
    EXPECT_EQ(refused(good), "accepted") << good;
  }
  EXPECT_EQ(refused("Q:\n"),
            "data.prompt_template is 'Q:\\n': it must contain {}, where the prompt goes");
  EXPECT_THAT(refused("{} in \\boxed{}"),
              HasSubstr("{} exactly once, where the prompt goes; write {prompt}"));
  EXPECT_THAT(refused("{prompt} {prompt}"), HasSubstr("{prompt} exactly once"));
  EXPECT_LT(refused(std::string(9999, 'x')).size(), 200u);
}

TEST(PromptTemplate, IsFilledOnce) {
  EXPECT_EQ(fill_prompt_template("Q: {} A:", "what is {}?"), "Q: what is {}? A:");
  EXPECT_EQ(fill_prompt_template("{prompt} in \\boxed{}", "1+1"), "1+1 in \\boxed{}");
  EXPECT_EQ(fill_prompt_template("{prompt}!", "{prompt}"), "{prompt}!");
}

text::ChatMessage message(const char* json) {
  return text::chat_message_from_json(text::OrderedJson::parse(json), "test");
}

/// What a template would print of a message's content.
std::string printed(const text::ChatMessage& one) {
  const text::ChatTemplate chat(
      "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in "
      "m.content %}[{{ p.text if 'text' in p else p.type }}]{% endfor %}{% endif %}{% endfor %}",
      "t", {});
  return chat.render(std::vector{one});
}

TEST(PromptTemplate, StandsAroundTheLastUserMessage) {
  const auto wrapped = with_prompt_template({{"system", "s", {}},
                                             {"user", "first", {}},
                                             {"assistant", "a", {}},
                                             {"user", "last", {}},
                                             {"assistant", "b", {}}},
                                            "<{}>");
  ASSERT_EQ(wrapped.size(), 5u);
  EXPECT_EQ(wrapped[1].content, "first");
  EXPECT_EQ(wrapped[3].content, "<last>");
  EXPECT_EQ(wrapped[4].content, "b");
  EXPECT_EQ(printed(with_prompt_template({{"user", "x", {}}}, "{}").front()), "x");
}

TEST(PromptTemplate, KeepsTheShapeOfAMessage) {
  const struct {
    const char *json, *out;
  } cases[] = {
      {R"({"content": "q", "role": "user", "name": "n"})", "<q>"},
      {R"({"role": "user", "content": [{"type": "text", "text": "q"}]})", "[<q>]"},
      {R"({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]})",
       "[image][<a][b>]"},
      {R"({"role": "user", "content": null})", "<>"},
      {R"({"role": "user"})", "<>"},
  };
  for (const auto& c : cases) {
    const text::ChatMessage out = with_prompt_template({message(c.json)}, "<{}>").front();
    EXPECT_EQ(printed(out), c.out) << c.json;
    EXPECT_EQ(out.role, "user");
  }
  EXPECT_EQ(with_prompt_template({message(cases[2].json)}, "<{}>").front().content, "<ab>");
}

TEST(PromptTemplate, AConversationThatItDoesNotFitIsAnError) {
  const auto error = [](std::vector<text::ChatMessage> messages) -> std::string {
    try {
      with_prompt_template(std::move(messages), "<{}>");
    } catch (const Error& e) {
      return e.what();
    }
    return "none";
  };
  EXPECT_THAT(error({{"system", "s", {}}}), HasSubstr("no user message"));
  EXPECT_THAT(error({message(R"({"role": "user", "content": [{"type": "image"}]})")}),
              HasSubstr("has no text"));
  EXPECT_THAT(error({message(R"({"role": "user", "content": {"a": 1}})")}),
              HasSubstr("has no text"));
}

}  // namespace
}  // namespace orrery::actors
