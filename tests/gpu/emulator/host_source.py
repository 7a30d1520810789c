#!/usr/bin/env python3
"""Rewrites a .cu or .cuh file for the emulator: launches, shared and device variables.
   host_source.py FILE TO"""
import re
import sys

text = open(sys.argv[1]).read()


def closing(at, pairs):
    """The index of the bracket that closes the one at `at`."""
    depth = 0
    for i in range(at, len(text)):
        depth += text[i] == pairs[0]
        depth -= text[i] == pairs[1]
        if depth == 0:
            return i
    raise ValueError(f"{sys.argv[1]}: no end of {text[at:at + 40]!r}")


def names_of(declarators):
    """The names that 'a[2][n], b' declares."""
    flat, depth = "", 0
    for c in declarators:
        depth += c in "[(<{"
        if depth == 0:
            flat += c
        depth -= c in "])>}"
    return [part.split()[-1].lstrip("*&") for part in flat.split(",")]


# extern __shared__ T name[];
text = re.sub(r"extern __shared__ (?:__align__\(\d+\) )?(\w+) (\w+)\[\];",
              r"\1* const \2 = static_cast<\1*>(simt::dynamic_shared());", text)

# __shared__ T a[2], b; in a kernel: members of a struct that has memory in each block.
count = 0


def shared(match):
    global count
    count += 1
    declaration = match.group(1)
    struct = f"Shared{count}_"
    references = "".join(f" auto& {n} = shared{count}_.{n};" for n in names_of(declaration))
    return (f"struct {struct} {{ {declaration}; }}; "
            f"auto& shared{count}_ = simt::shared<{struct}>();{references}")


text = re.sub(r"(?<!extern )__shared__ ([^;(]*(?:\(\d+\)[^;(]*)?);", shared, text)

# __device__ T name; at namespace scope: the device's memory, not the host's.
text = re.sub(r"^__(device|constant)__ ([\w:]+(?:<[^;()]*>)? \w+(?:\[[^;()]*\])*(?: = [^;]*|\{[^;]*)?;)",
              r'__attribute__((section("emulated_device"), used)) \2', text, flags=re.M)

out = []
at = 0
for match in re.finditer(r"([A-Za-z_][\w:]*(?:<[^<>;]*>)?)\s*<<<", text):
    end = text.index(">>>", match.end())
    config = text[match.end():end]
    start = text.index("(", end)
    last = closing(start, "()")
    kernel, arguments = match.group(1), text[start + 1:last]
    deduced = re.search(r"template\s*<[^;{]*>\s*__global__[^;{]*\b" + kernel + r"\s*\(", text)
    function = "nullptr" if deduced else f"(const void*)({kernel})"
    comma = ", " if arguments.strip() else ""
    out.append(text[at:match.start()])
    out.append(f'simt::launch(simt::Config({config}), "{kernel}", {function}, '
               f"[=](const auto&... a_) {{ {kernel}(a_...); }}{comma}{arguments})")
    at = last + 1
out.append(text[at:])
with open(sys.argv[2], "w") as to:
    to.write(f'#line 1 "{sys.argv[1]}"\n' + "".join(out))
