#!/usr/bin/env python3
"""One experiment in f32 and in bf16: how it learns, beside each other.

    bench/learning_curves.py build/release/bin/orrery experiments/quickstart.yaml
    bench/learning_curves.py build/release/bin/orrery experiments/constraint_tinystories.yaml model.path=DIR/tinystories-656k

Runs both, one after the other, and prints the means of SFT's loss and of RL's reward and entropy over the steps since the
last line, the held-out accuracy, and each run's checkpoint hash and time. KEY=VALUE goes to both runs;
trainer.test_freq=20 gives the accuracy on the way, too. Runs stay in --runs, and the same call shows them again.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

DTYPES = ("f32", "bf16")
# (stage, metric, heading, format)
CURVES = (("sft", "train/loss", "loss", "{:.4f}"), ("grpo", "critic/score/mean", "reward", "{:.3f}"),
          ("grpo", "actor/entropy", "entropy", "{:.3f}"))


def call(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          errors="replace", check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}: {last[:300]}")
    return done.stdout


def run(options, dtype):
    """The run's metrics, hash and seconds."""
    folder = options.runs / f"{options.config.stem}_{dtype}"
    record = folder / "learning_curves.json"
    program = options.orrery.stat()
    made_by = [str(options.orrery), program.st_size, program.st_mtime_ns, str(options.config.resolve()),
               *options.settings]
    if not folder.exists():
        begin = time.perf_counter()
        call(options.orrery, "train", options.config, f"run_dir={folder}",
             f"model.compute_dtype={dtype}", *options.settings)
        seconds = time.perf_counter() - begin
        record.write_text(json.dumps({"made_by": made_by, "seconds": seconds}))
    kept = json.loads(record.read_text()) if record.exists() else {"made_by": None}
    if kept["made_by"] != made_by:
        sys.exit(f"error: {folder} is of another program, other settings, or not whole: remove it, or give another --runs")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    shown = call(options.orrery, "ckpt", "hash", folder).split()[-1]
    return {"rows": rows, "hash": shown, "seconds": kept["seconds"]}


def curve(rows, stage, metric, every):
    """The mean of each `every` steps, by the last of them."""
    values = [(row["stage_step"], row[metric]) for row in rows
              if row.get("stage") == stage and metric in row]
    parts = [values[i:i + every] for i in range(0, len(values), every)]
    return {part[-1][0]: statistics.fmean(value for _, value in part) for part in parts}


def accuracies(rows):
    """Held-out figures by step."""
    return {row["step"]: value for row in rows if row.get("stage") == "val"
            for name, value in row.items() if name.startswith("val-core/")}


def print_beside(heading, curves, form):
    steps = sorted({step for curve_ in curves for step in curve_})
    if not steps:
        return
    print(f"\n| step | {heading}, " + f" | {heading}, ".join(DTYPES) + " |\n|---|---|---|")
    for step in steps:
        cells = [form.format(c[step]) if step in c else "-" for c in curves]
        print(f"| {step} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("orrery", type=pathlib.Path)
    parser.add_argument("config", type=pathlib.Path)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("build/learning_curves"))
    parser.add_argument("--lines", type=int, default=20, help="of each table, at most")
    options = parser.parse_intermixed_args()
    options.orrery, options.runs = options.orrery.resolve(), options.runs.resolve()
    options.runs.mkdir(parents=True, exist_ok=True)
    runs = [run(options, dtype) for dtype in DTYPES]
    for stage, metric, heading, form in CURVES:
        steps = max(sum(row.get("stage") == stage for row in r["rows"]) for r in runs)
        every = max(1, -(-steps // options.lines))
        curves = [curve(r["rows"], stage, metric, every) for r in runs]
        print_beside(f"{stage} {heading}", curves, form)
    print_beside("held-out accuracy", [accuracies(r["rows"]) for r in runs], "{:.3f}")
    print()
    for dtype, r in zip(DTYPES, runs):
        print(f"{dtype}: {r['seconds']:.1f} s, hash {r['hash']}")


if __name__ == "__main__":
    main()
