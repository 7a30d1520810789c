"""What the end-to-end tests share: running the built command, alone or under mpirun."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

SOURCE = pathlib.Path(os.environ.get("ORRERY_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
BIN = os.environ.get("ORRERY_BIN", str(SOURCE / "build/release/bin/orrery"))
ASSETS = pathlib.Path(os.environ.get("ORRERY_ASSETS", SOURCE / ".." / "shared" / "assets"))
sys.path.insert(0, str(SOURCE / "tests/support"))
from scripted_model import ScriptedModel  # noqa: E402,F401 (for the tests)

QUICKSTART = str(SOURCE / "experiments/quickstart.yaml")
# A run of seconds: the same stages as quickstart's, fewer steps. One digit and a high rate, so that some samples are right in
# every RL step: without rewards that differ the policy gradient would be zero, and equal hashes would say little.
SHORT = ["sft.total_training_steps=6", "sft.train_batch_size=32", "trainer.total_training_steps=4", "data.train_batch_size=8",
         "sft.optim.lr=1e-2", "sft.optim.lr_warmup_steps=1", "data.arithmetic.digits=1", "rollout.n=8", "data.val_size=20",
         "cluster.threads=1", "trainer.tensorboard=false"]
# As short, with more imitation and so larger gradients.
LEARNS = [*SHORT, "sft.total_training_steps=20", "sft.train_batch_size=64", "sft.optim.lr=5e-3", "sft.optim.lr_warmup_steps=3",
          "trainer.total_training_steps=3"]


def environment():
    env = dict(os.environ, OMP_NUM_THREADS="1")
    if os.geteuid() == 0:
        env |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return env


def command(*args, ranks=0):
    launcher = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)] if ranks else []
    return [*launcher, BIN, *(arg if isinstance(arg, bytes) else str(arg) for arg in args)]


def run(*args, ranks=0, timeout=300):
    """Runs to the end; the result has returncode, stdout, stderr."""
    return subprocess.run(command(*args, ranks=ranks), capture_output=True, text=True, env=environment(), timeout=timeout,
                          stdin=subprocess.DEVNULL)


def start(*args, ranks=0, log=subprocess.DEVNULL):
    return subprocess.Popen(command(*args, ranks=ranks), stdout=log, stderr=subprocess.STDOUT, env=environment(),
                            stdin=subprocess.DEVNULL, start_new_session=True)


def metrics(run_dir):
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (pathlib.Path(run_dir) / "metrics.jsonl").read_text().splitlines()]


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="orrery-e2e-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def ok(self, *args, **kwargs):
        result = run(*args, **kwargs)
        self.assertEqual(result.returncode, 0, f"{args}\n{result.stdout}\n{result.stderr}")
        return result

    def fails(self, code, *args, says=(), **kwargs):
        result = run(*args, **kwargs)
        self.assertEqual(result.returncode, code, f"{args}\n{result.stdout}\n{result.stderr}")
        for text in says:
            self.assertIn(text, result.stderr)
        return result

    def wait_for(self, path, process, timeout=120, log=lambda: ""):
        """Until `path` is there, which `process` is to make; log(): what it has printed."""
        deadline = time.time() + timeout
        while not path.exists():
            self.assertIsNone(process.poll(), f"it ended before {path.name} was there:\n{log()}")
            self.assertLess(time.time(), deadline, f"{path.name} did not appear:\n{log()}")
            time.sleep(0.01)

    def checkpoint_hash(self, run_dir):
        newest = sorted((pathlib.Path(run_dir) / "checkpoints").glob("step_*[0-9]"))[-1]
        return newest.name, json.loads(self.ok("ckpt", "hash", newest, "--json").stdout)["hash"]

    def needs_asset(self, relative):
        path = ASSETS / relative
        if not path.exists():
            self.skipTest(f"needs {path}, which is absent")
        return path
