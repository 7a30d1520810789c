#!/usr/bin/env python3
"""What a slow reward of your own costs: the same run with a reward that answers at once and with one that sleeps.

    bench/external.py [--sleep 2] [--turns 3] [--prompts 80] [--workers 256] [--steps 2]

A random model of about 7 million parameters makes PROMPTS x 16 samples of at most 256 tokens a step (some 35 s on two cores). The
two runs take turns; medians of a step's seconds, the first step of each run left out, and their ratio are printed. A reward
of S seconds for N samples needs N x S seconds of workers: with fewer than those / (seconds of generating) workers the step
waits for them. An idle machine, please.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
ORRERY = ROOT / "build/release/bin/orrery"
sys.path.insert(0, str(ROOT / "tests/support"))
from scripted_model import ScriptedModel  # noqa: E402

REWARD = """import json, sys, time
for line in sys.stdin:
    request = json.loads(line)
    time.sleep({sleep})
    print(json.dumps({{"id": request["id"], "reward": len(request["response"]) % 7}}), flush=True)
"""
SHAPE = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 64, "initializer_range": 0.02}


def train(folder, name, sleep, args):
    """Seconds of the steps after the first."""
    reward = folder / f"{name}.py"
    reward.write_text(REWARD.format(sleep=sleep))
    run_dir = tempfile.mkdtemp(prefix=f"{name}-", dir=folder)
    config = {
        "run_dir": run_dir, "model": {"path": str(folder / "model"), "from_scratch": True},
        "data": {"env": "external", "train_files": [str(folder / "rows.jsonl")], "train_batch_size": args.prompts, "max_response_length": 256,
                 "external": {"command": f"{sys.executable} {reward}", "workers": args.workers}},
        "rollout": {"n": 16, "max_num_seqs": 128},
        "trainer": {"total_training_steps": args.steps + 1, "save_freq": -1, "rollout_save_freq": 0, "tensorboard": False}}
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    subprocess.run([ORRERY, "train", path], check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (pathlib.Path(run_dir) / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["stage"] == "grpo"][1:]
    return [(line["timing_s/step"], line["timing_s/gen"]) for line in steps]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sleep", type=float, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=80)
    parser.add_argument("--workers", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orrery-bench-") as name:
        folder = pathlib.Path(name)
        ScriptedModel(folder / "model").write(eos_token="<eos>")
        config_file = folder / "model" / "config.json"
        config_file.write_text(json.dumps({**json.loads(config_file.read_text()), **SHAPE}))
        (folder / "model" / "model.safetensors").unlink()
        (folder / "rows.jsonl").write_text("".join(
            json.dumps({"prompt": f"row {row}"}) + "\n" for row in range(4 * args.prompts)))
        times = {"at once": [], "asleep": []}
        for turn in range(args.turns):
            for kind, sleep in (("at once", 0), ("asleep", args.sleep)):
                times[kind] += train(folder, kind.replace(" ", "_"), sleep, args)
        for kind, pairs in times.items():
            print(
                f"{kind:8} step {statistics.median(p[0] for p in pairs):7.2f} s   of it generating"
                f" {statistics.median(p[1] for p in pairs):7.2f} s   ({len(pairs)} steps)")
        ratio = statistics.median(p[0] for p in times["asleep"]) / statistics.median(
            p[0] for p in times["at once"])
        print(f"a reward that sleeps {args.sleep:g} s costs {100 * (ratio - 1):+.1f} %")


if __name__ == "__main__":
    main()
