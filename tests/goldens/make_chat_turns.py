#!/usr/bin/env python3
"""What transformers makes of conversations to learn from: tests/goldens/chat_turns.json.

    python3 -m venv v && v/bin/pip install transformers==5.24.0 jinja2
    ORRERY_ASSETS=... v/bin/python tests/goldens/make_chat_turns.py tests/goldens/chat_turns.json

For each template and conversation the ids of apply_chat_template, and which of them the assistant
says: where the template has no generation blocks, by rendering message after message, as TRL and
verl do. A turn ends with the first token that ends a sequence. Where the renderings are no
beginnings of each other there is no answer (null); where only their ids are not, the case is left
out. tests/text/chat_training_test.cc reads the file.
"""
import json
import os
import pathlib
import sys

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
from transformers import AutoTokenizer  # noqa: E402

ASSETS = pathlib.Path(os.environ["ORRERY_ASSETS"])
FOLDERS = ["tokenizers/qwen3", "tokenizers/minimind-6400"]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Z\u00fcrich", "days": 2}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "the weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}}
USER = [{"role": "user", "content": text}
        for text in ("Hello there!", "  1 + 1 = ?\n", "\u4f60\u597d \U0001F600", "And now?")]


def says(content, **more):
    return {"role": "assistant", "content": content, **more}


CONVERSATIONS = {
    "one": [USER[0], says("Good morning.")],
    "system": [{"role": "system", "content": "Be brief."}, USER[1], says("2")],
    "two": [USER[0], says("Hi!"), USER[1], says("2\n\n")],
    "four": [{"role": "system", "content": "s"}, USER[0], says("Hi, friend"), USER[1], says(" 2 "), USER[2], says("\u597d\U0001F600"),
             USER[3], says("def f(x):\n    return x\n")],
    "thoughts": [USER[0], says("<think>\nhm\n</think>\n\nHi!"), USER[1], says("<think>\nadd\n</think>\n\n2")],
    "last thought": [USER[1], says("<think>\nadd\n</think>\n\n2")],
    "reasoning": [USER[1], says("2", reasoning_content="add")],
    "calls": [USER[0], says("", reasoning_content="ask", tool_calls=[CALL]), {"role": "tool", "content": "rain"},
              says("It rains.", reasoning_content="so")],
    "calls without thoughts": [USER[0], says("Let me look.", tool_calls=[CALL]), {"role": "tool", "content": "rain"},
                               {"role": "tool", "content": "wind"}, says("It rains.")],
    "twice in a row": [USER[0], says("Hi!"), says("And?"), USER[1], says("2")],
}
# Of our own, in the manner of several families; the first marks what the assistant says, so that
# transformers gives the mask.
TEMPLATES = {
    "marked": """{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}\
{{ '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}{% else %}{{ m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "headers": """{% for m in messages %}{{ '<|object_ref_start|>' + m.role + '<|object_ref_end|>\\n\\n' + m.content | trim }}\
{{ '<|im_end|>' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|object_ref_start|>assistant<|object_ref_end|>\\n\\n' }}{% endif %}""",
    "brackets": """{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content | trim + eos_token }}{% else %}\
{{ '[INST] ' + m.content | trim + ' [/INST]' }}{% endif %}{% endfor %}""",
    "no end": """{% for m in messages %}{{ m.role + ':\\n' + m.content + '\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}""",
}
VARIABLES = {"tokenizers/qwen3": [{}, {"enable_thinking": False}], "tokenizers/minimind-6400": [{}, {"open_thinking": True}]}


def marked(tokenizer, messages):
    """By the template's own marks."""
    made = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True,
                                         return_dict=True)
    mask = made["assistant_masks"]
    end = len(mask) - mask[::-1].index(1)
    return made["input_ids"][:end], mask[:end]


def learned(tokenizer, messages, options):
    """(ids, mask), or None where texts are no beginnings of each other, or () where their ids are
    not."""
    def text(count, prompt):
        return tokenizer.apply_chat_template(messages[:count], tokenize=False,
                                             add_generation_prompt=prompt, **options)

    def ids(string):
        return tokenizer(string, add_special_tokens=False)["input_ids"]

    whole = text(len(messages), False)
    all_ids = ids(whole)
    mask = [0] * len(all_ids)
    end = 0
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt, turn = text(index, True), text(index + 1, False)
        before, after = ids(prompt), ids(turn)
        begin, end = len(before), len(after)
        if not turn.startswith(prompt):
            return None
        if after[:begin] != before:
            return ()
        if tokenizer.eos_token_id in after[begin:]:
            end = begin + after[begin:].index(tokenizer.eos_token_id) + 1
        if not whole.startswith(tokenizer.decode(after[:end])):
            return None
        if all_ids[:end] != after[:end]:
            return ()
        mask[begin:end] = [1] * (end - begin)
    return all_ids[:end], mask[:end]


def main():
    cases = []
    for folder in FOLDERS:
        tokenizer = AutoTokenizer.from_pretrained(ASSETS / folder)
        for variables in VARIABLES[folder]:
            for name, messages in CONVERSATIONS.items():
                options = dict(variables)
                if "calls" in name:
                    options["tools"] = [TOOL]
                found = learned(tokenizer, messages, options)
                if found == ():
                    continue
                cases.append({"folder": folder, "variables": variables, "name": name, "tools": options.get("tools"), "messages": messages,
                              "ids": found and found[0], "mask": found and "".join(map(str, found[1]))})
        if "qwen3" not in folder:
            continue
        for template, text in TEMPLATES.items():
            tokenizer.chat_template = text
            for name in ("one", "two", "four", "twice in a row"):
                messages = CONVERSATIONS[name]
                found = learned(tokenizer, messages, {})
                if template == "marked":
                    assert found == marked(tokenizer, messages), name
                if found == ():
                    continue
                if found and found[0][
                        -1] != tokenizer.eos_token_id:  # what ends the last turn is added
                    found = ([*found[0], tokenizer.eos_token_id], [*found[1], 1])
                cases.append({"folder": folder, "variables": {}, "name": f"{template}: {name}", "template": text, "tools": None,
                              "messages": messages, "ids": found and found[0], "mask": found and "".join(map(str, found[1]))})
    rows = ",\n".join(json.dumps(case) for case in cases)
    pathlib.Path(sys.argv[1]).write_text(f"[\n{rows}\n]\n")
    print(len(cases), "cases,", sum(case["ids"] is not None for case in cases), "with an answer")


if __name__ == "__main__":
    main()
