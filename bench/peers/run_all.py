#!/usr/bin/env python3
"""bench/run_all.sh: runs Orrery and its peers case by case and writes the table of ratios.

Each case runs ours, the peers', and ours once more where that is affordable, so that both sides see the same minutes;
the median of our runs counts, and of the peers the fastest setting. Every figure is appended to --raw as one JSON line;
the table takes of each side and case the latest run, so a case can be measured again alone (--only). --render only
writes the table from what is there.
"""
import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import time

import table
from ours import Failure, Ours, fma_peak

BATCHES, BF16_BATCHES = (1, 8, 32, 64, 128), (1, 8, 64, 128)


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="bench/run_all.sh", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Cases, in order: " + " ".join(name for name, *_ in CASES))
    parser.add_argument("--venv", type=pathlib.Path,
                        help="virtual environment of bench/peers/setup.sh")
    parser.add_argument("--llama", type=pathlib.Path,
                        help="llama.cpp's build folder (or its checkout)")
    parser.add_argument("--only", help="cases, separated by commas")
    parser.add_argument("--quick", action="store_true",
                        help="tiny runs that show that everything works")
    parser.add_argument("--orrery", type=pathlib.Path,
                        default=pathlib.Path("build/release/bin/orrery"))
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("build/bench_models"),
                        help="folder of the models, made if absent (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, choices=range(1, 4097), metavar="THREADS")
    parser.add_argument(
        "--raw", type=pathlib.Path,
        help="JSON lines (default: build/bench_raw.jsonl; with --quick build/bench_quick.jsonl)")
    parser.add_argument(
        "--out", type=pathlib.Path,
        help="the table (default: bench/RESULTS.md; with --quick build/bench_quick.md)")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    options = parser.parse_args(arguments)
    options.raw = options.raw or pathlib.Path(
        "build/bench_quick.jsonl" if options.quick else "build/bench_raw.jsonl")
    options.out = options.out or pathlib.Path(
        "build/bench_quick.md" if options.quick else "bench/RESULTS.md")
    if options.llama and (options.llama / "CMakeLists.txt").exists():
        options.llama = options.llama / "build-peers"
    options.cases = options.only.split(",") if options.only else [name for name, *_ in CASES]
    if unknown := [name for name in options.cases if name not in {case for case, *_ in CASES}]:
        parser.error(f"--only {','.join(unknown)}: no such case; the cases are {' '.join(name for name, *_ in CASES)}")
    return options


# A peer's part of a case: which peer, and its script's arguments.
def llama(case):
    return "llama.cpp", ["llama_cpp.py", "--case", case]


def pytorch(*arguments):
    return "transformers", ["transformers_bench.py", *arguments]


def trl(case, *arguments):
    return "TRL", ["trl_step.py", "--case", case, *arguments]


# (case, ours or None, our runs after the peers', the peers' parts). The most telling come first.
# Batch 1 waits for memory, which the machine's other tenants use too, so one run says little.
AGAIN = {1: 4, 128: 0}
BF16_TRAIN = [
    pytorch("--case", "train", "--precision", precision, "--allocator", allocator)
    for precision in ("bf16", "autocast") for allocator in ("kept", "kept_huge")
] + [pytorch("--case", "train_compile", "--precision", precision) for precision in ("bf16", "autocast")]


def trl_bf16(case, *arguments):
    """TRL's step tuned, in both bf16 ways; its f32 and its defaults are cases of their own."""
    return [trl(case, "--precision", precision, *arguments) for precision in ("bf16", "autocast")]


CASES = [
    *[(f"decode_{b}", lambda ours, case, b=b: ours.decode(case, b), AGAIN.get(b, 1), [llama(f"decode_{b}")])
      for b in BATCHES],
    ("prefill", lambda ours, case: ours.prefill(case), 1, [llama("prefill")]),
    ("groups", lambda ours, case: ours.groups(case), 0, [llama("groups")]),
    ("train", lambda ours, case: ours.train(case), 1,
     [pytorch("--case", "train"), pytorch("--case", "train", "--allocator", "kept_huge"),
      pytorch("--case", "train_compile")]),
    ("step_135m", lambda ours, case: ours.step(case, "135m", 128, 1), 1, [trl("step_135m", "--warm-tokens", "16")]),
    ("step_8m", lambda ours, case: ours.step(case, "8m", 128, 5), 1, [trl("step_8m", "--repeats", "2")]),
    ("step_8m_short", lambda ours, case: ours.step(case, "8m", 16, 9), 1, [trl("step_8m_short", "--repeats", "3")]),
    *[(f"decode_bf16_{b}", lambda ours, case, b=b: ours.decode(case, b, "bf16"), AGAIN.get(b, 1),
       [llama(f"decode_bf16_{b}")]) for b in BF16_BATCHES],
    ("prefill_bf16", lambda ours, case: ours.prefill(case, "bf16"), 1, [llama("prefill_bf16")]),
    ("train_bf16", lambda ours, case: ours.train(case, "bf16"), 1, BF16_TRAIN),
    ("step_135m_bf16", lambda ours, case: ours.step(case, "135m", 128, 1, "bf16"), 1,
     trl_bf16("step_135m", "--warm-tokens", "16")),
    ("step_8m_bf16", lambda ours, case: ours.step(case, "8m", 128, 5, "bf16"), 1, trl_bf16("step_8m", "--repeats", "2")),
    ("step_8m_short_bf16", lambda ours, case: ours.step(case, "8m", 16, 9, "bf16"), 1,
     trl_bf16("step_8m_short", "--repeats", "3")),
    ("start_15m", lambda ours, case: ours.start(case), 1, [llama("start_15m")]),
    ("start_135m", lambda ours, case: ours.start(case), 1, [llama("start_135m")]),
    ("ranks", lambda ours, case: ours.ranks(case), 1, []),
    ("generate", None, 0, [pytorch("--case", "generate")]),
    ("generate_bf16", None, 0, [pytorch("--case", "generate", "--precision", "bf16")]),
    ("step_135m_shipped", None, 0, [trl("step_135m", "--as-shipped", "--warm-tokens", "16")]),
    ("train_shipped", None, 0, [pytorch("--case", "train", "--precision", precision, "--allocator", "shipped")
                                for precision in ("f32", "bf16", "autocast")]),
    ("decode_shipped", None, 0, [llama(f"decode_{b}_shipped") for b in BATCHES]),
    ("decode_bf16_shipped", None, 0, [llama(f"decode_bf16_{b}_shipped") for b in BF16_BATCHES]),
    ("step_8m_shipped", None, 0, [trl("step_8m", "--as-shipped", "--warm-tokens", "16"),
                                  trl("step_8m_short", "--as-shipped", "--repeats", "3")]),
    ("groups_unshared", None, 0, [llama("groups_unshared")]),
]


def version_of(peer, home):
    """The peer's version, as one line; empty when it does not say."""
    names = {"transformers": ("transformers", "torch"), "TRL": ("trl", "transformers", "torch")}
    if peer == "llama.cpp":
        command = [home / "bin/llama-batched-bench", "--version"]
    else:
        command = [home / "bin/python", "-c", "from importlib.metadata import version; "
                   f"print('version: ' + ', '.join(n + ' ' + version(n) for n in {names[peer]!r}))"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, errors="replace",
                                check=False)
    except OSError:
        return ""
    lines = (result.stdout + result.stderr).splitlines()
    return next(
        (line.removeprefix("version:").strip() for line in lines if line.startswith("version:")),
        "")


class Bench:
    def __init__(self, options):
        self.options = options
        self.run = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.commit = table.git_commit()
        self.failures, self.skipped, self.versions = [], set(), {}
        options.raw.parent.mkdir(parents=True, exist_ok=True)
        self.raw = open(options.raw, "a", encoding="utf-8")
        scratch = pathlib.Path("build/bench_scratch").resolve()
        scratch.mkdir(parents=True, exist_ok=True)
        self.ours = Ours(options.orrery, options.models.resolve(), scratch, options.threads,
                         options.quick)

    def keep(self, row, turn=0):
        row = {**row, "turn": turn, "run": self.run, "commit": self.commit, "quick": self.options.quick,
               "threads": self.options.threads, "at": round(time.time(), 1)}
        self.raw.write(json.dumps(row) + "\n")
        self.raw.flush()
        shown = f"{row['value']:.4g} {row['unit']}"
        print(f"  {row['peer']:<13} {row['case']:<16} {row['role']:<8} {shown:<14} {row['setting']}", flush=True)

    def probe(self, when):
        try:
            peak = fma_peak(self.options.orrery.parent.parent / "bench/bench_matmul",
                            self.options.threads)
        except (Failure, ValueError, KeyError) as error:
            self.failures.append(f"FMA probe: {error}")
            return
        self.keep({"peer": "machine", "case": "fma_peak", "setting": when, "role": when, "value": round(peak, 1),
                   "unit": "GFLOP/s"})

    def measure_ours(self, case, function, turn):
        try:
            for row in function(self.ours, case):
                self.keep(row, turn)
        except (Failure, ValueError, KeyError, OSError) as error:
            self.failures.append(f"{case}, ours: {error}")

    def measure_peer(self, case, peer, arguments):
        options = self.options
        home = options.llama if peer == "llama.cpp" else options.venv
        if home is None:
            if peer not in self.skipped:
                flag = "--llama" if peer == "llama.cpp" else "--venv"
                print(f"  {peer} is left out: give {flag} (bench/peers/setup.sh makes it)")
            self.skipped.add(peer)
            return
        if peer not in self.versions:
            self.versions[peer] = version_of(peer, home)
        script = pathlib.Path(__file__).parent / arguments[0]
        interpreter = sys.executable if peer == "llama.cpp" else str(home / "bin/python")
        command = [interpreter, str(script), *arguments[1:], "--models", str(options.models), "--threads",
                   str(options.threads)]
        command += ["--build", str(home)] if peer == "llama.cpp" else []
        command += ["--quick"] if options.quick else []
        try:
            result = subprocess.run(command, capture_output=True, text=True, errors="replace",
                                    check=False, timeout=1500)
        except (OSError, subprocess.TimeoutExpired) as error:
            self.failures.append(f"{case}, {peer}: {error}")
            return
        for line in result.stdout.splitlines():
            if line.startswith('{"peer"'):
                self.keep({**json.loads(line), "version": self.versions[peer]})
        if result.returncode != 0:
            last = (result.stderr.strip().splitlines() or ["no message"])[-1]
            self.failures.append(f"{case}, {peer}: ended with {result.returncode}: {last[:300]}")

    def case(self, name, function, again, parts):
        print(f"== {name}", flush=True)
        if function:
            self.measure_ours(name, function, 0)
        for peer, arguments in parts:
            self.measure_peer(name, peer, arguments)
        measured = any(
            (self.options.llama if peer == "llama.cpp" else self.options.venv) for peer, _ in parts)
        for turn in range(1, 1 + (again if measured or not parts else 0)):
            self.measure_ours(name, function, turn)


def check(options):
    if not os.access(options.orrery, os.X_OK):
        sys.exit(f"error: {options.orrery} is not built; cmake --preset release && "
                 "cmake --build --preset release --target orrery bench_matmul")
    make = [sys.executable, str(pathlib.Path(__file__).parent / "make_models.py"), str(options.models)]
    if subprocess.run(make, check=False).returncode != 0:
        sys.exit(f"error: the models could not be written to {options.models}")


def main():
    options = parse(sys.argv[1:])
    failures = []
    if not options.render:
        check(options)
        bench = Bench(options)
        begin = time.perf_counter()
        bench.probe("before")
        try:
            for name, function, again, parts in CASES:
                if name in options.cases:
                    bench.case(name, function, again, parts)
            bench.probe("after")
        except KeyboardInterrupt:
            bench.failures.append("interrupted: the table has what was measured before")
        failures = bench.failures
        print(f"measured in {(time.perf_counter() - begin) / 60:.1f} minutes")
    try:
        text = table.render(options.raw)
    except OSError as error:
        sys.exit(f"error: no figures: {error}")
    options.out.write_text(text, encoding="utf-8")
    print(f"\n{text}\nwritten to {options.out}")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
