"""device=cuda in the emulator (docs/cuda.md): from a checkpoint that SFT on the CPU left, RL on the
CUDA backend ends in the CPU's hash, on 1 and 2 ranks. Kernels whose accesses are wrong, and host code
that touches the device's memory or does not wait for it, end the run."""
import os
import pathlib
import shutil
import unittest

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
    def setUp(self):
        super().setUp()
        harness.BIN = self.bin = EMULATED

    def train(self, name, *options, ranks=0, start=None):
        run_dir = self.folder / name
        if start is not None:
            shutil.copytree(start, run_dir)
        result = run("train", QUICKSTART, f"run_dir={run_dir}", *OPTIONS, *options, ranks=ranks)
        self.assertEqual(result.returncode, 0, f"{name}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}")
        return self.checkpoint_hash(run_dir)

    def test_runs_have_the_bits_of_the_cpu(self):
        wanted = self.train("cpu")
        start = self.folder / "sft"
        shutil.copytree(self.folder / "cpu", start)
        for step in (61, 62, 63):
            shutil.rmtree(start / f"checkpoints/step_{step:06}")
        norms = [row["actor/grad_norm"] for row in metrics(self.folder / "cpu") if "actor/grad_norm" in row]
        self.assertEqual(len(norms), 3)
        self.assertGreater(min(norms), 0)
        for name, options, ranks in (("cuda", [], 0), ("two", [], 2), ("split", ["cluster.placement=split"], 2)):
            with self.subTest(name):
                self.assertEqual(self.train(name, "device=cuda", *options, ranks=ranks, start=start), wanted)


if __name__ == "__main__":
    unittest.main()
