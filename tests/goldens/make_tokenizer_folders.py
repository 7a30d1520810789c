#!/usr/bin/env python3
"""What Hugging Face transformers makes of the files beside tokenizer.json:
tests/goldens/tokenizer_folders.json.

    python3 -m venv v && v/bin/pip install transformers==5.24.0
    v/bin/python tests/goldens/make_tokenizer_folders.py tests/goldens/tokenizer_folders.json

A few hundred model folders, some written out here and the rest drawn at random: names in
tokenizer_config.json and special_tokens_map.json, flags in added_tokens_decoder, ids in
generation_config.json and config.json, tokenizer classes, model types. For each: ids of a text,
text of ids without special tokens, the names that a chat template knows, and the ids at which
generation ends (vLLM's rule: the tokenizer's eos, and generation_config.json's ids, or else
config.json's). tests/text/tokenizer_folders_test.cc reads them.
"""
import copy
import json
import os
import pathlib
import random
import shutil
import sys
import tempfile

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
from transformers import AutoTokenizer  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from scripted_model import ScriptedModel, added_token  # noqa: E402

BASES = {"bytes": ScriptedModel("unused").tokenizer()}
BASES["bytes"]["added_tokens"] = []
BASES["pieces"] = copy.deepcopy(BASES["bytes"])
BASES["pieces"] |= {
    "pre_tokenizer": None,
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
                                                       {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
    "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                                                 {"type": "ByteFallback"}, {"type": "Fuse"}]}}
TOKENS = ["<s>", "</s>", "<unk>", "<|endoftext|>", "<a>", "<b>"]  # ids from 256 on
NAMES = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token", "image_token"]
CLASSES = [None, "LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast", "Qwen2Tokenizer", "GPT2Tokenizer",
           "TokenizersBackend"]
TYPES = ["llama", "mistral", "qwen2", "qwen3"]
TEXT = "h <s> i</s>j <a> k<b>\n"
IDS = [104, *range(256, 256 + len(TOKENS)), 105]


def entry(content, special, **flags):
    """Of added_tokens_decoder, or of special_tokens_map.json."""
    token = added_token(0, content, special, **flags)
    del token["id"]
    return token


def typed(content):
    return {"__type": "AddedToken", **entry(content, True)}


def folder(special=(), base="bytes", config=None, map=None, generation=None, model=None, added=None,
           **tokenizer):
    """A case: `special`: which of TOKENS tokenizer.json flags; the others are files, None for one
    that is absent."""
    files = {"config.json": {"model_type": "llama", **(model or {})}}
    for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", map),
                          ("generation_config.json", generation), ("added_tokens.json", added)):
        if content is not None:
            files[name] = content
    return {"base": base, "special": list(special), "tokenizer": tokenizer, "files": files}


def by_hand():
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                                                         {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}}
    for name in NAMES:
        yield folder(config={name: "</s>"})
        yield folder(config={name: typed("</s>")})
        yield folder(map={name: "</s>"}, config={})
        yield folder(map={name: entry("</s>", True)})
        yield folder(config={name: "<a>"}, map={name: "<b>"})
        yield folder(config={name: "<a>"}, map={name: None})
        yield folder(config={name: None})
        yield folder(config={name: ""})
        yield folder(config={name: "h"})  # an entry of model.vocab alone
    for model_type in TYPES:
        for tokenizer_class in CLASSES:
            config = {} if tokenizer_class is None else {"tokenizer_class": tokenizer_class}
            for base in BASES:
                yield folder(TOKENS, base, config, model={"model_type": model_type})
                yield folder(TOKENS, base, {**config, "eos_token": None, "pad_token": None},
                             model={"model_type": model_type})
            for add in (True, False, None):
                flags = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": add, "add_eos_token": add}
                yield folder(TOKENS, config={**config, **flags}, model={"model_type": model_type})
        yield folder(TOKENS, config=None, model={"model_type": model_type})
    for add in (True, False):
        yield folder(
            TOKENS, config={
                "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": add, "add_eos_token": add
            }, post_processor=template)
    for special in (True, False):
        yield folder(config={"added_tokens_decoder": {"257": entry("</s>", special)}})
        yield folder(["</s>"], config={"added_tokens_decoder": {"257": entry("</s>", special)}})
        yield folder(config={"added_tokens_decoder": {"260": entry("<a>", special, lstrip=True, rstrip=True)}})
        yield folder(["<a>"],
                     config={"added_tokens_decoder": {"260": entry("<a>", special, lstrip=True)}})
        yield folder(["<a>"], config={"added_tokens_decoder": {"260": entry("<a>", special, normalized=True)}})
        yield folder(config={"added_tokens_decoder": {"262": entry(" k", special)}})
        yield folder(config={"added_tokens_decoder": {"104": entry("h", special)}})
        yield folder(TOKENS, config={"split_special_tokens": special})
    yield folder(["<a>"], config={"added_tokens_decoder": {}, "eos_token": "<a>"},
                 map={"eos_token": "<b>", "bos_token": "<s>"})
    yield folder(
        config={"additional_special_tokens": None, "extra_special_tokens": {"video_token": "<a>"}})
    yield folder(config={"eos_token": " k"}, added={" k": 262, "h ": 263})
    for ids in (257, [257], [257, 256], None, []):
        for other in (260, [261, 257], None):
            for eos in ({}, {"eos_token": "<|endoftext|>"}):
                yield folder(TOKENS, config=eos,
                             generation={"eos_token_id": ids,
                                         "bos_token_id": 256}, model={"eos_token_id": other})
                yield folder(TOKENS, config=eos, model={"eos_token_id": ids, "bos_token_id": 256})


def at_random(random):
    def some(tokens):
        return random.sample(tokens, random.randrange(len(tokens) + 1))

    def ids():
        return random.choice(
            [None,
             random.choice(IDS), [random.choice(IDS) for _ in range(random.randrange(4))]])

    config = {name: random.choice(["<s>", "</s>", "<a>", typed("<b>"), None]) for name in some(NAMES[:-1])}
    special, model_type, tokenizer_class = some(TOKENS), random.choice(TYPES), random.choice(
        CLASSES)
    if tokenizer_class:
        config["tokenizer_class"] = tokenizer_class
    # Some classes build their tokenizer anew and forget what tokenizer.json says of added tokens:
    # for them both say the same.
    anew = model_type.startswith("qwen") or tokenizer_class in ("Qwen2Tokenizer", "GPT2Tokenizer")
    chance = 0.0 if anew else 0.3
    if random.random() < 0.4:
        config["added_tokens_decoder"] = {
            str(256 + i): entry(t, (t in special) != (random.random() < chance), lstrip=random.random() < chance,
                                rstrip=random.random() < chance) for i, t in enumerate(TOKENS)}
    map = {name: random.choice(["<s>", "<b>", entry("<a>", True), None]) for name in some(NAMES)}
    return folder(special, config=config if random.random() < 0.9 else None,
                  map=map if random.random() < 0.5 else None,
                  generation=random.choice([None, {}, {"eos_token_id": ids()}]),
                  model={"model_type": model_type, **random.choice([{}, {"eos_token_id": ids()}])})


def expectations(case):
    where = pathlib.Path(tempfile.mkdtemp(prefix="orrery-goldens-"))
    layout = {**BASES[case["base"]], **case["tokenizer"],
              "added_tokens": [added_token(256 + i, t, t in case["special"]) for i, t in enumerate(TOKENS)]}
    for name, content in {**case["files"], "tokenizer.json": layout}.items():
        (where / name).write_text(json.dumps(content))
    tokenizer = AutoTokenizer.from_pretrained(where)
    shutil.rmtree(where)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for name in ("generation_config.json", "config.json"):
        ids = case["files"].get(name, {}).get("eos_token_id")
        if ids is not None and ids != []:
            end += [i for i in dict.fromkeys(ids if isinstance(ids, list) else [ids]) if i not in end]
            break
    expect = {"names": tokenizer.special_tokens_map, "end": end}
    if case["base"] == "bytes":  # a rebuilt tokenizer of pieces is not tokenizer.json's
        expect |= {"ids": tokenizer.encode(TEXT), "text": tokenizer.decode(IDS, skip_special_tokens=True)}
    return expect


def main():
    draw = random.Random(1)
    cases = [*by_hand(), *(at_random(draw) for _ in range(150))]
    for case in cases:
        case["expect"] = expectations(case)
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        head = json.dumps({"tokens": TOKENS, "text": TEXT, "ids": IDS, "bases": BASES})
        lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
        out.write(f"{head[:-1]}, \"cases\": [\n{lines}\n]}}\n")
    print(f"{len(cases)} folders")


main()
