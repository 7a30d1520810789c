"""Advantage estimators train, each to another policy, and their runs have one hash on one rank and
on two."""
import unittest

from harness import QUICKSTART, Case, metrics

# One digit and a little imitation, so that some samples of a group are right and others are not.
OPTIONS = ["data.arithmetic.digits=1", "data.arithmetic.zero_pad=false", "data.arithmetic.flawed_fraction=0", "data.train_batch_size=8",
           "data.val_size=10", "sft.total_training_steps=40", "sft.train_batch_size=32", "sft.optim.lr=0.01", "rollout.n=8",
           "actor.optim.lr=0.003", "actor.optim.lr_warmup_steps=0", "trainer.test_freq=0", "trainer.rollout_save_freq=0",
           "trainer.tensorboard=false", "cluster.threads=1"]

# The options that choose it; grpo, rloo and reinforce-plus-plus-baseline are layout_test's and
# metrics_test's.
ESTIMATORS = {
    "reinforce-plus-plus": ["rollout.n=1", "data.train_batch_size=32"],
    "opo": [], "gpg": [], "grpo-passk": [], "maxrl": [],
    "passk": ["algorithm.passk_k=3"],
    "gdpo": ["algorithm.gdpo_reward_keys=[correct]"],
    "remax": ["rollout.n=3"],
}


class Estimators(Case):
    def setUp(self):
        super().setUp()
        self.model = self.tiny_model()

    def train(self, name, *options, ranks=0):
        run_dir = self.folder / f"{name}{ranks}"
        self.ok("train", QUICKSTART, f"run_dir={run_dir}", f"model.path={self.model}", *OPTIONS, f"trainer.resume={self.start}",
                "trainer.total_training_steps=1", f"algorithm.adv_estimator={name}", *options, ranks=ranks)
        row = metrics(run_dir)[-1]
        self.assertEqual(row["stage"], "grpo")
        self.assertGreater(abs(row["critic/advantages/max"]), 0, name)
        return self.checkpoint_hash(run_dir), row

    def test_one_hash_on_one_rank_and_on_two(self):
        self.start = self.folder / "start"
        self.ok("train", QUICKSTART, f"run_dir={self.start}", f"model.path={self.model}", *OPTIONS, "trainer.total_training_steps=0")
        hashes = {}
        for name, options in ESTIMATORS.items():
            hashes[name], row = self.train(name, *options)
            # Its greedy responses come from a rank that only generates.
            layout = ["cluster.placement=split"] if name == "remax" else []
            self.assertEqual(self.train(name, *options, *layout, ranks=2)[0], hashes[name], name)
            self.assertEqual(name == "remax", "critic/greedy_reward/mean" in row, name)
            if name == "remax":  # a sample's reward less its prompt's, all of which are 0 or 1
                self.assertTrue({row["critic/advantages/min"], row["critic/advantages/max"]} <= {-1, 0, 1})
        self.assertEqual(len(set(hashes.values())), len(ESTIMATORS), f"each teaches something else: {hashes}")

    def test_a_part_that_rewards_have_not_is_an_error_before_the_first_step(self):
        self.fails(2, "train", QUICKSTART, f"run_dir={self.folder / 'run'}", f"model.path={self.model}", "algorithm.adv_estimator=gdpo",
                   "algorithm.gdpo_reward_keys=[correct, format]",
                   says=["algorithm.gdpo_reward_keys has 'format', and the rewards of data.env arithmetic have no such part: they have correct"])


if __name__ == "__main__":
    unittest.main()
