"""docs/metrics.md: what every metric is, recomputed here from the rollouts and checkpoints that a
run leaves, without our own code; and the file and the runs know the same names."""
import json
import math
import pathlib
import re
import shutil
import statistics
import tempfile
import unittest

from harness import LEARNS, QUICKSTART, SOURCE, Case, metrics, run

MAX_PROMPT, MAX_RESPONSE, SFT_STEPS = 5, 6, 20
SMALL = [f"sft.total_training_steps={SFT_STEPS}", "sft.train_batch_size=64", "sft.optim.lr=5e-3", "sft.optim.lr_warmup_steps=3",
         "data.arithmetic.digits=1", "data.train_batch_size=6", "rollout.n=6", "rollout.val_n=4", "rollout.val_temperature=1",
         "data.val_size=10", f"data.max_prompt_length={MAX_PROMPT}", f"data.max_response_length={MAX_RESPONSE}", "cluster.threads=1",
         "actor.optim.lr=1e-3", "actor.optim.lr_warmup_steps=0", "actor.kl_loss_coef=0.05", "trainer.total_training_steps=3",
         "trainer.save_freq=1", "trainer.max_ckpt_to_keep=9", "trainer.rollout_save_freq=1", "trainer.test_freq=2"]
RUNS = {
    "baseline": (0, [*SMALL, "algorithm.adv_estimator=reinforce-plus-plus-baseline", "actor.loss_agg_mode=seq-mean-token-mean"]),
    # The weights of `once` after its first step are those of the second update of the first step of
    # `twice`.
    "once": (0, [*SMALL, "trainer.total_training_steps=1"]),
    "twice": (0, [*SMALL, "trainer.total_training_steps=1", "actor.ppo_epochs=2"]),
    "greedy": (2, [*SMALL, "trainer.total_training_steps=1", "algorithm.adv_estimator=remax"]),
    "ranks": (2, [*SMALL, "actor.ppo_mini_batch_size=3", "actor.ppo_epochs=2", "algorithm.adv_estimator=rloo",
                  "actor.off_policy_mask_threshold=0.01"]),
    "other": (2, [*LEARNS, "cluster.placement=split", "rollout.compute_dtype=bf16", "trainer.save_freq=1"]),
    # SFT on rows of one's own (ROWS), all of them in each batch, and their loss measured.
    "rows": (2, ["sft.train_files=[ROWS]", "sft.val_files=[ROWS]", "sft.total_training_steps=3", "sft.train_batch_size=4",
                 "sft.optim.lr=1e-2", "sft.optim.lr_warmup_steps=0", "trainer.total_training_steps=0", "trainer.test_freq=1",
                 "trainer.save_freq=1", "trainer.max_ckpt_to_keep=9", "cluster.threads=1"]),
}
OWN_ROWS = [("1+2=", "3", 1), ("4+4=", "08", 2.5), ("9+9=", "1818", 0.25),
            ("7=", "77", 0)]  # prompt, response, weight


def stage_of(row):
    return "val" if row["stage"] == "val" else "SFT" if row["stage"] == "sft" else "RL"


class Sample:
    def __init__(self, row):
        self.prompt_index, self.reward, self.extra = row["prompt_index"], row["reward"], row[
            "reward_extra"]
        self.prompt, self.tokens, self.logprobs = row["prompt_tokens"], row["tokens"], row[
            "logprobs"]
        self.entropies, self.mask = row["entropies"], row["loss_mask"]
        self.length = len(self.prompt) + len(self.tokens)
        self.loss_tokens = sum(self.mask)
        self.advantage = None

    def of_loss_tokens(self, values):
        return [value for value, mask in zip(values, self.mask) if mask]


def whitened(samples):
    """verl's reinforce_plus_plus_baseline."""
    groups = {}
    for sample in samples:
        groups.setdefault(sample.prompt_index, []).append(sample)
    tokens = []
    for group in groups.values():
        mean = statistics.fmean(sample.reward for sample in group)
        for sample in group:
            sample.advantage = sample.reward - mean
            tokens += [sample.advantage] * sample.loss_tokens
    mean, variance = statistics.fmean(tokens), statistics.variance(tokens)
    for sample in samples:
        sample.advantage = (sample.advantage - mean) / math.sqrt(variance + 1e-8)


def grpo(samples):
    for sample in samples:
        group = [other.reward for other in samples if other.prompt_index == sample.prompt_index]
        sample.advantage = (sample.reward - statistics.fmean(group)) / (statistics.stdev(group) + 1e-6)


def aggregated(samples, values, mode):
    """verl's agg_loss; values: of each sample's loss tokens."""
    if mode == "token-mean":
        return sum(map(sum, values)) / sum(sample.loss_tokens for sample in samples)
    return statistics.fmean(sum(of_sample) / len(of_sample) for of_sample in values)


def k3(logprob, reference):
    d = min(max(reference - logprob, -20), 20)
    return min(math.exp(d) - d - 1, 10)


class Metrics(Case):
    @classmethod
    def setUpClass(cls):
        cls.runs = pathlib.Path(tempfile.mkdtemp(prefix="orrery-e2e-"))
        cls.addClassCleanup(shutil.rmtree, cls.runs, ignore_errors=True)
        cls.rows = {}
        rows = cls.runs / "rows.jsonl"
        rows.write_text("".join(
            json.dumps(dict(zip(("prompt", "response", "weight"), row))) + "\n"
            for row in OWN_ROWS))
        for name, (ranks, options) in RUNS.items():
            options = [option.replace("ROWS", str(rows)) for option in options]
            result = run("train", QUICKSTART, f"run_dir={cls.runs / name}", *options,
                         "trainer.tensorboard=false", ranks=ranks)
            if result.returncode != 0:
                raise AssertionError(f"{name}: {result.stdout}\n{result.stderr}")
            cls.rows[name] = metrics(cls.runs / name)

    def steps(self, name):
        rows = [row for row in self.rows[name] if stage_of(row) == "RL"]
        for number, row in enumerate(rows, start=1):
            self.assertEqual(row["training/global_step"], row["step"])
            self.assertEqual(row["stage_step"], number)
            yield number, row, self.samples(name, row["step"])

    def samples(self, name, step):
        text = self.ok("rollouts", self.runs / name / "rollouts" / f"step_{step:06}.h5",
                       "--json").stdout
        return [Sample(json.loads(line)) for line in text.splitlines()]

    def forward(self, model, samples):
        """Log-probs and entropies of the samples' loss tokens under a Hugging Face folder's
        weights."""
        logprobs, entropies = [], []
        ids = self.folder / "ids.json"
        for sample in samples:
            ids.write_text(json.dumps(sample.prompt + sample.tokens))
            out = json.loads(self.ok("logprobs", "--model", model, "--ids", ids, "--json").stdout)
            first = len(sample.prompt) - 1
            logprobs.append(sample.of_loss_tokens(out["logprobs"][first:]))
            entropies.append(sample.of_loss_tokens(out["entropies"][first:]))
        return logprobs, entropies

    def exported(self, name, step):
        """The run's weights after `step` RL steps as a Hugging Face folder."""
        out = self.folder / f"{name}{step}"
        self.ok("ckpt", "export", self.runs / name / "checkpoints" / f"step_{SFT_STEPS + step:06}",
                "--format", "hf", out)
        return out

    def reference(self, name):
        """The weights that the run's KL is to, beside the tokenizer that the command wants."""
        out = self.folder / f"{name}-reference"
        shutil.copytree(self.runs / name / "reference", out)
        for file in (SOURCE / "experiments/quickstart_model").glob("tokenizer*"):
            shutil.copy(file, out)
        return out

    def check(self, row, expected, tolerance=1e-5):
        for name, value in expected.items():
            self.assertIn(name, row)
            self.assertAlmostEqual(row[name], value, delta=tolerance * max(1.0, abs(value)),
                                   msg=name)

    def spread(self, name, values):
        return {f"{name}/mean": statistics.fmean(values), f"{name}/min": min(values), f"{name}/max": max(values)}

    def test_data_metrics_are_verls(self):
        saw_full = 0
        for name, learners in (("baseline", 1), ("ranks", 2)):
            for _, row, samples in self.steps(name):
                responses, prompts = [len(s.tokens) for s in samples
                                     ], [len(s.prompt) for s in samples]
                lengths = [s.length for s in samples]
                rewards = [s.reward for s in samples]
                share = len(samples) // learners
                parts = [sum(lengths[i:i + share]) for i in range(0, len(samples), share)]
                groups = {s.prompt_index: set() for s in samples}
                for s in samples:
                    groups[s.prompt_index].add(s.reward)
                expected = {
                    **self.spread("critic/score", rewards), **self.spread("critic/rewards", rewards),
                    **self.spread("response_length", responses), **self.spread("prompt_length", prompts),
                    **self.spread("num_turns", [2] * len(samples)),
                    "response_length/clip_ratio": statistics.fmean(n == MAX_RESPONSE for n in responses),
                    "prompt_length/clip_ratio": statistics.fmean(n == MAX_PROMPT for n in prompts),
                    "response/aborted_ratio": statistics.fmean(n == 0 for n in responses),
                    "reward_extra/correct/mean": statistics.fmean(s.extra["correct"] for s in samples),
                    "global_seqlen/min": min(parts), "global_seqlen/max": max(parts), "global_seqlen/minmax_diff": max(parts) - min(parts),
                    "global_seqlen/mean": statistics.fmean(parts),
                    "training/epoch": 0, "training/global_batch_size_samples": len(samples), "training/global_batch_size_prompts": len(groups),
                    "training/filter_groups/uniform_reward_ratio": statistics.fmean(len(rewards) == 1 for rewards in groups.values()),
                    "rollout/entropy": statistics.fmean(e for s in samples for e in s.of_loss_tokens(s.entropies)),
                    "perf/total_num_tokens": sum(lengths)}
                self.check(row, expected)
                saw_full += expected["response_length/clip_ratio"] > 0
                self.assertEqual(expected["prompt_length/clip_ratio"], 1,
                                 "the beginning of sequence and 1+2=")
                balanced = [row["global_seqlen/balanced_min"], row["global_seqlen/balanced_max"]]
                self.assertLessEqual(balanced[0], sum(lengths) / learners)
                self.assertEqual(sum(balanced), 2 * sum(lengths) / learners,
                                 "what one of two has the other has not")
        self.assertGreater(saw_full, 0, "a test that has nothing to count")

    def test_times_are_verls(self):
        config = json.loads((SOURCE / "experiments/quickstart_model/config.json").read_text())
        hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config[
            "num_attention_heads"]
        head = config.get("head_dim") or hidden // heads
        qkvo = hidden * head * (2 * heads + 2 * config.get("num_key_value_heads", heads))
        weights = (3 * hidden * config["intermediate_size"] +
                   qkvo) * layers + 2 * config["vocab_size"] * hidden
        for name, ranks, epochs in (("baseline", 1, 1), ("ranks", 2, 2)):
            for _, row, samples in self.steps(name):
                total, response = sum(s.length for s in samples), sum(
                    len(s.tokens) for s in samples)
                flops = 6 * weights * total + 6 * sum(s.length**2
                                                      for s in samples) * head * heads * layers
                update = row["timing_s/update_actor"]
                self.check(row, {
                    "timing_per_token_ms/gen": row["timing_s/gen"] * 1000 / response,
                    "timing_per_token_ms/adv": row["timing_s/adv"] * 1000 / total,
                    "timing_per_token_ms/ref": row["timing_s/ref"] * 1000 / total,
                    "timing_per_token_ms/update_actor": update * 1000 / total,
                    "perf/throughput": total / row["timing_s/step"] / ranks, "perf/time_per_step": row["timing_s/step"],
                    "perf/rollout_tokens_per_s": response / row["timing_s/gen"],
                    "perf/mfu/actor": flops * epochs / update / (row["perf/peak_gflops"] * 1e9) / ranks,
                    "perf/learner_gflops_per_s": row["perf/learner_flops"] / row["timing_s/update_actor/gradient"] * 1e-9})
                self.assertGreater(row["perf/mfu/actor"], 0)
                parts = sum(
                    value for key, value in row.items() if key.startswith("timing_s/update_actor/"))
                self.assertLess(parts, update * 1.0001)
                self.assertLess(update + row["timing_s/ref"] + row["timing_s/gen"],
                                row["timing_s/step"])

    def test_policy_metrics_are_verls(self):
        baseline, whitened_steps = self.reference("baseline"), 0
        for number, row, samples in self.steps("baseline"):
            whitened(samples)
            tokens = [s.advantage for s in samples for _ in range(s.loss_tokens)]
            logprobs = [s.of_loss_tokens(s.logprobs) for s in samples]
            recomputed, entropies = self.forward(self.exported("baseline", number - 1), samples[:6])
            for ours, theirs in zip(recomputed, logprobs):
                self.assertEqual(
                    ours, theirs,
                    "the rollout's log-probs are those of the checkpoint before the step")
            for ours, sample in zip(entropies, samples):
                self.assertEqual(ours, sample.of_loss_tokens(sample.entropies))
            reference, _ = self.forward(baseline, samples)
            kl = aggregated(
                samples, [[k3(p, r) for p, r in zip(*pair)] for pair in zip(logprobs, reference)],
                "seq-mean-token-mean")
            pg_loss = aggregated(samples, [[-s.advantage] * s.loss_tokens for s in samples],
                                 "seq-mean-token-mean")
            self.check(row, {
                **self.spread("critic/advantages", tokens), **self.spread("critic/returns", tokens),
                "actor/entropy": aggregated(samples, [s.of_loss_tokens(s.entropies) for s in samples], "seq-mean-token-mean"),
                "actor/kl_loss": kl, "actor/pg_loss": pg_loss, "actor/loss": pg_loss + 0.05 * kl, "actor/kl_coef": 0.05,
                "actor/ppo_kl": 0, "actor/pg_clipfrac": 0, "actor/pg_clipfrac_lower": 0, "actor/lr": 1e-3, "actor/skipped_updates": 0,
                "actor/not_finite_tokens": 0, "rollout/logprob_diff_max": 0, "rollout/logprob_mismatches": 0,
                "training/rollout_probs_diff_max": 0, "training/rollout_probs_diff_std": 0, "rollout_corr/corrected_share": 0})
            self.assertEqual(kl > 1e-6, number > 1,
                             "the policy leaves its reference at the first update")
            whitened_steps += max(map(abs, tokens)) > 1
            self.assertNotAlmostEqual(row["actor/entropy"], row["rollout/entropy"], places=4,
                                      msg="lengths differ")
        self.assertGreater(whitened_steps, 0, "a test that has nothing to whiten")

    def test_updates_are_averaged(self):
        (_, row, samples), = self.steps("twice")
        self.assertEqual([s.tokens for s in samples],
                         [s.tokens for s in self.samples("once", row["step"])])
        grpo(samples)
        logprobs, entropies = self.forward(self.exported("once", 1), samples)
        old = [s.of_loss_tokens(s.logprobs) for s in samples]
        reference, _ = self.forward(self.reference("twice"), samples)
        losses, clipped, lower = [], [], []
        for sample, now, before in zip(samples, logprobs, old):
            losses.append([])
            for p, o in zip(now, before):
                ratio = math.exp(p - o)
                plain, bounded = -sample.advantage * ratio, -sample.advantage * min(
                    max(ratio, 0.8), 1.28)
                loss = max(plain, bounded)
                clipped.append(bounded > plain)
                lower.append(sample.advantage < 0 and loss > -3 * sample.advantage)
                losses[-1].append(
                    min(loss, -3 * sample.advantage) if sample.advantage < 0 else loss)
        first = aggregated(samples, [[-s.advantage] * s.loss_tokens for s in samples], "token-mean")
        kl = aggregated(samples,
                        [[k3(p, r) for p, r in zip(*pair)] for pair in zip(logprobs, reference)],
                        "token-mean")
        ppo_kl = statistics.fmean(o - p for pair in zip(logprobs, old) for p, o in zip(*pair))
        self.assertGreater(abs(ppo_kl), 1e-4, "a test that has nothing to average")
        self.check(row, {
            "actor/ppo_kl": ppo_kl / 2, "actor/pg_clipfrac": statistics.fmean(clipped) / 2,
            "actor/pg_clipfrac_lower": statistics.fmean(lower) / 2,
            "actor/pg_loss": (first + aggregated(samples, losses, "token-mean")) / 2, "actor/kl_loss": kl / 2,
            "actor/entropy": (aggregated(samples, [s.of_loss_tokens(s.entropies) for s in samples], "token-mean") +
                              aggregated(samples, entropies, "token-mean")) / 2}, tolerance=2e-5)

    def test_validation_agrees_with_itself(self):
        for row in (row for row in self.rows["baseline"] if stage_of(row) == "val"):
            self.assertEqual(row["val-core/arithmetic/acc/mean@4"],
                             row["val-aux/arithmetic/reward/mean@4"], "a reward of 0 or 1")
            self.assertEqual(row["val-core/arithmetic/acc/best@4/mean"],
                             row["val-aux/arithmetic/reward/best@4/mean"])
            self.assertLessEqual(row["val-aux/arithmetic/acc/pass@2"],
                                 row["val-core/arithmetic/acc/pass@4"])
            self.assertLessEqual(row["val-core/arithmetic/acc/best@4/mean"],
                                 row["val-core/arithmetic/acc/pass@4"],
                                 "draws with replacement may miss a right sample")

    def test_sft_losses_are_weighted_means(self):
        vocabulary = json.loads(
            (SOURCE / "experiments/quickstart_model/tokenizer.json").read_text())["model"]["vocab"]
        losses = {}  # after so many steps
        ids = self.folder / "ids.json"
        for step in (1, 2, 3):
            model = self.folder / f"rows{step}"
            self.ok("ckpt", "export", self.runs / "rows/checkpoints" / f"step_{step:06}",
                    "--format", "hf", model)
            total = tokens = 0
            for prompt, response, weight in OWN_ROWS:
                ids.write_text(json.dumps([1, *(vocabulary[c] for c in prompt), *(vocabulary[c] for c in response), 2]))
                logprobs = json.loads(
                    self.ok("logprobs", "--model", model, "--ids", ids,
                            "--json").stdout)["logprobs"]
                total -= weight * sum(logprobs[len(prompt):])
                tokens += weight * (len(response) + 1)
            losses[step] = total / tokens
        rows = {row["step"]: row for row in self.rows["rows"]}
        self.assertEqual(list(rows), [0, 1, 2, 3])
        self.check(rows[1], {"train/loss": rows[0]["val/loss"], "val/loss": losses[1]})
        self.check(rows[2],
                   {"train/loss": losses[1], "val/loss": losses[2], "train/loss_tokens": 2 + 3 + 5})
        self.check(rows[3], {"train/loss": losses[2], "val/loss": losses[3], "perf/total_num_tokens": 7 + 8 + 10})

    def documented(self):
        """(pattern, text of the column `when`) of every name in docs/metrics.md."""
        entries = []
        for line in (SOURCE / "docs/metrics.md").read_text(encoding="utf-8").splitlines():
            cells = line.split("|")
            if len(cells) < 6 or not cells[1].strip().startswith("`"):
                continue
            name = cells[1].strip().strip("`")
            names = [name]
            while any("{" in n for n in names):
                names = [n[:m.start()] + choice + n[m.end():] for n in names for m in [re.search(r"\{([^}]*)\}", n)]
                         for choice in m.group(1).split(",")]
            for n in names:
                pattern = re.escape(n).replace("SOURCE", "[^/]+").replace("NAME", "[^/]+")
                entries.append((re.compile(re.sub(r"@[NK]", r"@\\d+", pattern)), cells[2].strip()))
        return entries

    def test_the_documentation_and_the_runs_know_the_same_names(self):
        entries = self.documented()
        self.assertGreater(len(entries), 100)
        unseen = {pattern.pattern for pattern, when in entries if "data.env: external" not in when
                 }  # external_test.py looks for those
        for name, rows in self.rows.items():
            for row in rows:
                stage = stage_of(row)
                for key in row:
                    matching = [(pattern, when) for pattern, when in entries if pattern.fullmatch(key)]
                    self.assertTrue(matching, f"{name}: {key} is not in docs/metrics.md")
                    self.assertTrue(
                        any(stage in re.findall(r"RL|SFT|val", when) for _, when in matching),
                        f"{key} in a line of {stage}")
                    unseen -= {pattern.pattern for pattern, _ in matching}
                if stage == "SFT" and row[
                        "stage_step"] == 0:  # the validation loss before the first step alone
                    continue
                for pattern, when in entries:
                    if re.fullmatch(r"(RL|SFT|val)(, (RL|SFT|val))*",
                                    when) and stage in when.split(", "):
                        self.assertTrue(any(pattern.fullmatch(key) for key in row),
                                        f"{name}: {pattern.pattern} is missing in {stage}")
        # The core variable is acc in these runs.
        self.assertEqual(
            {name for name in unseen if not name.startswith("val\\-core/[^/]+/reward/")}, set(),
            "documented, not written")


if __name__ == "__main__":
    unittest.main()
