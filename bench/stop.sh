#!/usr/bin/env bash
# How long a run takes to save and exit when asked to in the middle of a step, at the shape of a
# model of 135M parameters whose steps take minutes:
#   bench/stop.sh [key=value ...]        e.g. cluster.threads=1
# ORRERY=PATH takes another build of the command, FOLDER=PATH another disk. Some minutes, 8 GB of
# memory and 2 GB of disk.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. bench/shape_135m.sh
python3 - "$work/run" "${train_135m[@]}" data.train_batch_size=32 rollout.n=8 data.max_response_length=192 rollout.max_num_seqs=64 \
  trainer.total_training_steps=10 "$@" <<'PYTHON'
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

run_dir, command = pathlib.Path(sys.argv[1]), sys.argv[2:]


def stop(phase, after, **options):
    """Seconds from a SIGTERM, `after` seconds into the phase, to the end of the process."""
    shutil.rmtree(run_dir, ignore_errors=True)
    command_now = command + [f"{key}={value}" for key, value in options.items()]
    process = subprocess.Popen(command_now, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        if process.poll() is not None:
            sys.exit(f"it ended by itself with exit code {process.returncode}: {' '.join(command_now)}")
        try:
            if json.loads((run_dir / "status.json").read_text())["ranks"][0]["phase"].startswith(phase):
                break
        except (OSError, ValueError):
            pass
        time.sleep(0.1)
    time.sleep(after)
    begin = time.time()
    process.send_signal(signal.SIGTERM)
    code = process.wait()
    seconds = time.time() - begin
    state = json.loads((run_dir / "status.json").read_text())["state"]
    print(f"SIGTERM {after} s into '{phase}': {seconds:.1f} s to exit code {code}, state {state}", flush=True)


stop("generate", 5)
# A short generation comes before it.
stop("update", 5, **{"data.max_response_length": 64})
PYTHON
