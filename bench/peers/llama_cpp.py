#!/usr/bin/env python3
"""llama.cpp beside Orrery: decoding, groups that share a prompt, prefill, start to the first token.

    bench/peers/llama_cpp.py --build LLAMA/build-peers --models build/bench_models --case decode_8

Prints one JSON line a figure: {peer, case, setting, role, value, unit}. Roles: "scout" (a short run that chooses among
settings), "best" (the chosen one, whole), "shipped" (its defaults; only the threads are set). Weights are f32 but
in decode_bf16_* and prefill_bf16, where the cache may be bf16 too. Needs nothing but Python; bench/peers/setup.sh builds llama.cpp.

llama-batched-bench feeds random tokens instead of sampling, so its figures leave out what sampling costs.
"""
import argparse
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

BATCHES, BF16_BATCHES = (1, 8, 32, 64, 128), (1, 8, 64, 128)
DECODES = [f"decode_{b}" for b in BATCHES] + [f"decode_bf16_{b}" for b in BF16_BATCHES]
CASES = [*DECODES, "groups", "groups_unshared", "prefill", "prefill_bf16", "start_15m", "start_135m",
         *(f"{case}_shipped" for case in DECODES)]
DEFAULTS = "defaults"
MODEL, BF16_MODEL = "135m-f32.gguf", "135m-bf16.gguf"
PROMPT = "the quick brown fox jumps over the lazy dog"


def settings_of(cache, attention, unified):
    name = f"{cache} cache, flash attention {attention}, {'unified cache' if unified else 'one stream a sequence'}"
    return name, ["-ctk", cache, "-ctv", cache, "-fa", attention, "-kvu" if unified else "-no-kvu"]


# With a unified cache every sequence walks over everyone's keys: slow with many sequences, unless
# they share most of them.
def settings(unified, caches=("f32", "f16")):
    return [settings_of(c, a, unified) for c, a in itertools.product(caches, ("off", "on"))]


STREAMS, UNIFIED = settings(False), settings(True)
BF16_CACHES = ("bf16", "f16", "f32")


class Llama:
    def __init__(self, options):
        self.build, self.models, self.threads = options.build, options.models, options.threads
        self.environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "OMP_THREAD_LIMIT": str(self.threads)}

    def run(self, program, *arguments):
        command = [str(self.build / "bin" / program), *map(str, arguments)]
        if not os.access(command[0], os.X_OK):
            sys.exit(f"error: {command[0]} is not there; build it: bench/peers/setup.sh --llama CHECKOUT")
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True,
                                errors="replace", check=False)
        if result.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {result.returncode}: {result.stderr.strip()[-500:]}")
        return result.stdout + result.stderr  # its log goes to either

    def batched(self, model, sequences, prompt, generated, flags, shared_prompt=False, turns=1):
        """The rows of llama-batched-bench, one a turn."""
        arguments = ["-m", self.models / model, "-t", self.threads, "-tb", self.threads,
                     "-npp", ",".join([str(prompt)] * turns), "-ntg", generated, "-npl", sequences,
                     "-c", max(512, sequences * (prompt + generated)),
                     "--output-format", "jsonl", *(["-pps"] if shared_prompt else []), *flags]
        lines = self.run("llama-batched-bench", *arguments).splitlines()
        rows = [json.loads(line[line.index("{"):]) for line in lines if '"speed_tg"' in line]
        if len(rows) != turns:
            raise RuntimeError(
                "llama-batched-bench printed no row; does the context hold the sequences?")
        return rows


def emit(case, setting, role, value, unit, **more):
    print(json.dumps({"peer": "llama.cpp", "case": case, "setting": setting, "role": role, "value": round(value, 4),
                      "unit": unit, **more}), flush=True)


def ranked(case, candidates, measure):
    """The candidates by their figure in a short run, fastest first; those that llama.cpp refuses
    are left out."""
    figures = []
    for name, flags in candidates:
        try:
            figures.append((measure(flags), name, flags))
        except RuntimeError as error:
            print(f"left out: {name}: {error}", file=sys.stderr)
            continue
        emit(case, name, "scout", figures[-1][0], "tok/s")
    if not figures:
        raise RuntimeError(f"{case}: llama.cpp refused every setting")
    return [figure[1:] for figure in sorted(figures, key=lambda figure: -figure[0])]


def decode(llama, case, batch, quick, model=MODEL):
    # Scouting happens at the mean context of the whole run, 64 + 192 / 2.
    generated = 4 if quick else max(12, 24 // batch)
    caches = BF16_CACHES if model == BF16_MODEL else ("f32", "f16")
    candidates = settings(False, caches) + (settings(True, caches) if batch == 1 else [])
    fastest = ranked(case, candidates, lambda flags: llama.batched(
        model, batch, 160 - generated // 2, generated, flags, shared_prompt=True)[0]["speed_tg"])
    # Short runs are noisy; where it costs little, the second best gets its chance too.
    for name, flags in fastest[:2 if batch <= 32 else 1]:
        [row] = llama.batched(model, batch, 64, 16 if quick else 192, flags)
        emit(case, name, "best", row["speed_tg"], "tok/s")


def decode_shipped(llama, case, batch, quick, model):
    # Many sequences: fewer tokens at the same mean context, for time.
    prompt, generated = (64, 192) if batch <= 8 else (152, 16)
    [row] = llama.batched(model, batch, prompt, 8 if quick else generated, [])
    emit(case, DEFAULTS, "shipped", row["speed_tg"], "tok/s")


def groups(llama, case, quick):
    """8 prompts x 16 samples, 512 in + 128 out, seen as 128 sequences.

    With -pps llama-batched-bench computes one prompt for all 128. The work has eight, so its prompt
    time counts eight times in with_prompts.
    """
    sequences, prompt = 128, 512
    scout, generated = (2, 4) if quick else (8, 128)
    # A short run flatters the unified cache, whose walk grows with everyone's tokens: the best of
    # either kind runs whole.
    for candidates in (STREAMS, UNIFIED):
        name, flags = ranked(case, candidates, lambda flags: llama.batched(
            MODEL, sequences, prompt, scout, flags, shared_prompt=True)[0]["speed_tg"])[0]
        [row] = llama.batched(MODEL, sequences, prompt, generated, flags, shared_prompt=True)
        emit("groups", f"-pps, {name}", "best", row["speed_tg"], "tok/s",
             with_prompts=round(sequences * generated / (8 * row["t_pp"] + row["t_tg"]), 4))


def groups_unshared(llama, case, quick):
    """The same without -pps: all 128 prompts are computed. It decodes no differently, so a few
    tokens do."""
    sequences, prompt, generated = (4, 64, 4) if quick else (128, 512, 16)
    name, flags = STREAMS[0]
    [row] = llama.batched(MODEL, sequences, prompt, generated, flags)
    seconds = row["t_pp"] + row["t_tg"] * 128 / generated
    emit(case, f"without -pps, {name}", "other", row["speed_tg"], "tok/s",
         with_prompts=round(sequences * 128 / seconds, 4))


def prefill(llama, case, quick):
    model = BF16_MODEL if case == "prefill_bf16" else MODEL
    caches = BF16_CACHES if case == "prefill_bf16" else ("f32", "f16")

    def speed(flags, turns):  # the first turn of a process warms up
        rows = llama.batched(model, 1, 512, 1, flags, turns=turns + 1)
        return statistics.median(row["speed_pp"] for row in rows[1:])

    candidates = [(f"{name}, -ub {ub}", [*flags, "-ub", ub])
                  for name, flags in settings(True, caches)[:1 if quick else None]
                  for ub in (128, 256, 512)]
    for name, flags in ranked(case, candidates, lambda flags: speed(flags, 1 if quick else 2))[:3]:
        emit(case, name, "best", speed(flags, 1 if quick else 7), "tok/s")
    emit(case, DEFAULTS, "shipped", speed([], 1 if quick else 7), "tok/s")


def start(llama, case, quick):
    """A whole process that loads the model and gives one token. llama-simple is its smallest
    program for that."""
    model = llama.models / f"{case.removeprefix('start_')}-f32.gguf"
    seconds = []
    for _ in range(3 if quick else 15):
        begin = time.perf_counter()
        llama.run("llama-simple", "-m", model, "-n", 1, PROMPT)
        seconds.append(time.perf_counter() - begin)
    emit(case, "llama-simple -n 1, whole process", "best", statistics.median(seconds[1:]), "s")


def measure(llama, case, quick):
    if case.startswith("start_"):
        start(llama, case, quick)
    elif case.startswith("decode_"):
        work = case.removesuffix("_shipped")
        run = decode if work == case else decode_shipped
        model = BF16_MODEL if work.startswith("decode_bf16_") else MODEL
        run(llama, work, int(work.rsplit("_", 1)[1]), quick, model)
    else:
        {"groups": groups, "groups_unshared": groups_unshared, "prefill": prefill,
         "prefill_bf16": prefill}[case](llama, case, quick)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True,
                        help="llama.cpp's build folder")
    parser.add_argument("--models", type=pathlib.Path, required=True,
                        help="folder written by make_models.py")
    parser.add_argument("--case", required=True, choices=CASES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true",
                        help="short runs: to see that everything works")
    options = parser.parse_args()
    try:
        measure(Llama(options), options.case, options.quick)
    except RuntimeError as error:
        sys.exit(f"error: {options.case}: {error}")


if __name__ == "__main__":
    main()
