"""Chat templates through the built command: conversations, tools and variables, against texts that
jinja2 made."""
import json
import unittest

from harness import ASSETS, Case, ScriptedModel

# One of our own, with what the templates of tool-calling models use.
TEMPLATE = """{%- macro render(value, indent=0) -%}
{%- if value is mapping -%}
{%- for key, item in value|dictsort %}
{{ '  ' * indent }}{{ key }}: {{ render(item, indent + 1) }}
{%- endfor -%}
{%- elif value is iterable and value is not string -%}
{{ value|map('tojson')|join(', ') }}
{%- else -%}
{{ value|tojson }}
{%- endif -%}
{%- endmacro -%}
{{- bos_token }}
{%- set ns = namespace(system='', calls=0) %}
{%- set thinking = enable_thinking if enable_thinking is defined else true %}
{%- if messages[0].role == 'system' %}
    {%- set ns.system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- if ns.system or tools %}
    {{- '<|system|>\\n' ~ ns.system }}
    {%- for tool in tools or [] %}
        {{- '\\n- %s: %s' % (tool.function.name, tool.function.description|default('none')|capitalize) }}
        {{- render(tool.function.parameters.properties, 1) }}
    {%- endfor %}
    {{- '<|end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role not in ['user', 'assistant', 'tool'] %}
        {{- raise_exception('unknown role ' ~ message.role) }}
    {%- endif %}
    {%- if message.role == 'tool' and loop.previtem and loop.previtem.role == 'tool' %}{{ ' & ' }}
    {%- else %}{{ '<|' + message.role.upper() + '|>' }}{% endif %}
    {%- set content = message.content if message.content is string else message.content|map(attribute='text')|join(' ') %}
    {%- if '</think>' in content %}{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}
    {{- content }}
    {%- for call in message.tool_calls or [] %}
        {%- set ns.calls = ns.calls + 1 %}
        {{- '[' ~ ns.calls ~ ' ' ~ call.function.name ~ '(' ~ (call.function.arguments|tojson) ~ ')]' }}
    {%- endfor %}
    {{- '<|end|>\\n' if not loop.last or message.role != 'tool' else '' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|ASSISTANT|>' }}{% if not thinking %}{{ '<think></think>' }}{% endif %}
{%- endif %}
"""
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "the weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "enum": ["Z\u00fcrich", "Bern"]}}}}}
CALLS = [{"role": "system", "content": " Use tools. "}, {"role": "user", "content": "Weather?"},
         {"role": "assistant", "content": "<think>\nhm\n</think>\n\nLooking. ",
          "tool_calls": [{"id": "1", "function": {"name": "get_weather", "arguments": {"city": "Z\u00fcrich", "at": 1.5}}}]},
         {"role": "tool", "tool_call_id": "1", "content": "rain"}, {"role": "tool", "content": "wind"}]


class Chat(Case):
    def model(self, template, special=("<s>", "<eos>"), **config):
        folder = self.folder / "model"
        model = ScriptedModel(folder, special=special)
        model.say_all("\n", "<eos>")
        model.write(bos_token="<s>", eos_token="<eos>")
        (folder / "chat_template.jinja").write_text(template)
        return folder

    def prompts(self, folder, *args, **kwargs):
        return self.ok("generate", "--model", folder, "--chat", "--print-prompt", *args,
                       **kwargs).stdout

    def file(self, name, value):
        path = self.folder / name
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    def test_an_empty_system_message_is_sent(self):
        folder = self.model("{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}")
        self.assertEqual(self.prompts(folder, "--prompt", "a"), "[user:a]\n")
        self.assertEqual(self.prompts(folder, "--prompt", "a", "--system", ""),
                         "[system:][user:a]\n")
        self.assertEqual(self.prompts(folder, "--prompt", "a", "--system="), "[system:][user:a]\n")
        self.assertEqual(
            self.prompts(folder, "--prompt", "a", "--prompt", "[b, c]", "--system", "s"),
            "[system:s][user:a]\n[system:s][user:[b, c]]\n")
        # What is printed is what is asked.
        asked = json.loads(
            self.ok("generate", "--model", folder, "--chat", "--prompt", "a", "--system", "",
                    "--json", "--max-new-tokens", 1).stdout)
        printed = json.loads(self.prompts(folder, "--prompt", "a", "--system", "", "--json"))
        self.assertEqual(asked["prompt_ids"], printed["prompt_ids"])
        self.assertEqual(printed["prompt"], "[system:][user:a]")

    def test_template_arguments_have_their_kinds(self):
        folder = self.model("{% for v in [a, b, c, d, e, f] %}{{ v }}{{ v is string }}{{ v is number }};{% endfor %}")
        text = self.prompts(
            folder, "--prompt", "x",
            *(word for value in ("a=false", "b=3", "c=1.5", "d=low", 'e="3"', "f=[1, 2]")
              for word in ("--template-arg", value)))
        self.assertEqual(
            text,
            "FalseFalseTrue;3FalseTrue;1.5FalseTrue;lowTrueFalse;3TrueFalse;[1, 2]FalseFalse;\n")
        text = self.prompts(folder, "--prompt", "x", "--template-arg", "a=x=[y, z]",
                            "--template-arg", "b=")
        self.assertIn("x=[y, z]True", text)
        self.fails(2, "generate", "--model", folder, "--chat", "--prompt", "x", "--template-arg",
                   "a", says=["NAME=VALUE"])
        self.fails(2, "generate", "--model", folder, "--chat", "--prompt", "x", "--template-arg",
                   "messages=1", says=["messages"])
        self.fails(2, "generate", "--model", folder, "--prompt", "x", "--template-arg", "a=1",
                   says=["--template-arg needs --chat"])
        self.fails(2, "generate", "--model", folder, "--chat", says=["--prompt"])
        result = self.ok("generate", "--model", folder, "--chat", "--print-prompt", "--prompt", "x",
                         "--template-arg", "nope=1")
        self.assertIn("reads no variable nope", result.stderr + result.stdout)

    def test_tools_and_tool_calls(self):
        folder = self.model(TEMPLATE)
        messages, tools = self.file("m.json", CALLS), self.file("t.json", [WEATHER])
        self.assertEqual(
            self.prompts(folder, "--messages", messages, "--tools", tools),
            '<s><|system|>\nUse tools.\n- get_weather: The weather  city:     enum: "Z\u00fcrich", "Bern"    type: "string"'
            '<|end|>\n<|USER|>Weather?<|end|>\n<|ASSISTANT|>Looking. [1 get_weather({"city": "Z\u00fcrich", "at": 1.5})]<|end|>\n'
            '<|TOOL|>rain<|end|>\n & wind<|ASSISTANT|>\n')
        # Lines of requests, each with its own settings.
        lines = [{"messages": CALLS[1:2], "chat_template_kwargs": {"enable_thinking": False}},
                 {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
                  "add_generation_prompt": False},
                 CALLS[1:2]]
        requests = self.file("r.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        self.assertEqual(self.prompts(folder, "--messages", requests),
                         "<s><|USER|>Weather?<|end|>\n<|ASSISTANT|><think></think>\n"
                         "<s><|USER|>a b<|end|>\n\n"
                         "<s><|USER|>Weather?<|end|>\n<|ASSISTANT|>\n")
        bad = self.file(
            "b.jsonl",
            json.dumps([{"role": "robot", "content": ""}]) + "\n" + json.dumps(CALLS[1:2]) + "\n")
        rows = self.fails(1, "generate", "--model", folder, "--chat", "--messages", bad,
                          "--print-prompt", "--json").stdout
        first, second = map(json.loads, rows.splitlines())
        self.assertIn("the template says: unknown role robot", first["error"])
        self.assertIn("Weather?", second["prompt"])
        self.fails(1, "generate", "--model", folder, "--chat", "--messages", bad,
                   says=["unknown role robot"])
        for text, says in (("[]", "no messages"), ("{}", "messages"), ('[{"role": "user"}', "not this line"),
                           ('{"messages": [], "temperature": 1}', "temperature"), ('["a"]', "not an object")):
            self.fails(2, "generate", "--model", folder, "--chat", "--messages",
                       self.file("x.json", text),
                       says=[says if says != "not this line" else "x.json:1"])
        self.fails(2, "generate", "--model", folder, "--chat", "--messages",
                   self.folder / "none.json", says=["no such file"])
        self.fails(2, "generate", "--model", folder, "--chat", "--prompt", "a", "--tools",
                   self.file("x.json", "{}"), says=["list"])

    def test_the_date_is_given_or_missed(self):
        folder = self.model("{{ strftime_now('%d %B %Y') }}")
        self.fails(1, "generate", "--model", folder, "--chat", "--prompt", "a",
                   says=["--template-arg strftime_now=2025-07-26"])
        self.assertEqual(
            self.prompts(folder, "--prompt", "a", "--template-arg", "strftime_now=2025-07-26"),
            "26 July 2025\n")

    @unittest.skipUnless((ASSETS / "tokenizers/qwen3").is_dir(), "no assets")
    def test_qwen3(self):
        messages, tools = self.file("m.json", CALLS), self.file("t.json", [WEATHER])
        text = self.prompts(ASSETS / "tokenizers/qwen3", "--messages", messages, "--tools", tools,
                            "--template-arg", "enable_thinking=false")
        self.assertTrue(text.startswith(
            "<|im_start|>system\n Use tools. \n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
            "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n" +
            json.dumps(WEATHER, ensure_ascii=False) + "\n</tools>"), text)
        self.assertTrue(text.endswith(
            '<|im_start|>assistant\n<think>\nhm\n</think>\n\nLooking. \n<tool_call>\n{"name": "get_weather", "arguments": '
            '{"city": "Z\u00fcrich", "at": 1.5}}\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\nrain\n</tool_response>\n'
            "<tool_response>\nwind\n</tool_response><|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n\n"), text)


if __name__ == "__main__":
    unittest.main()
