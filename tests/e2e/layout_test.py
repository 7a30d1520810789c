"""Promise P2: the final checkpoint of a run does not depend on placement, ranks, token budgets,
batching or threads."""
import unittest

from harness import QUICKSTART, Case, metrics, run

# One digit and a little imitation, so that some samples of a group are right and others are not:
# without a mix of rewards there would be no gradient to add up.
OPTIONS = ["data.arithmetic.digits=1", "data.arithmetic.zero_pad=false", "data.arithmetic.flawed_fraction=0", "data.train_batch_size=8",
           "data.val_size=10", "sft.total_training_steps=40", "sft.train_batch_size=32", "sft.optim.lr=0.01", "rollout.n=8",
           "actor.optim.lr=0.003", "trainer.total_training_steps=10", "trainer.save_freq=0", "trainer.test_freq=0",
           "trainer.rollout_save_freq=0", "trainer.tensorboard=false", "cluster.threads=1"]
# (placement, ranks, what else changes); 0 ranks: without mpirun. Three ranks: two learn, or one
# learns and two generate.
LAYOUTS = [
    ("colocated", 0, ["cluster.threads=2"]),
    ("colocated", 1, ["actor.ppo_max_token_len_per_gpu=1"]),
    ("colocated", 2, []),
    ("colocated", 3, ["rollout.max_num_batched_tokens=7", "rollout.max_num_seqs=3"]),
    ("colocated", 4, ["actor.ppo_max_token_len_per_gpu=40"]),
    ("split", 2, ["rollout.max_num_seqs=5"]),
    ("split", 3, ["rollout.max_num_batched_tokens=1", "actor.ppo_max_token_len_per_gpu=100"]),
    ("split", 4, ["cluster.threads=2", "rollout.max_num_batched_tokens=33"]),
]


class Layouts(Case):
    def setUp(self):
        super().setUp()
        self.model = self.tiny_model()

    def train(self, name, *options, ranks=0):
        """The final checkpoint's hash. Rewards must have varied, and on policy no log-prob may
        differ from the recorded one."""
        run_dir = self.folder / name
        result = run("train", QUICKSTART, f"run_dir={run_dir}", f"model.path={self.model}",
                     *OPTIONS, *options, ranks=ranks)
        self.assertEqual(result.returncode, 0,
                         f"{name} {options}\n{result.stdout}\n{result.stderr}")
        rows = metrics(run_dir)
        steps = [row for row in rows if row["stage"] == "grpo"]
        self.assertEqual(len(steps), 10, name)
        self.assertGreaterEqual(sum(row["critic/advantages/max"] > 0 for row in steps), 7,
                                f"{name}: too few steps had a gradient")
        if not any("ppo_" in option
                   for option in options
                   if "max_token_len" not in option):  # one update a step: all on policy
            self.assertEqual(max(row["rollout/logprob_diff_max"] for row in steps), 0, name)
        self.log = result.stderr
        self.metrics = steps
        return self.checkpoint_hash(run_dir)

    def test_matrix_of_layouts_and_seeds(self):
        by_seed = {}
        for seed in (1, 2, 3):
            hashes = {}
            for placement, ranks, options in LAYOUTS:
                name = f"{placement}{ranks}_seed{seed}"
                hashes[name] = self.train(name, f"cluster.placement={placement}", f"seed={seed}",
                                          *options, ranks=ranks)
            self.assertEqual(len(set(hashes.values())), 1, hashes)
            by_seed[seed] = set(hashes.values()).pop()
        self.assertEqual(len(set(by_seed.values())), 3, "seeds must matter")

    def test_eight_learners(self):
        self.assertEqual(self.train("one"), self.train("eight", ranks=8))

    def test_losses_mini_batches_and_epochs(self):
        # seq-mean-token-mean among them; token-mean is the matrix's.
        for mode in ("seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"):
            options = [f"actor.loss_agg_mode={mode}", "actor.ppo_mini_batch_size=4", "actor.ppo_epochs=2", "actor.kl_loss_coef=0.01",
                       "actor.entropy_coeff=0.001"]
            one = self.train(f"{mode}1", *options)
            self.assertGreater(max(row["actor/kl_loss"] for row in self.metrics), 0)
            placement = "split" if mode == "seq-mean-token-mean" else "colocated"
            other = self.train(f"{mode}2", *options, f"cluster.placement={placement}",
                               "actor.ppo_max_token_len_per_gpu=50", ranks=2)
            self.assertEqual(one, other, mode)

    def test_gspo(self):
        # The second mini-batch is off policy, so that ratios are not 1 and some sequences are clipped.
        options = ["actor.loss_mode=gspo", "actor.clip_ratio_low=3e-4", "actor.clip_ratio_high=4e-4",
                   "actor.loss_agg_mode=seq-mean-token-mean", "actor.ppo_mini_batch_size=4", "actor.ppo_epochs=2"]
        one = self.train("gspo1", *options)
        self.assertGreater(max(row["actor/pg_clipfrac"] for row in self.metrics), 0)
        self.assertEqual(max(row["actor/pg_clipfrac_lower"] for row in self.metrics), 0)
        self.assertGreater(max(abs(row["actor/ppo_kl"]) for row in self.metrics), 0)
        self.assertEqual(self.train("gspo2", *options, "actor.ppo_max_token_len_per_gpu=50", ranks=2), one)
        self.assertEqual(self.train("gspo_split", *options, "cluster.placement=split", ranks=2), one)
        vanilla = [option for option in options if "loss_mode" not in option]
        self.assertNotEqual(self.train("vanilla", *vanilla), one, "the loss must matter")

    def test_other_losses(self):
        # Each where it must have its own keys or aggregation, of two updates, so that ratios are not 1.
        sequence = "actor.loss_agg_mode=seq-mean-token-mean"
        clip = ["actor.clip_ratio_low=0.02", "actor.clip_ratio_high=0.03"]
        losses = {
            "geo-mean": [sequence, *clip], "cispo": clip, "sapo": [sequence, "actor.tau_neg=2"], "dppo-tv": [*clip, "actor.clip_ratio_c=20"],
            "dppo-kl": ["actor.clip_ratio_low=1e-3", "actor.clip_ratio_high=1e-3", "actor.clip_ratio_c=20"],
            "topr": ["actor.loss_agg_mode=seq-mean-token-sum"], "reinforce": ["actor.kl_loss_coef=0.01", "actor.kl_loss_type=k3-plus"],
            "dro": ["actor.dro_beta=0.1", "actor.off_policy_mask_threshold=0.001"]}
        hashes = set()
        for mode, its in losses.items():
            options = [f"actor.loss_mode={mode}", *its, "actor.ppo_epochs=2"]
            one = self.train(f"{mode}1", *options)
            clipped = max(row["actor/pg_clipfrac"] for row in self.metrics)
            self.assertEqual(clipped > 0, mode not in ("sapo", "reinforce", "dro"), mode)
            if mode == "dro":
                self.assertGreater(max(row["actor/off_policy_masked"] for row in self.metrics), 0)
            self.assertEqual(self.train(f"{mode}2", *options, "actor.ppo_max_token_len_per_gpu=50", "cluster.placement=split", ranks=2), one, mode)
            hashes.add(one)
        self.assertEqual(len(hashes), len(losses), "the losses must matter")

    def test_long_responses(self):
        # Sums of two digits leave no room for the end, so that they are cut off; both tokens cost a quarter.
        options = ["data.max_response_length=2", "data.overlong_buffer.len=2", "data.overlong_buffer.penalty_factor=0.5"]
        one = self.train("long1", *options, "actor.mask_truncated_completions=true")
        for row in self.metrics:
            self.assertLess(row["critic/rewards/mean"], row["critic/score/mean"])
            self.assertGreaterEqual(row["critic/rewards/min"], -0.5)
        self.assertEqual(self.train("long2", *options, "actor.mask_truncated_completions=true", ranks=2), one)
        self.assertNotEqual(self.train("all", *options), one, "what was cut off is learned from")
        self.assertNotEqual(self.train("free", "data.max_response_length=2", "actor.mask_truncated_completions=true"), one, "penalties matter")

    def test_fast_reduction_says_what_it_gives_up(self):
        self.train("fast", "cluster.reduce=fast", ranks=4)
        self.assertIn("cluster.reduce is fast", self.log)
        self.assertIn("number of learners", self.log)


if __name__ == "__main__":
    unittest.main()
