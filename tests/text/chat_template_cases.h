// Templates of the kinds that models bring, conversations, and what Python's jinja2
// makes of them, set up as Hugging Face transformers does (trim_blocks, lstrip_blocks).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "text/chat_template.h"

namespace orrery::text {

using Conversation = std::vector<ChatMessage>;

inline const std::map<std::string, std::string>& templates() {
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

inline const std::vector<Conversation>& conversations() {
  static const std::vector<Conversation> kConversations = {
      {{"user", "Hi"}},
      {{"system", " Be brief. "},
       {"user", " What is 2+2?\n"},
       {"assistant", "4"},
       {"user", "你好 <think>a</think>\n\nb"}},
      {{"user", "a"}, {"tool", "t1"}, {"tool", "t2"}, {"assistant", ""}}};
  return kConversations;
}

/// Turns as ChatML and as Llama 3 write them.
inline std::string chatml(const Conversation& turns) {
  std::string text;
  for (const ChatMessage& turn : turns)
    text += "<|im_start|>" + turn.role + "\n" + turn.content + "<|im_end|>\n";
  return text;
}
inline std::string llama(const Conversation& turns) {
  std::string text;
  for (const ChatMessage& turn : turns)
    text +=
        "<|start_header_id|>" + turn.role + "<|end_header_id|>\n\n" + turn.content + "<|eot_id|>";
  return text;
}

struct RenderCase {
  const char* name;     // of the template
  size_t conversation;  // index in conversations()
  bool add_generation_prompt;
  std::string text;
};

/// The texts came from Python; the turns that they have in common are spelled once.
inline std::vector<RenderCase> render_cases() {
  const std::string chatml_prompt = "<|im_start|>assistant\n";
  const std::string llama_prompt = "<|start_header_id|>assistant<|end_header_id|>\n\n";
  const std::string thought = "你好 <think>a</think>\n\nb";
  const ChatMessage default_system = {"system", "You are a test."};
  const std::string chatml_brief = chatml({{"system", " Be brief. "},
                                           {"user", " What is 2+2?\n"},
                                           {"assistant", "4"},
                                           {"user", thought}}) +
                                   chatml_prompt;
  const std::string llama_brief =
      llama({{"user", "What is 2+2?"}, {"assistant", "4"}, {"user", thought}}) + llama_prompt;
  const std::string llama_date =
      "<BOS><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
      "Today Date: 26 Jul 2024\n\n";
  return {
      {"chatml", 0, true, chatml({{"user", "Hi"}}) + chatml_prompt},
      {"chatml", 1, true, chatml_brief},
      {"chatml", 2, false,
       chatml({{"user", "a"}, {"tool", "t1"}, {"tool", "t2"}, {"assistant", ""}})},
      {"chatml with a default system prompt", 0, true,
       chatml({default_system, {"user", "Hi"}}) + chatml_prompt},
      {"chatml with a default system prompt", 1, true, chatml_brief},
      {"chatml with a default system prompt", 2, false,
       chatml({default_system, {"user", "a"}, {"tool", "t1"}, {"tool", "t2"}, {"assistant", ""}})},
      {"chatml over lines, with tools", 0, true,
       chatml({default_system, {"user", "Hi"}}) + chatml_prompt},
      {"chatml over lines, with tools", 1, true, chatml_brief},
      {"chatml over lines, with tools", 2, false,
       chatml({default_system, {"user", "a"}, {"user", "[t1]\n[t2]"}, {"assistant", ""}})},
      {"llama 3", 0, true, "<BOS>" + llama({{"user", "Hi"}}) + llama_prompt},
      {"llama 3", 1, true, "<BOS>" + llama({{"system", "Be brief."}}) + llama_brief},
      {"llama 3", 2, false,
       "<BOS>" + llama({{"user", "a"}, {"tool", "t1"}, {"tool", "t2"}, {"assistant", ""}})},
      {"llama 3.2", 0, true, llama_date + "<|eot_id|>" + llama({{"user", "Hi"}}) + llama_prompt},
      {"llama 3.2", 1, true, llama_date + "Be brief.<|eot_id|>" + llama_brief},
      {"llama 3.2", 2, false,
       llama_date + "<|eot_id|>" + llama({{"user", "a"}, {"assistant", ""}})},
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
}

}  // namespace orrery::text
