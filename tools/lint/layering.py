#!/usr/bin/env python3
"""Checks the house's floors over #include lines (docs/design.md, "The house") and the size of files
and lines.

    tools/lint/layering.py [ROOT]

A folder may include only what stands below it; mpi.h, hdf5.h, cuda_runtime.h and generated protobuf
have their places. Prints one line a finding, as file:line: message, and exits 1 if there is any.
"""
import re
import sys
from pathlib import Path

# What each folder may include besides itself, lowest floor first.
BELOW = {
    "core": set(),
    "proto": set(),
    "kernels": {"core"},
    "comm": {"core", "proto"},
    "text": {"core"},
    "config": {"core", "proto"},
    "models": {"core", "kernels"},
    "storage": {"core", "models"},
    "rollout": {"core", "proto", "kernels", "text", "models", "storage"},
    "actors": {"core", "proto", "kernels", "comm", "text", "models", "rollout"},
    "learners": {"core", "proto", "kernels", "comm", "models", "rollout"},
    "launch": {"core", "proto", "comm", "config", "storage", "rollout"},
}
# The two top floors see everything below them, so tools sees experiments, too. Tests and benchmarks
# see all: what they link bounds them.
BELOW["experiments"] = {*BELOW}
BELOW["tools"] = {*BELOW}
HOUSE = {*BELOW, "tests", "bench"}

# Headers with a place of their own: (what is included, the files that may, how to say it).
PLACES = [
    (re.compile(r"mpi\.h$"), re.compile(r"comm/|tests/(comm|mpi)/|bench/reduce_bench\.cc"), "mpi.h belongs to comm/ alone"),
    (re.compile(r"(hdf5|H5\w+|hdf5_hl)\.h$"),
     re.compile(r"(tests/)?(storage|rollout)/(.*/)?\w*(checkpoint|trajectory|rollout_file|hdf5)\w*\.(h|cc)$"),
     "hdf5.h belongs to the files of checkpoint and trajectory I/O in storage/ and rollout/"),
    (re.compile(r"(cuda_runtime(_api)?|cuda|cublasLt|cudnn|nccl)\.h$"),
     re.compile(r"tests/gpu/|core/\w*(device|cuda)\w*\.|(tests/)?kernels/cuda/|learners/cuda/|comm/\w*nccl\w*\."),
     "CUDA's headers belong to core's device files, kernels/cuda/, learners/cuda/ and NCCL's file"),
    (re.compile(r"(oneapi/dnnl/)?dnnl\w*\.hpp?$"), re.compile(r"bench/"), "oneDNN is the yardstick: bench/ alone uses it"),
]
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SOURCES = {".h", ".cc", ".cu", ".cuh"}
SIZED = SOURCES | {".py", ".sh", ".proto"}
LONGEST = 600
CODE_COLUMNS, COMMENT_COLUMNS = 100, 88
COMMENT = re.compile(r"^\s*//")
URL = re.compile(r"https?://\S+$")


def include_findings(name, delimiter, path, root):
    folder = name.split("/")[0]
    for header, allowed, message in PLACES:
        if header.match(path):
            if not allowed.match(name):
                yield message
            return
    if path.startswith((".", "/")) or (delimiter == '"' and "/" not in path):
        yield f"write the path from the root, as \"folder/file.h\", not {path}"
        return
    target = path.split("/")[0]
    if target not in HOUSE:  # from outside the house
        return
    if path.endswith(".pb.h"):
        proto = path[:-len(".pb.h")] + ".proto"
        if not (root / proto).exists():
            yield f"{path} is generated from {proto}, which does not exist"
    elif not (root / path).exists():
        yield f"{path} does not exist"
    if folder not in BELOW:  # tests, bench
        return
    if target not in BELOW[folder] | {folder}:
        may = ", ".join(sorted(BELOW[folder])) or "nothing else"
        if target == "proto" and folder in ("core", "kernels", "text", "models", "storage"):
            yield f"{folder}/ never includes generated protobuf ({path})"
        else:
            yield f"{folder}/ may not include {path}: it may include {may}"
    elif folder == "learners" and target == "rollout" and path != "rollout/trajectory.h":
        yield f"learners/ may include of rollout/ only trajectory.h, not {path}"


def in_raw_string(lines, number):
    """Whether line `number` lies inside R"(...)" or the like."""
    text = "\n".join(lines[:number - 1])
    begin = max(text.rfind('R"'), -1)
    if begin < 0:
        return False
    opened = re.match(r'R"([^()\\ ]{0,16})\(', text[begin:])
    return bool(opened) and f"){opened[1]}\"" not in text[begin:]


def file_findings(file, root):
    """(line, message) for one file."""
    name = file.relative_to(root).as_posix()
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    if len(lines) > LONGEST:
        yield LONGEST + 1, f"{len(lines)} lines; {LONGEST} at most, split it by what it does"
    if file.suffix not in SOURCES:
        return
    per_target = file.name.endswith(
        "-inl.h")  # included once for each SIMD target, so without the pragma
    if file.suffix in (".h", ".cuh") and not per_target and not any(
            line.startswith("#pragma once") for line in lines):
        yield 1, "a header starts with #pragma once"
    for number, line in enumerate(lines, 1):
        # A string may be longer, such as one that a test compares with.
        if len(line) > CODE_COLUMNS and not COMMENT.match(
                line) and '"' not in line and not in_raw_string(lines, number):
            yield number, f"{len(line)} columns; {CODE_COLUMNS} at most"
        if len(line) > COMMENT_COLUMNS and COMMENT.match(line) and not URL.search(line):
            yield number, f"a comment of {len(line)} columns; {COMMENT_COLUMNS} at most"
        match = INCLUDE.match(line)
        if match:
            for message in include_findings(name, match[1], match[2], root):
                yield number, message


def house_files(root):
    """Every source file of the house, build folders and hidden ones left out."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if folder.name.startswith((".", "build")):
            continue
        yield from sorted(
            path for path in folder.rglob("*") if path.suffix in SIZED and path.is_file())


def findings(root):
    for file in house_files(root):
        name = file.relative_to(root).as_posix()
        if file.suffix in SOURCES and name.split("/")[0] not in HOUSE:
            yield f"{name}:1: {name.split('/')[0]}/ is not a folder of the house; add it to tools/lint/layering.py with its floor"
            continue
        for number, message in file_findings(file, root):
            yield f"{name}:{number}: {message}"


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2]).resolve()
    if not root.is_dir():
        sys.exit(f"{root}: no such folder")
    found = list(findings(root))
    print("\n".join(found) if found else "layering: clean")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
