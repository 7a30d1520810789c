#!/usr/bin/env python3
"""Runs of two builds, or of two numbers of threads, in turns, on a busy machine and on an idle one: bench/busy.sh."""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench/peers"))
from make_models import SHAPES, hf_config  # noqa: E402
from ours import Failure, call  # noqa: E402


def sft_seconds(orrery, steps, scratch, *settings):
    """The wall-clock time of the whole command, start included."""
    folder = scratch / "run"
    shutil.rmtree(folder, ignore_errors=True)
    start = time.monotonic()
    call([orrery, "train", ROOT / "experiments/quickstart.yaml", f"run_dir={folder}", f"sft.total_training_steps={steps}",
         "trainer.total_training_steps=0", "trainer.test_freq=0", "trainer.save_freq=-1", "trainer.rollout_save_freq=0",
         "trainer.tensorboard=false", *settings])
    return time.monotonic() - start


def step_seconds(orrery, model):
    out = call([orrery, "bench", "step", "--model", model, "--prompts", 8, "--samples", 8, "--prompt-len", 60,
               "--gen-len", 128, "--repeats", 3, "--json"])
    return json.loads(out)["step_seconds"]


def in_turns(title, pairs, first, second, names):
    """Median times of both and of their ratios; who begins alternates."""
    times, ratios = ([], []), []
    for turn in range(pairs):
        pair = [0.0, 0.0]
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            pair[which] = (first, second)[which]()
            times[which].append(pair[which])
        ratios.append(pair[1] / pair[0])
        print(f"  {title}: turn {turn + 1} of {pairs}: {pair[0]:.2f} s, {pair[1]:.2f} s",
              file=sys.stderr, flush=True)
    a, b = map(statistics.median, times)
    print(f"| {title} | {names[0]} {a:.2f} s | {names[1]} {b:.2f} s | **{statistics.median(ratios):.3f}** "
          f"({min(ratios):.3f}-{max(ratios):.3f}) |", flush=True)


class Busy:
    """Processes that compute without end, while the block runs."""

    def __init__(self, count):
        self.count, self.processes = count, []

    def __enter__(self):
        for _ in range(self.count):
            self.processes.append(subprocess.Popen(["sh", "-c", "while :; do :; done"]))
        time.sleep(0.5)

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="turns of each; medians are printed")
    parser.add_argument("--busy", type=int, default=len(os.sched_getaffinity(0)) + 1,
                        help="busy processes of part 1")
    parser.add_argument("--busy-only", action="store_true", help="part 1 alone")
    parser.add_argument("--idle-only", action="store_true", help="part 2 alone")
    parser.add_argument(
        "--model", help="model folder of `bench step` (default: random weights, 8M parameters)")
    args = parser.parse_args()
    under_test = os.environ.get("ORRERY_B") or ROOT / "build/release/bin/orrery"
    other = os.environ.get("ORRERY_A")
    cpus = len(os.sched_getaffinity(0))
    print(f"{cpus} CPU(s), load {os.getloadavg()[0]:.2f}; B is {under_test}" +
          (f", A is {other}" if other else ""))
    print("| what | | | ratio of the second to the first |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="orrery_busy.") as folder:
        scratch = Path(folder)
        if not args.idle_only:
            with Busy(args.busy):
                beside = f"beside {args.busy} busy: 20 SFT steps"
                in_turns(beside, args.pairs,
                         lambda: sft_seconds(under_test, 20, scratch, "cluster.threads=1"),
                         lambda: sft_seconds(under_test, 20, scratch),
                         ("one thread", f"{cpus} threads"))
                if other:
                    in_turns(beside, args.pairs, lambda: sft_seconds(other, 20, scratch),
                             lambda: sft_seconds(under_test, 20, scratch), ("A", "B"))
        if args.busy_only:
            return
        if not other:
            print("part 2 is left out: set ORRERY_A to another build's command", file=sys.stderr)
            return
        model = args.model
        if not model:
            model = scratch / "model"
            model.mkdir()
            (model / "config.json").write_text(json.dumps(hf_config(SHAPES["8m"])))
        in_turns("idle: 60 SFT steps", args.pairs, lambda: sft_seconds(other, 60, scratch),
                 lambda: sft_seconds(under_test, 60, scratch), ("A", "B"))
        in_turns("idle: bench step", args.pairs, lambda: step_seconds(other, model),
                 lambda: step_seconds(under_test, model), ("A", "B"))


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"bench/busy.sh: error: {failure}")
