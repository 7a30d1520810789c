#!/usr/bin/env python3
"""Runs clang-tidy over the project's sources, in parallel, skipping what is unchanged since it was last found clean.

    tools/lint/tidy.py [--build build/release] [--jobs N] [FILE ...]

Needs a configured and built build folder (compile_commands.json, generated protobuf headers). A source is unchanged
when its own text, the project headers it reaches, its command and .clang-tidy all are. Exits 1 on any finding.

Most of the time goes into the headers of other libraries, so sources of equal flags are checked together, as one text.
Where that has a finding, or two sources of it cannot stand together, its halves are checked, down to single sources:
only what is found in a source alone counts.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INCLUDE = re.compile(rb'^\s*#\s*include\s*[<"]([^">]+)[">]', re.MULTILINE)
TIDY = "clang-tidy-14"  # one version, as findings differ between them
# clang's own warnings count too. Without -fopenmp clang needs no libomp; it sees the loops of
# bench/ that have one as serial.
CHECKS = "--checks=clang-diagnostic-*"
DROPPED = re.compile(r"-fopenmp.*|-Werror|-fsanitize=.*|-g\d?|-W.*|-Winvalid-pch")
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wno-missing-field-initializers", "-Wno-unknown-pragmas"]

# C++20 lets a lambda capture a structured binding; gcc 12 knows it, clang 14 calls it an error.
NOT_YET = "reference to local binding"

GROUP = 10  # sources of one text; from larger ones little is gained, and one finding costs more
# Highway's sources include themselves, by their names; a program has one main.
ALONE = re.compile(rb"HWY_TARGET_INCLUDE|^int main\(", re.MULTILINE)


def reached_text(file, generated, seen, digest):
    """Feeds the text of `file` and of every project header it reaches into the digest."""
    if file in seen:
        return
    seen.add(file)
    text = file.read_bytes()
    digest.update(str(file.name).encode() + b"\0" + text)
    for name in INCLUDE.findall(text):
        for base in (ROOT, generated):
            path = base / os.fsdecode(name)
            if path.is_file():
                reached_text(path, generated, seen, digest)
                break


def command_of(entry):
    """The flags a clang of the same command line takes."""
    words = entry.get("arguments") or shlex.split(entry["command"])
    if words[0].endswith("ccache"):
        words = words[1:]
    flags, skip = [], False
    for word in words[1:]:
        if skip:
            skip = False
        elif word in ("-o", "-c", "-MF", "-MT", "-MQ"):
            skip = word != "-c"
        elif word != entry["file"] and not DROPPED.fullmatch(word) and word not in ("-MD", "-MMD"):
            flags.append(word)
    return flags + WARNINGS


def key_of(file, flags, build):
    digest = hashlib.sha256((ROOT / ".clang-tidy").read_bytes())
    digest.update(" ".join([CHECKS, *flags]).replace(str(ROOT), "").encode())
    reached_text(file, build / "generated", set(), digest)
    return digest.hexdigest()


def run_tidy(file, flags):
    """What clang-tidy finds in one text; nothing where it is clean."""
    done = subprocess.run([TIDY, "--quiet", CHECKS, str(file), "--", *flags], capture_output=True,
                          text=True, cwd=ROOT)
    errors = [line for line in done.stdout.splitlines() if " error: " in line]
    if done.returncode == 0 or (errors and all(NOT_YET in line for line in errors)):
        return ""
    return done.stdout + re.sub(
        r"\d+ warnings?.* generated\.\n|Suppressed .*\n|Use -header-filter.*\n", "", done.stderr)


def tidy(sources, flags, stamps):
    """The findings of each source that has some, in pairs with it."""
    text = sources[0]
    if len(sources) > 1:
        # Not a file of #includes: of some checks and warnings, only the main file's findings are said.
        text = stamps[0].parent / f"{stamps[0].name}_{len(sources)}.cc"
        text.write_text("".join(f'#line 1 "{file}"\n{file.read_text()}\n' for file in sources))
    found = run_tidy(text, flags)
    if len(sources) > 1:
        text.unlink()
    if not found:
        for stamp in stamps:
            stamp.touch()
        return []
    if len(sources) == 1:
        return [(sources[0], found)]
    half = len(sources) // 2
    return tidy(sources[:half], flags, stamps[:half]) + tidy(sources[half:], flags, stamps[half:])


def groups_of(due):
    """Lists of sources to check together, the long ones first."""
    by_flags = {}
    for file in sorted(due):
        flags = due[file][0]
        alone = file if ALONE.search(file.read_bytes()) else None
        by_flags.setdefault((alone, *flags), []).append(file)
    groups = []
    for files in by_flags.values():
        count = -(-len(files) // GROUP)
        groups += [files[len(files) * i // count:len(files) * (i + 1) // count] for i in range(count)]
    return sorted(groups, key=len, reverse=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build/release", help="configured build folder")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("files", nargs="*",
                        help="only these (default: every source the build compiles, but for tests)")
    args = parser.parse_args()
    build = (ROOT / args.build).resolve()
    if not (build / "compile_commands.json").is_file():
        sys.exit(
            f"{build}/compile_commands.json: not there; configure first: cmake --preset release")
    if not shutil.which(TIDY):
        sys.exit(f"{TIDY}: not installed; run: apt-get install {TIDY}")
    stamps = ROOT / "build" / "tidy"
    stamps.mkdir(parents=True, exist_ok=True)
    wanted = {Path(file).resolve() for file in args.files}

    work = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        file = Path(entry["directory"], entry["file"]).resolve()
        ours = file.is_relative_to(ROOT) and not file.is_relative_to(
            ROOT / "build") and not file.is_relative_to(build)
        # Tests are read by hand: GoogleTest's headers make them half of the time, and their
        # findings are style.
        ours = ours and (not file.is_relative_to(ROOT / "tests") or file in wanted)
        if ours and (not wanted or file in wanted):
            flags = command_of(entry)
            work[file] = (flags, stamps / key_of(file, flags, build))
    for file in wanted - work.keys():
        sys.exit(f"{file}: not a source of the build in {build}")
    due = {file: job for file, job in work.items() if not job[1].exists()}

    start, failed = time.monotonic(), 0
    with concurrent.futures.ThreadPoolExecutor(max(1, args.jobs)) as pool:
        jobs = [
            pool.submit(tidy, files, due[files[0]][0], [due[file][1] for file in files])
            for files in groups_of(due)
        ]
        for job in concurrent.futures.as_completed(jobs):
            for file, found in job.result():
                failed += 1
                print(f"{file.relative_to(ROOT)}:\n{found}", flush=True)
    print(f"clang-tidy: {len(work)} sources, {len(work) - len(due)} unchanged, {failed} with findings, "
          f"{time.monotonic() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
