#!/usr/bin/env python3
"""Random kills of ranks and of mpirun under `orrery launch`, for as long as asked: the run must end in the bits of one
that nobody disturbed, with every prompt group of every step exactly once. Not part of ctest.

    tests/e2e/soak.py --minutes 10 [--ranks 2] [--seed 1]
"""
import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from harness import BIN, LEARNS, QUICKSTART, environment, metrics
from launch_test import SFT_STEPS, rank_pids


def orrery(*args):
    return subprocess.run([BIN, *map(str, args)], check=True, capture_output=True, text=True,
                          env=environment()).stdout


def checkpoint_hash(run_dir):
    newest = sorted((run_dir / "checkpoints").glob("step_*[0-9]"))[-1]
    return newest.name, json.loads(orrery("ckpt", "hash", newest, "--json"))["hash"]


def launch(run_dir, options, ranks, log):
    return subprocess.Popen([
        BIN, "launch", "-n",
        str(ranks), "--backoff", "0.1", "--max-restarts", "30", "--hang-timeout", "20", QUICKSTART,
        f"run_dir={run_dir}", *options
    ], stdout=log, stderr=subprocess.STDOUT, env=environment(), stdin=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", help="keep the runs here")
    arguments = parser.parse_args()
    folder = pathlib.Path(arguments.folder or tempfile.mkdtemp(prefix="orrery-soak-"))
    folder.mkdir(exist_ok=True)
    generator = random.Random(arguments.seed)

    # How long a step takes here decides how many fill the time; kills and restarts take about two
    # thirds of it.
    probe = [*LEARNS, "trainer.total_training_steps=40", "trainer.save_freq=1", "trainer.test_freq=0"]
    begin = time.time()
    with open(folder / "probe.txt", "w") as log:
        if launch(folder / "probe", probe, arguments.ranks, log).wait() != 0:
            sys.exit((folder / "probe.txt").read_text())
    per_step = (time.time() - begin) / (40 + SFT_STEPS)
    steps = max(40, int(arguments.minutes * 60 * 0.4 / per_step))
    options = [*LEARNS, f"trainer.total_training_steps={steps}", "trainer.save_freq=1", "trainer.rollout_save_freq=1",
               "trainer.test_freq=0"]
    print(f"{per_step:.3f} s a step; {steps} RL steps", flush=True)

    whole, run_dir = folder / "whole", folder / "run"
    with open(folder / "whole.txt", "w") as log:
        if launch(whole, options, arguments.ranks, log).wait() != 0:
            sys.exit((folder / "whole.txt").read_text())
    expected = checkpoint_hash(whole)

    kills = {"rank": 0, "mpirun": 0, "stopped": 0}
    begin = time.time()
    with open(folder / "run.txt", "w") as log:
        process = launch(run_dir, options, arguments.ranks, log)
        while process.poll() is None:
            if time.time() - begin > arguments.minutes * 60 * 3 + 120:
                process.terminate()
                sys.exit(f"the run did not end; see {folder / 'run.txt'}")
            try:  # from within start-up to some steps on
                process.wait(generator.uniform(0.5, 6.0))
                break
            except subprocess.TimeoutExpired:
                pass
            if time.time() - begin > arguments.minutes * 60:
                continue  # time is up: let it finish
            try:
                choice = generator.random()
                pids = rank_pids(run_dir)
                if choice < 0.25:
                    for child in pathlib.Path(
                            f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                        if b"mpirun" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes():
                            os.kill(int(child), signal.SIGKILL)
                            kills["mpirun"] += 1
                elif pids:
                    # A stopped one takes the deadline to find, so there are few of them.
                    stop = choice > 0.97
                    os.kill(generator.choice(sorted(pids.values())),
                            signal.SIGSTOP if stop else signal.SIGKILL)
                    kills["stopped" if stop else "rank"] += 1
            except (ProcessLookupError, FileNotFoundError):
                pass
    seconds = time.time() - begin
    text = (folder / "run.txt").read_text()
    if process.returncode != 0:
        sys.exit(f"exit code {process.returncode}; the end of {folder / 'run.txt'}:\n" +
                 "\n".join(text.splitlines()[-30:]))

    problems = []
    if not any(r.get("actor/grad_norm", 0) > 0 for r in metrics(whole)):
        problems.append("every gradient was zero, so equal hashes say little")
    if checkpoint_hash(run_dir) != expected:
        problems.append(f"hash {checkpoint_hash(run_dir)} instead of {expected}")
    first, second = metrics(whole), metrics(run_dir)
    if [r["step"] for r in second] != list(range(1, steps + SFT_STEPS + 1)):
        problems.append("metrics.jsonl does not list every step exactly once")
    for key in ("critic/rewards/mean", "actor/grad_norm", "response_length/mean", "train/loss"):
        if [r.get(key) for r in first] != [r.get(key) for r in second]:
            problems.append(f"{key} differs from the undisturbed run")
    names = [f"step_{i:06}.h5" for i in range(SFT_STEPS + 1, SFT_STEPS + steps + 1)]
    if sorted(p.name for p in (run_dir / "rollouts").glob("*.h5")) != names:
        problems.append("rollouts/ does not hold every step exactly once")
    else:
        for name in names:
            # Equal samples give equal files: tokens, log-probs, rewards and weight versions.
            if (run_dir / "rollouts" / name).read_bytes() != (whole / "rollouts" / name).read_bytes():
                problems.append(f"rollouts/{name} holds other groups than the undisturbed run's")
                break
    restarts = text.count("restarting in")
    print(f"{seconds:.0f} s, {kills['rank']} ranks and {kills['mpirun']} mpiruns killed, {kills['stopped']} ranks stopped, "
          f"{restarts} restarts, {steps + SFT_STEPS} steps: " + ("FAILED: " + "; ".join(problems) if problems else
                                                         f"the same hash ({expected[1][:16]}...), every prompt group once"))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
