"""Log-probs that are not the learner's. Other numerics: seen, corrected, and still the same bits on
any layout. A wrong bit in the same numerics: the run stops."""
import os
import re
import unittest
from unittest import mock

from harness import LEARNS, QUICKSTART, Case, metrics

OTHER = ["cluster.placement=split", "rollout.compute_dtype=bf16"]


class Mismatch(Case):
    def train(self, name, *options, ranks=0):
        run_dir = self.folder / name
        self.ok("train", QUICKSTART, f"run_dir={run_dir}", *LEARNS, *options, ranks=ranks)
        rows = metrics(run_dir)
        return self.checkpoint_hash(run_dir), [row for row in rows if row["stage"] == "grpo"]

    def test_other_numerics_are_corrected(self):
        same, rows = self.train("same")
        self.assertTrue(any(row["actor/grad_norm"] > 0 for row in rows), "RL must learn something")
        for row in rows:
            self.assertEqual([row["rollout_corr/corrected_share"], row["rollout/logprob_diff_max"]],
                             [0, 0])
            self.assertNotIn("rollout_corr/rollout_is_mean", row)
        split, _ = self.train("split", "cluster.placement=split", "rollout.compute_dtype=f32",
                              ranks=2)
        self.assertEqual(split, same, "the learner's own type is `same`")

        other, rows = self.train("other", *OTHER, ranks=2)
        self.assertNotEqual(other, same)
        for row in rows:
            self.assertEqual(row["rollout_corr/corrected_share"], 1)
            self.assertGreater(row["rollout/logprob_diff_max"], 0)
            self.assertGreater(row["training/rollout_probs_diff_max"], 0)
            self.assertAlmostEqual(row["rollout_corr/rollout_is_mean"], 1, delta=0.05)
            self.assertGreater(row["rollout/logprob_mismatches"], 0)
            self.assertEqual(row["actor/ppo_kl"], 0,
                             "the first update's ratio is to the recomputed log-probs: exactly 1")
        two, _ = self.train("two", *OTHER, "cluster.learners=2",
                            "actor.ppo_max_token_len_per_gpu=50", ranks=4)
        self.assertEqual(two, other)

    def test_a_device_of_another_class_is_corrected_too(self):
        bf16 = ["model.compute_dtype=bf16", "cluster.placement=split"]
        hashes = []
        for name, ranks, options in (("two", 2, []), ("three", 3, ["cluster.learners=2", "actor.ppo_max_token_len_per_gpu=50"])):
            found, rows = self.train(name, *bf16, "rollout.device=cpu-dot16", "algorithm.rollout_is_threshold=3", *options, ranks=ranks)
            hashes.append(found)
            for row in rows:
                self.assertEqual(row["rollout_corr/corrected_share"], 1)
                self.assertGreater(row["rollout/logprob_diff_max"], 0)
        self.assertEqual(len(set(hashes)), 1)
        # What a run learns in is its learners' class, whoever reads the checkpoint.
        (longer, _), _ = self.train("two", *bf16, "rollout.device=cpu-dot16", "algorithm.rollout_is_threshold=3",
                                    "trainer.total_training_steps=4", ranks=2)
        self.assertEqual(longer, "step_000024")
        _, rows = self.train("same", *bf16, "device=cpu-dot16", "rollout.device=cpu-dot16", ranks=2)
        self.assertEqual(max(row["rollout_corr/corrected_share"] for row in rows), 0)

    def test_mini_batches_and_cap(self):
        options = [*OTHER, "actor.ppo_mini_batch_size=4", "actor.ppo_epochs=2", "algorithm.rollout_is_threshold=1"]
        one, rows = self.train("one", *options, ranks=2)
        self.assertGreater(rows[0]["rollout_corr/rollout_is_clipped_share"], 0.2,
                           "about half of the weights are above 1")
        two, _ = self.train("two", *options, "cluster.learners=2", ranks=3)
        self.assertEqual(two, one)

    def test_one_wrong_bit_stops_the_run_before_it_is_learned_from(self):
        # The engine of the one rank that generates records wrong log-probs from some step on; the
        # others hear of it too.
        says = ["the log-prob recorded for prompt ", " but the learner computes ", "algorithm.verify_logprobs"]
        for name, ranks, options in (("two", 2, []), ("three", 3, ["cluster.learners=2", "actor.ppo_max_token_len_per_gpu=50"])):
            run_dir = self.folder / name
            options = ["train", QUICKSTART, f"run_dir={run_dir}", *LEARNS, "cluster.placement=split", "trainer.test_freq=0",
                       "trainer.save_freq=1", *options]
            with mock.patch.dict(os.environ,
                                 ORRERY_FAULT=f"engine.step:corrupt@9+,rank={ranks - 1}"):
                result = self.fails(1, *options, ranks=ranks, says=says)
            self.assertEqual(result.stderr.count("recorded for prompt"), 1,
                             "said once, not by every rank")
            found = re.search(r"orrery: step (\d+): the log-prob recorded for prompt \d+ sample \d token \d \(id \d+\) is -", result.stderr)
            self.assertIsNotNone(found, result.stderr)
            rows = metrics(run_dir)
            self.assertEqual([row["stage"] for row in rows].count("grpo"),
                             int(found[1]) - 1 - 20, "sound steps are kept")  # 20 of SFT
        options = [*LEARNS, "cluster.placement=split", "algorithm.verify_logprobs=false", f"run_dir={self.folder / 'metrics'}"]
        with mock.patch.dict(os.environ, ORRERY_FAULT="engine.step:corrupt@9+,rank=1"):
            self.ok("train", QUICKSTART, *options, ranks=2)
        rows = metrics(self.folder / "metrics")
        last = [row for row in rows if row["stage"] == "grpo"][-1]
        self.assertGreater(last["rollout/logprob_mismatches"], 0)
        self.assertGreater(last["rollout/logprob_diff_max"], 0)

    def test_colocated_ranks_have_one_type(self):
        self.fails(2, "train", QUICKSTART, f"run_dir={self.folder / 'a'}", *LEARNS,
                   "rollout.compute_dtype=bf16",
                   says=["rollout.compute_dtype is bf16", "cluster.placement=split"])


if __name__ == "__main__":
    unittest.main()
