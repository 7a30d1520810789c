#!/usr/bin/env python3
"""Rewrites kernel<<<grid, block, ...>>>(arguments) of a .cu file for the emulator."""
import re
import sys

text = open(sys.argv[1]).read()
text = re.sub(r"extern __shared__ (?:__align__\(\d+\) )?(\w+) (\w+)\[\];",
              r"\1* const \2 = reinterpret_cast<\1*>(simt::dynamic_shared);", text)
out = []
at = 0
for match in re.finditer(r"([A-Za-z_]\w*(?:<[^<>;]*>)?)\s*<<<", text):
    if match.start() < at:
        continue
    end = text.index(">>>", match.end())
    config = text[match.end():end]
    depth, i, commas = 0, 0, 0
    for c in config:
        depth += c in "(<["
        depth -= c in ")>]"
        commas += c == "," and depth == 0
    config += ", 0, nullptr" if commas == 1 else ", nullptr" if commas == 2 else ""
    start = text.index("(", end)
    depth = 0
    for i in range(start, len(text)):
        depth += text[i] == "("
        depth -= text[i] == ")"
        if depth == 0:
            break
    out.append(text[at:match.start()])
    out.append(f"simt::launch({config}, [&] {{ {match.group(1)}{text[start:i + 1]}; }})")
    at = i + 1
out.append(text[at:])
print(f'#line 1 "{sys.argv[1]}"')
print("".join(out))
