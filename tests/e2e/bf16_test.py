"""A whole run in bf16 keeps the promises: one hash on any layout, token budget and device, across a
kill, and on-policy log-probs that are the learner's to the bit. (targets_test.py: on every
instruction set.)"""
import subprocess
import unittest

from harness import QUICKSTART, Case, command, environment, metrics, run

# As layout_test.py's, but with enough samples a gradient shard that its trees form several runs.
OPTIONS = ["model.compute_dtype=bf16", "data.arithmetic.digits=1", "data.arithmetic.zero_pad=false", "data.arithmetic.flawed_fraction=0",
           "data.train_batch_size=64", "cluster.gradient_shards=4", "data.val_size=10", "sft.total_training_steps=40",
           "sft.train_batch_size=64", "sft.optim.lr=0.01", "rollout.n=8", "actor.optim.lr=0.003", "trainer.total_training_steps=3",
           "trainer.save_freq=1", "trainer.test_freq=0", "trainer.rollout_save_freq=0", "trainer.tensorboard=false", "cluster.threads=1"]
DOT16 = ["device=cpu-dot16"]
DOT16_LAYOUTS = [
    ("colocated", 0, ["cluster.threads=2"]),
    ("colocated", 2, ["actor.ppo_max_token_len_per_gpu=300", "rollout.max_num_seqs=5"]),
    ("split", 2, ["actor.ppo_max_token_len_per_gpu=1", "rollout.max_num_batched_tokens=7"]),
]
LAYOUTS = [
    ("colocated", 0, ["cluster.threads=2"]),
    ("colocated", 1, ["actor.ppo_max_token_len_per_gpu=1"]),
    ("colocated", 2, ["rollout.max_num_batched_tokens=7", "rollout.max_num_seqs=3"]),
    ("colocated", 4, ["actor.ppo_max_token_len_per_gpu=400"]),
    ("split", 2, ["rollout.max_num_seqs=5"]),
    ("split", 4, ["rollout.max_num_batched_tokens=1", "actor.ppo_max_token_len_per_gpu=300"]),
    ("colocated", 2, ["device=debug"]),
]


class Bf16(Case):
    def setUp(self):
        super().setUp()
        self.model = self.tiny_model()

    def words(self, name, *options):
        return ["train", QUICKSTART, f"run_dir={self.folder / name}", f"model.path={self.model}",
                *OPTIONS, *options]

    def train(self, name, *options, ranks=0):
        result = run(*self.words(name, *options), ranks=ranks)
        self.assertEqual(result.returncode, 0,
                         f"{name} {options}\n{result.stdout}\n{result.stderr}")
        steps = [row for row in metrics(self.folder / name) if row["stage"] == "grpo"]
        self.assertEqual(len(steps), 3, name)
        self.assertEqual(max(row["rollout/logprob_diff_max"] for row in steps), 0, name)
        self.assertGreater(min(row["actor/grad_norm"] for row in steps), 0, name)
        return self.checkpoint_hash(self.folder / name)

    def one_hash(self, layouts, *always):
        hashes = {}
        for placement, ranks, options in layouts:
            name = f"{placement}{ranks}{len(hashes)}"
            hashes[name] = self.train(name, f"cluster.placement={placement}", *options, *always, ranks=ranks)
        killed = subprocess.run(command(*self.words("killed", *always)), capture_output=True, text=True, timeout=120,
                                env=environment() | {"ORRERY_FAULT": "optimizer.step:crash@42"})
        self.assertEqual(killed.returncode, -9, killed.stderr)
        hashes["killed"] = self.train("killed", "cluster.placement=split", *always, ranks=2)
        self.assertEqual(len(set(hashes.values())), 1, hashes)
        return hashes["killed"]

    def test_layouts_and_a_kill(self):
        self.assertNotEqual(self.train("f32", "model.compute_dtype=f32"), self.one_hash(LAYOUTS), "the type must matter")

    def test_layouts_and_a_kill_where_bf16_is_tensor_cores(self):
        ours = self.one_hash(DOT16_LAYOUTS, *DOT16)
        # An f32 run has one hash on every device, and a bf16 run does not go on in another class unasked.
        self.assertNotEqual(self.train("f32", "model.compute_dtype=f32", *DOT16), ours)
        result = run(*self.words("killed", "trainer.total_training_steps=4"))
        self.assertEqual(result.returncode, 2, result.stdout + result.stderr)
        self.assertIn("was learned with numerics dot16-rz25/1 and this program's are pairs/1", result.stderr)
        self.assertIn("trainer.resume_numerics to any", result.stderr)
        result = run(*self.words("killed", "trainer.total_training_steps=4", "trainer.resume_numerics=any"))
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("from here on results differ from those", result.stderr + result.stdout)


if __name__ == "__main__":
    unittest.main()
