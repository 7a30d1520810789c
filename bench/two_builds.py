#!/usr/bin/env python3
"""Two builds of the command held against each other: steps and rollouts in turns, medians and ratios.

    bench/two_builds.py OLD NEW [--pairs 5] [--cases step_8m,rollout_8m,...] [--threads N]

OLD and NEW are two `orrery` commands. A ratio above 1 says that NEW takes longer, or more memory. The models have
random weights: speed depends on shapes. On an idle machine, about 4 minutes a pair for all cases.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent / "peers"))
from make_models import SHAPES, hf_config  # noqa: E402

STEP = ["step", "--prompts", "8", "--samples", "8", "--prompt-len", "60", "--repeats", "1", "--gen-len"]
ROLLOUT = ["rollout", "--repeats", "1", "--prompt-len", "64", "--batch"]
# name: (shape, words, the figures that are compared; True: less is better)
CASES = {
    "step_8m": ("8m", [*STEP, "128"], {"step_seconds": True, "peak_memory_gib": True}),
    "step_8m_short": ("8m", [*STEP, "16"], {"step_seconds": True}),
    "rollout_8m": ("8m", [*ROLLOUT, "64", "--gen-len", "128"], {"decode_tokens_per_s": False}),
    "rollout_135m_1": ("135m", [*ROLLOUT, "1", "--gen-len", "64"], {"decode_tokens_per_s": False}),
    "rollout_135m_64": ("135m", [*ROLLOUT, "64", "--gen-len", "32"], {"decode_tokens_per_s": False}),
    "step_135m": ("135m", [*STEP, "16"], {"step_seconds": True, "gen_seconds": True, "peak_memory_gib": True}),
}


def measure(command, case, models, threads):
    shape, words, _ = CASES[case]
    done = subprocess.run([command, "bench", words[0], "--model", models / shape, *words[1:], *threads, "--json"],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{command} bench {' '.join(words)} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    cases = options.cases.split(",")
    for case in cases:
        if case not in CASES:
            parser.error(f"no case {case}; there are {', '.join(CASES)}")
    if options.pairs < 1:
        parser.error("--pairs must be at least 1")
    threads = ["--threads", str(options.threads)] if options.threads else []
    with tempfile.TemporaryDirectory() as folder:
        models = pathlib.Path(folder)
        for shape in {CASES[case][0] for case in cases}:
            (models / shape).mkdir()
            (models / shape / "config.json").write_text(json.dumps(hf_config(SHAPES[shape])))
        print(f"{'case':<18}{'figure':<22}{'old':>10}{'new':>10}{'new/old':>9}   of {options.pairs} pairs")
        for case in cases:
            rows = {"old": [], "new": []}
            for pair in range(options.pairs):
                # Who goes first changes, so that a machine that warms up favours neither.
                for name in ("old", "new") if pair % 2 == 0 else ("new", "old"):
                    rows[name].append(measure(getattr(options, name), case, models, threads))
            for figure, less_is_better in CASES[case][2].items():
                old, new = ([row[figure] for row in rows[name]] for name in ("old", "new"))
                ratios = sorted((b / a if less_is_better else a / b) for a, b in zip(old, new))
                print(f"{case:<18}{figure:<22}{statistics.median(old):>10.4g}{statistics.median(new):>10.4g}"
                      f"{statistics.median(ratios):>9.3f}   ({ratios[0]:.3f}..{ratios[-1]:.3f})", flush=True)


if __name__ == "__main__":
    main()
