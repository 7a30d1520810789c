"""`orrery audit` confirms what a run recorded, whatever drew it, and names the first token of a
forgery."""
import hashlib
import json
import shutil
import struct
import unittest

from harness import QUICKSTART, Case, run

OPTIONS = ["data.arithmetic.digits=1", "data.arithmetic.zero_pad=false", "data.train_batch_size=8", "actor.ppo_mini_batch_size=8",
           "cluster.gradient_shards=4", "data.val_size=20", "sft.total_training_steps=40", "sft.optim.lr=0.01",
           "rollout.n=4", "rollout.top_p=0.95", "rollout.temperature=0.8", "actor.optim.lr=0.003", "trainer.total_training_steps=3",
           "trainer.save_freq=1", "trainer.max_ckpt_to_keep=9", "trainer.test_freq=1", "trainer.rollout_save_freq=1",
           "trainer.tensorboard=false", "cluster.threads=2"]


class Audit(Case):
    def setUp(self):
        super().setUp()
        self.model = self.tiny_model()

    def train(self, name, *options, ranks=0):
        result = run("train", QUICKSTART, f"run_dir={self.folder / name}", f"model.path={self.model}", *OPTIONS, *options,
                     ranks=ranks)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return self.folder / name

    def audit(self, path, checkpoint, *options):
        return run("audit", path, "--checkpoint", checkpoint, *options)

    def confirmed(self, run_dir, numerics):
        """The samples of a step and of a validation, by the checkpoints that drew them."""
        for name, step in (("step_000042", 41), ("step_000043", 42), ("val_step_000043", 43)):
            result = self.audit(run_dir / f"rollouts/{name}.h5", run_dir / f"checkpoints/step_0000{step}", "--json")
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            found = json.loads(result.stdout)
            self.assertTrue(found["confirmed"])
            self.assertEqual((found["differing"], found["first"], found["numerics"]), (0, None, numerics))
            self.assertGreater(found["tokens"], 20)

    def forged(self, source, change):
        """A copy of a rollouts file whose bytes are changed, with a checksum that fits."""
        to = self.folder / "forged.h5"
        before = source.read_bytes()
        after = change(before)
        self.assertNotEqual(before, after)
        self.assertEqual(len(before), len(after))
        to.write_bytes(after)
        digest = hashlib.sha256(after).hexdigest()
        (self.folder / "forged.h5.sha256").write_text(f"{digest}  forged.h5\n")
        return to

    def samples(self, path):
        result = run("rollouts", path, "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        return [json.loads(line) for line in result.stdout.splitlines()]

    def test_confirms_and_names_a_forgery(self):
        run_dir = self.train("plain")
        self.confirmed(run_dir, "f32-chain/2")
        path, checkpoint = run_dir / "rollouts/step_000043.h5", run_dir / "checkpoints/step_000042"
        some = self.audit(path, checkpoint, "--samples", "3")
        self.assertEqual(some.returncode, 0, some.stderr)
        self.assertIn("confirmed: 3 samples", some.stdout)

        # One log-prob, by one bit.
        sample = self.samples(path)[5]
        recorded = struct.pack(f"<{len(sample['logprobs'])}f", *sample["logprobs"])
        forged_bits = bytearray(recorded)
        forged_bits[4] ^= 1
        forged = self.forged(path, lambda data: data.replace(recorded, bytes(forged_bits), 1))
        result = self.audit(forged, checkpoint)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("1 of ", result.stderr)
        self.assertIn(f"first prompt {sample['prompt_index']} sample {sample['sample_index']} token 1: its log-prob is ", result.stderr)

        # Another temperature than was sampled with.
        forged = self.forged(path, lambda data: data.replace(b'"temperature":0.800000011920929', b'"temperature":0.700000011920929'))
        result = self.audit(forged, checkpoint)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("first prompt ", result.stderr)

        # Samples of other weights under this checkpoint's checksum.
        other = run_dir / "rollouts/step_000042.h5"
        sums = {p: json.loads(self.audit(run_dir / f"rollouts/{p}.h5", run_dir / f"checkpoints/step_0000{c}", "--json").stdout)["weights"]
                for p, c in (("step_000042", 41), ("step_000043", 42))}
        forged = self.forged(other, lambda data: data.replace(sums["step_000042"].encode(), sums["step_000043"].encode()))
        result = self.audit(forged, checkpoint)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("first prompt ", result.stderr)

        # A wrong checkpoint is no forgery, and is told as what it is.
        result = self.audit(path, run_dir / "checkpoints/step_000043")
        self.assertEqual(result.returncode, 1)
        self.assertIn("drawn from the weights of step 42", result.stderr)
        self.assertIn("give the checkpoint of that step", result.stderr)
        result = self.audit(run_dir, checkpoint)
        self.assertNotEqual(result.returncode, 0)

        # Nothing that was drawn.
        masks = b"".join(bytes(s["loss_mask"]) for s in self.samples(path))
        forged = self.forged(path, lambda data: data.replace(masks, bytes(len(masks))))
        result = self.audit(forged, checkpoint)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("was drawn from the policy (loss_mask is 0)", result.stderr)

        # A file that does not say how it was drawn.
        forged = self.forged(path, lambda data: data.replace(b"drawn\0", b"drawm\0"))
        result = self.audit(forged, checkpoint)
        self.assertEqual(result.returncode, 1)
        self.assertIn("does not say how its samples were drawn", result.stderr)

    def test_other_classes_and_layouts(self):
        self.confirmed(self.train("bf16", "model.compute_dtype=bf16", "cluster.placement=split", ranks=2), "pairs/1")
        shutil.rmtree(self.folder / "bf16")
        self.confirmed(self.train("dot16", "model.compute_dtype=bf16", "device=cpu-dot16", ranks=2), "dot16-rz25/1")


if __name__ == "__main__":
    unittest.main()
