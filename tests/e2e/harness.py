"""What the end-to-end tests share: running the built command, alone or under mpirun."""
import json
import math
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import unittest

SOURCE = pathlib.Path(
    os.environ.get("ORRERY_SOURCE_DIR",
                   pathlib.Path(__file__).resolve().parents[2]))
BIN = os.environ.get("ORRERY_BIN", str(SOURCE / "build/release/bin/orrery"))
ASSETS = pathlib.Path(os.environ.get("ORRERY_ASSETS", SOURCE / ".." / "shared" / "assets"))
sys.path.insert(0, str(SOURCE / "tests/support"))
from scripted_model import ScriptedModel  # noqa: E402,F401 (for the tests)

QUICKSTART = str(SOURCE / "experiments/quickstart.yaml")
TINY_MODEL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 8}
# A run of seconds: the same stages as quickstart's, fewer steps. One digit and a high rate, so that
# some samples are right in every RL step: without rewards that differ the policy gradient would be
# zero, and equal hashes would say little.
SHORT = ["sft.total_training_steps=6", "sft.train_batch_size=32", "trainer.total_training_steps=4", "data.train_batch_size=8",
         "sft.optim.lr=1e-2", "sft.optim.lr_warmup_steps=1", "data.arithmetic.digits=1", "rollout.n=8", "data.val_size=20",
         "cluster.threads=1", "trainer.tensorboard=false"]
# For another data.env: SHORT's key of the arithmetic, which would have no effect there, back at its
# default.
OTHER_ENV = ["data.arithmetic.digits=2"]
# As short, with more imitation and so larger gradients.
LEARNS = [*SHORT, "sft.total_training_steps=20", "sft.train_batch_size=64", "sft.optim.lr=5e-3", "sft.optim.lr_warmup_steps=3",
          "trainer.total_training_steps=3"]


def environment():
    env = dict(os.environ)
    if os.geteuid() == 0:
        env |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return env


def command(*args, ranks=0):
    launcher = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)] if ranks else []
    return [*launcher, BIN, *(arg if isinstance(arg, bytes) else str(arg) for arg in args)]


def run(*args, ranks=0, timeout=300):
    """Runs to the end; the result has returncode, stdout, stderr."""
    return subprocess.run(command(*args, ranks=ranks), capture_output=True, text=True,
                          env=environment(), timeout=timeout, stdin=subprocess.DEVNULL)


def start(*args, ranks=0, log=subprocess.DEVNULL):
    return subprocess.Popen(command(*args, ranks=ranks), stdout=log, stderr=subprocess.STDOUT,
                            env=environment(), stdin=subprocess.DEVNULL, start_new_session=True)


def metrics(run_dir):
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (pathlib.Path(run_dir) / "metrics.jsonl").read_text().splitlines()]


def fields(message):
    """(number, value) of a Protobuf message's fields; a value is an int or bytes."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(key & 7) or varint()
        yield key >> 3, message[at:at + size]
        at += size


def events(path):
    """The fields of the whole records of a TensorBoard event file, as a dict each."""
    data, at = path.read_bytes(), 0
    while at + 12 <= len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        if at + 16 + size > len(data):
            return  # torn by a kill
        yield dict(fields(data[at + 12:at + 12 + size]))
        at += 16 + size


def tensorboard_curves(run_dir):
    """tag -> [(step, value), ...] as TensorBoard reads a run's event files: a session that starts
    at a step makes it forget what earlier files hold of that step and later ones."""
    curves = {}
    for path in sorted((pathlib.Path(run_dir) / "tensorboard").iterdir()):
        for event in events(path):
            step = event.get(2, 0)
            if dict(fields(event.get(7, b""))).get(1) == 1:
                curves = {tag: [point for point in points if point[0] < step] for tag, points in curves.items()}
            for number, summary in fields(event.get(5, b"")):
                value = dict(fields(summary))
                if number == 1:
                    curves.setdefault(value[1].decode(), []).append(
                        (step, struct.unpack("<f", value[2])[0]))
    return {tag: points for tag, points in curves.items() if points}


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="orrery-e2e-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def tiny_model(self):
        """A folder with quickstart's tokenizer and a model of 11 thousand parameters: what takes
        time is then starting the processes."""
        model = self.folder / "model"
        shutil.copytree(SOURCE / "experiments/quickstart_model", model)
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | TINY_MODEL))
        return model

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

    def check_tensorboard(self, run_dir, note=""):
        """Every number of metrics.jsonl is there once, at its step: zeros too, and null as NaN."""
        expected = {}
        for row in metrics(run_dir):
            for key, value in row.items():
                if key not in ("step", "stage", "stage_step", "time"):
                    number = math.nan if value is None else struct.unpack(
                        "<f", struct.pack("<f", value))[0]
                    expected.setdefault(key, []).append((row["step"], number))
        # repr: a NaN is equal to no other
        self.assertEqual({tag: repr(points) for tag, points in tensorboard_curves(run_dir).items()},
                         {tag: repr(points) for tag, points in expected.items()}, note)

    def checkpoint_hash(self, run_dir):
        newest = sorted((pathlib.Path(run_dir) / "checkpoints").glob("step_*[0-9]"))[-1]
        return newest.name, json.loads(self.ok("ckpt", "hash", newest, "--json").stdout)["hash"]

    def needs_asset(self, relative):
        path = ASSETS / relative
        if not path.exists():
            self.skipTest(f"needs {path}, which is absent")
        return path
