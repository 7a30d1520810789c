#!/usr/bin/env python3
"""docs/config.md: every key of a config, from proto/config.proto and its comments.

    tools/lint/config_reference.py            # writes docs/config.md
    tools/lint/config_reference.py --check    # exit 1, naming the first line that differs, where it is not current

Python's standard library only.
"""
import argparse
import pathlib
import re
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parents[2]
WIDTH = 88
COMMAND = "tools/lint/config_reference.py"
HEAD = f"""# Keys of a config

Written by `{COMMAND}` from [proto/config.proto](../proto/config.proto): change that
file's comments, not this one.

A config is YAML: sections with keys, `actor:` with `optim:` and `lr:` below it. On the
command line the same key is `actor.optim.lr=1e-5`, which goes before the file's. Of a
list `[a, b]` one item may stand alone. An unknown, repeated, mistyped or out-of-range
key is an error that names file and line; so is a key that has no effect beside the
others, such as `actor.kl_loss_type` without `actor.kl_loss_coef`. `orrery config FILE`
prints every key as it was resolved, `orrery config FILE --files` reads the files that
it names. Names are verl's where verl has one ([migration.md](migration.md));
[resume.md](resume.md) says which keys may change when a run goes on.
"""

FIELD = re.compile(
    r"(optional|repeated|map<string, string>)\s+(?:(\w+)\s+)?(\w+)\s*=\s*\d+\s*(?:\[(.*)\])?;")
DEFAULT = re.compile(r"default\s*=\s*(\"(?:[^\"\\]|\\.)*\"|[^,\]]+)")
RANGE = re.compile(r"\(range\)\s*=\s*\"([^\"]*)\"")
DEFAULTS = {"sft.optim.lr": "1e-5"}  # that the program sets by another rule than the schema's
KINDS = {"string": "text", "int64": "whole number", "uint64": "whole number, not negative", "double": "number",
         "bool": "true or false"}


class Bad(Exception):
    pass


class Key:
    def __init__(self, name, kind, repeated, default, limits, comment):
        self.name, self.kind, self.repeated = name, kind, repeated
        self.default, self.limits, self.comment = default, limits, comment


def word(value):
    """As an enum's value is written in YAML."""
    return value.lower().replace("_", "-")


def parse(text):
    """Messages by name, each with a comment and keys in order; enums by the name that fields call
    them."""
    messages, enums, comments, message, enum = {}, {}, {}, None, None
    comment, open_enum = [], None
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if open_enum is not None:  # the values of an enum over several lines
            if bare == "}":
                open_enum, comment = None, []
            elif bare.startswith("//"):
                comment.append(bare[2:].strip())
            else:
                value = re.fullmatch(r"(\w+) = \d+;", bare)
                if value is None:
                    raise Bad(f"line {number}: '{bare}' is no value of an enum")
                enums[open_enum].append((word(value.group(1)), " ".join(comment)))
                comment = []
            continue
        if bare.startswith("//"):
            comment.append(bare[2:].strip())
            continue
        opened = re.fullmatch(r"(message|enum|extend) ([\w.]+) \{(.*)", bare)
        field = FIELD.fullmatch(bare.split(" //")[0])
        if opened and opened.group(1) == "message":
            message = opened.group(2)
            messages[message], comments[message] = [], " ".join(comment)
        elif opened and opened.group(1) == "extend":
            message = None
        elif opened:
            # An enum inside a message is that message's.
            enum = f"{message}.{opened.group(2)}" if message and line.startswith(
                " ") else opened.group(2)
            enums[enum] = [(word(value), "") for value in re.findall(r"(\w+) = \d+;", opened.group(3))]
            comments[enum] = " ".join(comment)
            if not bare.endswith("}"):
                open_enum = enum
        elif field and message is not None:
            label, kind, name, options = field.groups()
            default, limits = DEFAULT.search(options or ""), RANGE.search(options or "")
            kind = f"{message}.{kind}" if f"{message}.{kind}" in enums else kind
            messages[message].append(
                Key(name, "map" if label.startswith("map") else kind, label == "repeated",
                    default.group(1).strip() if default else None,
                    limits.group(1) if limits else None, " ".join(comment)))
        elif bare == "}":
            message = None if line == "}" else message
        comment = []
    return messages, enums, comments


def kind_text(key, enums):
    if key.kind == "map":
        return "names with values"
    if key.kind in enums:
        words = [f"`{value}`" for value, _ in enums[key.kind]]
        return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    text = KINDS[key.kind]
    return f"list of {text}s" if key.repeated else text


def default_text(key, name, enums):
    if name in DEFAULTS:
        return f"`{DEFAULTS[name]}`"
    if key.kind == "map":
        return "`{}`"
    if key.repeated:
        return "`[]`"
    if key.default is None:
        return "none"
    return f"`{word(key.default)}`" if key.kind in enums else f"`{key.default}`"


def wrapped(text, first="", rest=""):
    """Lines of text; `code` is never cut."""
    glued = re.sub(r"`[^`]*`", lambda match: match.group(0).replace(" ", "\0"), text)
    lines = textwrap.wrap(glued, WIDTH, initial_indent=first, subsequent_indent=rest,
                          break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def escaped(comment):
    """A comment as Markdown: its < and * are no markup."""
    parts = re.split(r"(`[^`]*`)", comment)
    marked = [part if part.startswith("`") else re.sub(r"([<*\\|])", r"\\\1", part) for part in parts]
    return re.sub(r"\bdocs/(\w+\.md)", r"[\1](\1)", "".join(marked))


def section(out, path, message, messages, enums, comments, intro=""):
    keys = messages[message]
    out.append(f"## {path or 'Outside of sections'}\n")
    text = " ".join(part for part in (intro, comments[message]) if part)
    if text:
        out.append(wrapped(escaped(text)) + "\n")
    inner = []
    for key in keys:
        if key.kind in messages:
            inner.append(key)
            continue
        name = f"{path}.{key.name}" if path else key.name
        facts = [kind_text(key, enums)]
        if key.limits:
            facts.append(f"{key.limits}" if key.limits[0] == ">" else f"in {key.limits}")
        facts.append(f"default {default_text(key, name, enums)}")
        out.append(f"### {name}")
        out.append(wrapped(f"{'; '.join(escaped(fact) for fact in facts)}.") + "\n")
        comment = key.comment
        enum = comments.get(key.kind, "")
        if enum and key.kind in enums:
            own = "." in key.kind  # declared, and so spoken of, just before the key
            comment = " ".join(
                part for part in ((enum, comment) if own else (comment, enum)) if part)
        if comment:
            out.append(wrapped(escaped(comment)) + "\n")
        for value, said in enums.get(key.kind, []):
            if said:
                out.append(wrapped(escaped(said), f"- `{value}`: ", "  "))
        if any(said for _, said in enums.get(key.kind, [])):
            out.append("")
    for key in inner:
        section(out, f"{path}.{key.name}" if path else key.name, key.kind, messages, enums,
                comments, key.comment)


def contents(out):
    """Links to the sections, above them."""
    names = [line[3:] for block in out for line in block.splitlines() if line.startswith("## ")]
    anchor = lambda name: re.sub(r"[^a-z0-9_ -]", "", name.lower()).replace(" ", "-")
    return wrapped("Sections: " + ", ".join(f"[{name}](#{anchor(name)})" for name in names) +
                   ".") + "\n"


def render(text):
    messages, enums, comments = parse(text)
    if "Config" not in messages:
        raise Bad("there is no message Config")
    out = []
    section(out, "", "Config", messages, enums, comments)
    return HEAD + "\n" + contents(out) + "\n" + "\n".join(out).rstrip() + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true",
                        help="write nothing; exit 1 when docs/config.md is not current")
    parser.add_argument("--root", type=pathlib.Path, default=ROOT, help="the source tree")
    args = parser.parse_args()
    source, target = args.root / "proto/config.proto", args.root / "docs/config.md"
    try:
        wanted = render(source.read_text(encoding="utf-8"))
    except Bad as error:
        sys.exit(f"{source}: {error}")
    if not args.check:
        target.write_text(wanted, encoding="utf-8")
        return
    found = target.read_text(encoding="utf-8").splitlines() if target.exists() else []
    lines = wanted.splitlines()
    for number in range(max(len(found), len(lines))):
        if found[number:number + 1] != lines[number:number + 1]:
            sys.exit(
                f"docs/config.md:{number + 1}: not what proto/config.proto says; run {COMMAND}")


if __name__ == "__main__":
    main()
