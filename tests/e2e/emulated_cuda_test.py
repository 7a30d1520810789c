"""device=cuda in the emulator (docs/cuda.md): from a checkpoint that SFT on the CPU left, RL on the
CUDA backend ends in the CPU's hash, on 1 and 2 ranks. Kernels whose accesses are wrong, and host code
that touches the device's memory or does not wait for it, end the run."""
import os
import pathlib
import shutil
import tempfile
import unittest
from unittest import mock

import harness
from harness import QUICKSTART, Case, metrics, run

EMULATED = os.environ.get("ORRERY_EMULATED_BIN", str(pathlib.Path(harness.BIN).parent / "orrery-emulated"))
# Enough imitation for some samples to be right in each step of RL, without which its gradients are zero.
OPTIONS = ["data.arithmetic.digits=1", "data.arithmetic.zero_pad=false", "data.arithmetic.flawed_fraction=0",
           "data.max_prompt_length=5", "data.max_response_length=3", "data.train_batch_size=4", "data.val_size=1",
           "sft.total_training_steps=60", "sft.train_batch_size=64", "sft.optim.lr=5e-3", "sft.optim.lr_warmup_steps=3",
           "rollout.n=8", "rollout.max_num_seqs=32", "actor.optim.lr=1e-3", "actor.optim.lr_warmup_steps=1", "trainer.total_training_steps=3",
           "trainer.save_freq=1", "trainer.max_ckpt_to_keep=4", "trainer.tensorboard=false", "cluster.threads=1"]


@unittest.skipUnless(pathlib.Path(EMULATED).exists(), "this build has no emulator")
class EmulatedCuda(Case):
    @classmethod
    def setUpClass(cls):
        """A run on the CPU, and a copy of what SFT left of it."""
        super().setUpClass()
        home = pathlib.Path(tempfile.mkdtemp(prefix="orrery-emulated-test-"))
        cls.addClassCleanup(shutil.rmtree, home, ignore_errors=True)
        cls.cpu, cls.start = home / "cpu", home / "sft"
        done = run("train", QUICKSTART, f"run_dir={cls.cpu}", *OPTIONS)
        assert done.returncode == 0, done.stdout + done.stderr
        shutil.copytree(cls.cpu, cls.start)
        for step in (61, 62, 63):
            shutil.rmtree(cls.start / f"checkpoints/step_{step:06}")

    def setUp(self):
        super().setUp()
        harness.BIN = self.bin = EMULATED
        # A rank takes all of its device's, and the emulator fills it with NaN.
        self.enterContext(mock.patch.dict(os.environ, ORRERY_EMULATOR_MEMORY_MB="128"))

    def run_training(self, name, *options, ranks=0, after_sft=False):
        run_dir = self.folder / name
        if after_sft:
            shutil.copytree(self.start, run_dir)
        return run("train", QUICKSTART, f"run_dir={run_dir}", *OPTIONS, *options, ranks=ranks)

    def train(self, name, *options, ranks=0, after_sft=False):
        result = self.run_training(name, *options, ranks=ranks, after_sft=after_sft)
        self.assertEqual(result.returncode, 0, f"{name}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}")
        return self.checkpoint_hash(self.folder / name)

    def test_runs_have_the_bits_of_the_cpu(self):
        wanted = self.checkpoint_hash(self.cpu)
        norms = [row["actor/grad_norm"] for row in metrics(self.cpu) if "actor/grad_norm" in row]
        self.assertEqual(len(norms), 3)
        self.assertGreater(min(norms), 0)
        for name, options, ranks in (("cuda", ["device=cuda"], 0), ("two", ["device=cuda"], 2),
                                     ("split", ["device=cuda", "cluster.placement=split"], 2),
                                     ("rollouts", ["rollout.device=cuda", "cluster.placement=split"], 2)):
            with self.subTest(name):
                self.assertEqual(self.train(name, *options, ranks=ranks, after_sft=True), wanted)

    def test_a_lost_device_leaves_whole_checkpoints(self):
        with mock.patch.dict(os.environ, ORRERY_EMULATOR_LOSE_DEVICE="1500"):
            result = self.run_training("lost", "device=cuda", after_sft=True)
        self.assertEqual(result.returncode, 1, result.stderr[-3000:])
        self.assertRegex(result.stderr, "device cuda:0: .*: an illegal memory access was encountered.* lost the device.*"
                         "the last checkpoint is whole: start again from it")
        saved = sorted(path.name for path in (self.folder / "lost/checkpoints").iterdir())
        self.assertIn("step_000061", saved)
        self.assertNotIn("step_000063", saved)
        self.assertEqual(self.train("lost", "device=cuda"), self.checkpoint_hash(self.cpu))

    def test_too_little_memory_is_said_at_the_start(self):
        cases = [("4", 1, 2, "cannot allocate 3.3 MiB for the weights of a model on cuda:0; use a smaller model"),
                 ("10", 1, 1, "cannot allocate 3.3 MiB for the optimizer's moments on cuda:0; use more learner ranks"),
                 ("20", 1, 1, r"the gradients of 8 shard\(s\) of 855296 parameters need 10.6 MiB on cuda:0 and 4.0 are left; use more"),
                 ("32", 8192, 1, "16.0 MiB are left on cuda:0; a step of the rollout engine needs [0-9.]+ of temporary memory.*; lower "
                  "rollout.max_num_batched_tokens")]
        for megabytes, tokens, code, says in cases:
            with self.subTest(megabytes), mock.patch.dict(os.environ, ORRERY_EMULATOR_MEMORY_MB=megabytes):
                result = self.run_training(megabytes, "device=cuda", "sft.total_training_steps=0",
                                           f"rollout.max_num_batched_tokens={tokens}")
                self.assertEqual(result.returncode, code, result.stderr[-3000:])
                self.assertRegex(result.stderr, f"out of memory: {says}")


if __name__ == "__main__":
    unittest.main()
