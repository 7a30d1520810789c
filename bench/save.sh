#!/usr/bin/env bash
# What a save costs the steps beside it, at the shape of a model of 135M parameters (random weights,
# 1.6 GB a checkpoint):
#   bench/save.sh [key=value ...]        e.g. cluster.threads=1, trainer.total_training_steps=40
# ORRERY=PATH takes another build of the command, FOLDER=PATH another disk. About three minutes, 8
# GB of memory and 5 GB of disk; an idle machine. Medians over steps: those whose generation began
# right after a save was started, and those without one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. bench/shape_135m.sh
every=4
"${train_135m[@]}" data.train_batch_size=8 rollout.n=8 data.max_response_length=32 trainer.total_training_steps=20 \
  trainer.save_freq=$every "$@" >&2
python3 - "$work/run/metrics.jsonl" "$every" <<'PYTHON'
import json
import statistics
import sys

every = int(sys.argv[2])
rows = [row for row in map(json.loads, open(sys.argv[1])) if row["stage"] == "grpo" and row["step"] > 2]
beside = [row for row in rows if "timing_s/save_checkpoint" in row]
# A save may last into the second step; those after it, up to the next save, are without.
alone = [row for row in rows if row["step"] % every in (3, 0)]
if not beside or not alone:
    sys.exit("too few steps: give trainer.total_training_steps of 12 or more")


def median(rows, key):
    return statistics.median(row[key] for row in rows if key in row)


print(f"{'seconds, medians':<24} {'without':>9} {'beside':>9} {'ratio':>7}")
for key in ("timing_s/gen", "timing_s/update_actor", "timing_s/step"):
    without, with_save = median(alone, key), median(beside, key)
    print(f"{key:<24} {without:9.3f} {with_save:9.3f} {with_save / without:7.2f}")
blocked = [row["timing_s/save_checkpoint"] for row in beside]
print(f"timing_s/save_checkpoint: {statistics.median(blocked):.3f} (first {blocked[0]:.3f}, {len(blocked)} saves)")
key = "timing_s/save_checkpoint_background"
print(f"{key}: {median(rows, key):.3f}")
PYTHON
