// Input: a chat template in Jinja, then perhaps, after a line "===", the content of a
// message.
#include "tests/fuzz/fuzzing.h"
#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace orrery;
  const std::vector<std::string> parts = fuzzing::parts({data, size});
  std::vector<text::ChatMessage> messages = {{"system", "You are \xC3\xA9."}, {"user", " Hi "}};
  if (parts.size() > 1) messages.push_back({"assistant", parts[1]});
  text::ChatMessage call{"assistant", "",
                         text::OrderedJson::parse(R"({"tool_calls": [{"function": {"name": "f",
    "arguments": {"x": [1, 2.5, null, true, "\u00e9"]}}}], "reasoning_content": "r"})")};
  messages.push_back(call);
  fuzzing::accepted([&] {
    const text::ChatTemplate chat(parts[0], "template",
                                  {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
    text::ChatOptions options;
    fuzzing::accepted([&] { chat.render(messages, options); });
    options.add_generation_prompt = false;
    options.variables = {{"enable_thinking", false},
                         {"date_string", "26 Jul 2024"},
                         {"strftime_now", "2025-07-26"},
                         {"n", {1, {{"k", -0.5}}}}};
    options.tools = text::OrderedJson::parse(
        R"([{"type": "function", "function": {"name": "f", "parameters": {}}}])");
    fuzzing::accepted([&] { chat.render(std::span(messages).subspan(1), options); });
  });
  return 0;
}
