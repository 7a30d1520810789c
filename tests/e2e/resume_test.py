"""A run folder is one experiment's: what may change when a run goes on in it, what is another
experiment, and what stays the same."""
import hashlib
import json
import shutil
import struct
import subprocess
import unittest

from harness import BIN, OTHER_ENV, QUICKSTART, SHORT, SOURCE, Case, ScriptedModel, environment, metrics, run

# 2 steps of SFT, 4 of RL, a save after each.
TINY = [*SHORT, "sft.total_training_steps=2", "trainer.save_freq=1", "trainer.max_ckpt_to_keep=10", "trainer.rollout_save_freq=1"]
ROWS = [json.dumps({"question": f"{i}+1?", "answer": f"so #### {i + 1}"}) for i in range(12)]


class Base(Case):
    def setUp(self):
        super().setUp()
        self.run_dir = self.folder / "run"

    def words(self, *options, run_dir=None):
        return ["train", QUICKSTART, f"run_dir={run_dir or self.run_dir}", *TINY, *options]

    def stopped_at_4(self):
        """A run whose first half is done."""
        self.ok(*self.words("trainer.total_training_steps=2"))

    def fails(self, code, *args, says=(), env=None, **kwargs):
        if env is None:
            return super().fails(code, *args, says=says, **kwargs)
        result = subprocess.run([BIN, *map(str, args)], capture_output=True, text=True,
                                env=environment() | env, timeout=120)
        self.assertEqual(result.returncode, code, result.stderr)
        return result

    def contents(self):
        return {path: path.read_bytes() for path in self.run_dir.rglob("*") if path.is_file() and path.name not in ("status.json", ".lock", ".launch.lock")}


class Folder(Base):
    def test_another_experiment_is_an_error_that_names_its_keys(self):
        self.stopped_at_4()
        before = self.contents()
        for change, told in (("seed=5", "seed: 1 -> 5"), ("data.env=constraint", "data.env: arithmetic -> constraint"),
                             ("rollout.n=4", "rollout.n: 8 -> 4"), ("data.train_batch_size=4", "data.train_batch_size: 8 -> 4"),
                             ("data.arithmetic.operation=subtract", "operation: add -> subtract"), ("algorithm.adv_estimator=rloo", "grpo -> rloo"),
                             ("rollout.temperature=0.5", "rollout.temperature: 1 -> 0.5"), ("model.compute_dtype=bf16", "f32 -> bf16"),
                             ("sft.optim.lr=1", "sft.optim.lr: 0.01 -> 1"), ("sft.train_batch_size=8", "sft.train_batch_size: 32 -> 8"),
                             ("experiment_name=other", 'experiment_name: "quickstart" -> "other"')):
            more = OTHER_ENV if change.startswith("data.env=") else []
            result = self.fails(
                2, *self.words(*more, change),
                says=["holds another experiment, now at step 4", told, "trainer.resume="])
            self.assertEqual(
                len([line for line in result.stderr.splitlines() if line.startswith("orrery:")]), 1,
                result.stderr)
        self.fails(2, *self.words("seed=5", "rollout.n=4"),
                   says=["rollout.n: 8 -> 4, seed: 1 -> 5"])
        self.fails(2, *self.words("data.reward_rule=gsm8k"), says=["data.reward_rule"])
        self.fails(2, *self.words("sft.total_training_steps=3"), says=["past SFT"])
        self.fails(2, *self.words("sft.total_training_steps=1"),
                   says=["sft.total_training_steps: 2 -> 1"])
        self.fails(2, *self.words("trainer.total_training_steps=1"),
                   says=["is at RL step 2", "trainer.total_training_steps is 1"])
        self.fails(2, "launch", "-n", "1",
                   *self.words("seed=5")[1:], says=["seed: 1 -> 5", "no restart"])
        self.fails(2, *self.words("seed=5"), ranks=2, says=["seed: 1 -> 5"])
        self.assertEqual(
            {path for path, text in self.contents().items() if before.get(path) != text}, set(),
            "nothing was written")

    def test_what_may_change(self):
        self.stopped_at_4()
        free = ["cluster.threads=2", "trainer.save_freq=0", "trainer.max_ckpt_to_keep=1", "trainer.rollout_save_freq=2", "rollout.max_num_seqs=3",
                "rollout.kv_cache_gb=0.1", "actor.ppo_max_token_len_per_gpu=100", "cluster.hang_warn_s=9"]
        told = ["actor.optim.lr=1e-6", "actor.entropy_coeff=0.01", "trainer.total_training_steps=5", "rollout.val_n=2", "rollout.val_temperature=1"]
        result = self.ok(*self.words(*free, *told), ranks=2)
        for word in told:
            self.assertIn(word.split("=")[0] + ":", result.stderr)
        for word in free:
            self.assertNotIn(word.split("=")[0], result.stderr)
        # A held-out score of before was taken otherwise: it is not set beside the one of after.
        self.assertIn("held-out scores from before are of another measurement", result.stderr)
        self.assertNotIn("held-out accuracy", result.stdout)
        self.assertEqual([row["step"] for row in metrics(self.run_dir) if row["stage"] == "grpo"],
                         [3, 4, 5, 6, 7])

    def test_a_complete_run(self):
        self.ok(*self.words())
        result = self.ok(*self.words())
        self.assertIn("nothing to do", result.stderr)
        self.assertIn("held-out accuracy: before", result.stdout)
        self.fails(2, *self.words("seed=5"), says=["holds another experiment", "seed: 1 -> 5"])
        # What may change would change nothing any more: "nothing to do" and the accuracy of the old
        # value would mislead.
        self.fails(2, *self.words("actor.optim.lr=1e-6"),
                   says=["complete", "actor.optim.lr: 1e-04 -> 1e-06", "would have no effect"])
        self.fails(2, *self.words("rollout.val_n=4", "rollout.val_temperature=1"),
                   says=["complete", "rollout.val_n: 1 -> 4"])
        self.ok(*self.words("cluster.threads=2", "trainer.save_freq=3"))
        self.assertIn("trainer.total_training_steps: 4 -> 5",
                      self.ok(*self.words("trainer.total_training_steps=5")).stderr)
        # SFT alone has the same folder.
        sft = self.folder / "sft"
        self.ok(*self.words("trainer.total_training_steps=0", run_dir=sft))
        self.fails(2, *self.words("trainer.total_training_steps=0", "seed=5", run_dir=sft),
                   says=["seed: 1 -> 5"])
        self.fails(2, *self.words("trainer.total_training_steps=0", "sft.optim.lr=1", run_dir=sft),
                   says=["sft.optim.lr"])
        self.assertIn(
            "sft.total_training_steps: 2 -> 3",
            self.ok(*self.words("trainer.total_training_steps=0", "sft.total_training_steps=3",
                                run_dir=sft)).stderr)

    def test_another_folder_begins_another_experiment(self):
        self.ok(*self.words())
        other = self.folder / "other"
        begin = [f"trainer.resume={self.run_dir}", "seed=5", "data.arithmetic.operation=subtract"]
        self.fails(
            2, *self.words(*begin, run_dir=other),
            says=["would have no effect", "seed: 1 -> 5", "raise trainer.total_training_steps"])
        self.fails(2, *self.words(*begin, "trainer.total_training_steps=3", run_dir=other),
                   says=["is at RL step 4"])
        result = self.ok(*self.words(*begin, "trainer.total_training_steps=5", run_dir=other))
        self.assertIn("seed: 1 -> 5", result.stderr)
        self.assertNotIn("held-out accuracy", result.stdout)
        # From now on it is an experiment of its own.
        self.fails(2, *self.words(*begin[:1], "trainer.total_training_steps=6", run_dir=other),
                   says=["seed: 5 -> 1"])
        self.ok(*self.words(*begin, "trainer.total_training_steps=6", run_dir=other))

    def test_a_reference_policy_is_the_one_that_rl_began_from(self):
        self.stopped_at_4()
        more = ["trainer.total_training_steps=3", "actor.kl_loss_coef=0.1"]
        for ranks in (0, 2):
            self.fails(2, *self.words(*more), ranks=ranks,
                       says=["actor.kl_loss_coef is 0.1 but was 0 when RL began"])
        other = self.folder / "other"
        more = [*more, f"trainer.resume={self.run_dir}"]
        self.ok(*self.words(*more, run_dir=other), ranks=2)
        self.assertTrue((other / "reference/model.safetensors").exists())
        self.ok(*self.words(*more, "trainer.total_training_steps=4", run_dir=other))
        whole = self.folder / "whole"
        self.ok(*self.words(*more, "trainer.total_training_steps=4", run_dir=whole))
        self.assertEqual(self.checkpoint_hash(other), self.checkpoint_hash(whole))

    def test_whatever_refuses_comes_before_anything_is_written(self):
        # Killed 3 steps after a save: rollouts and metrics of these would go if it went on. The steps are slow, so
        # that the save, which is in the background, is there before.
        self.fails(-9, *self.words("trainer.save_freq=2", "trainer.total_training_steps=5", "trainer.tensorboard=true"),
                   env={"ORRERY_FAULT": "engine.step:slow;learner.update:crash@6"})
        before = self.contents()
        self.assertIn("step_000005.h5", {path.name for path in before})
        self.assertIn("step_000004", {path.parent.name for path in before})
        more = ["trainer.save_freq=2", "trainer.total_training_steps=5"]
        config = self.folder / "model"
        shutil.copytree(SOURCE / "experiments/quickstart_model", config)
        said = json.loads((config / "config.json").read_text())
        (config / "config.json").write_text(json.dumps(said | {"rope_theta": 77.0}))
        for options, told in (([*more, "actor.kl_loss_coef=0.1"], "actor.kl_loss_coef is 0.1 but was 0"),
                              ([*more, "actor.kl_loss_coef=0.1", "actor.optim.lr=1e-5"], "actor.kl_loss_coef is 0.1 but was 0"),
                              ([*more, "rollout.kv_cache_gb=1e-6"], "rollout.kv_cache_gb"),
                              ([*more, f"model.path={config}"], "config.json describes another model"),
                              ([*more, f"model.path={self.folder / 'none'}"], "none"),
                              ([*more, "seed=5"], "seed: 1 -> 5"), ([*more, "trainer.resume=off"], "trainer.resume is off"),
                              ([*more, f"trainer.resume={self.folder}"], "trainer.resume"),
                              (["trainer.total_training_steps=1"], "is at RL step 2"), ([*more, "nonsense=1"], "nonsense")):
            for ranks in (0, 2):
                result = self.fails(2, *self.words(*options), ranks=ranks, says=[told])
                self.assertNotIn("goes on", result.stderr.replace("put that back to go on", ""),
                                 options)
                self.assertNotIn("resumed from", result.stderr)
                self.assertEqual(self.contents(), before, options)
        # A reference that is damaged.
        kept = self.run_dir / "reference"
        kept.mkdir()
        (kept / "model.safetensors").write_bytes(b"x" * 9)
        before = self.contents()
        result = run(*self.words(*more, "actor.kl_loss_coef=0.1"))
        self.assertIn(result.returncode, (1, 2), result.stderr)
        self.assertEqual(self.contents(), before)
        shutil.rmtree(kept)
        self.ok(*self.words(*more))

    def test_nor_does_a_refusal_in_the_middle_of_sft_write(self):
        text = self.folder / "t.txt"
        text.write_text("12+13=25 " * 3)
        options = [f"sft.text_files=[{text}]", "sft.total_training_steps=6", "trainer.save_freq=2"]
        # In the second save, which waits for the first.
        self.fails(-9, *self.words(*options), env={"ORRERY_FAULT": "checkpoint.copy:crash@2"})
        before = self.contents()
        text.unlink()
        self.fails(2, *self.words(*options), says=["t.txt"])
        text.write_text("12+13=26 " * 3)
        self.fails(2, *self.words(*options), says=["t.txt"])
        self.assertEqual(self.contents(), before)

    def test_a_folder_without_checkpoints(self):
        self.fails(-9, *self.words("trainer.save_freq=-1"),
                   env={"ORRERY_FAULT": "learner.update:crash@4"})
        self.fails(
            2, *self.words("seed=5"),
            says=["metrics and rollouts of another experiment, without checkpoints: seed: 1 -> 5"])
        self.ok(*self.words())
        # A run that had not come to anything stands in nobody's way.
        early = self.folder / "early"
        self.fails(-9, *self.words(run_dir=early), env={"ORRERY_FAULT": "learner.update:crash@1"})
        self.ok(*self.words("seed=5", run_dir=early))

    def test_the_default_folder_is_the_experiments(self):
        def train(*options):
            return subprocess.run([
                BIN, "train", QUICKSTART, *TINY, "sft.total_training_steps=1",
                "trainer.total_training_steps=0", *options
            ], capture_output=True, text=True, env=environment(), cwd=self.folder, timeout=120)
        self.assertEqual(train().returncode, 0)
        self.assertEqual(train("experiment_name=b/second", "seed=2").returncode, 0)
        self.assertTrue((self.folder / "runs/quickstart/metrics.jsonl").exists())
        self.assertTrue((self.folder / "runs/b/second/metrics.jsonl").exists())
        result = train("seed=2")
        self.assertEqual(result.returncode, 2)
        self.assertIn("run_dir runs/quickstart holds another experiment", result.stderr)
        for name in ("../x", "/x", ".."):
            result = train(f"experiment_name={name}")
            self.assertEqual(result.returncode, 2)
            self.assertIn("give run_dir", result.stderr)


class Data(Base):
    def setUp(self):
        super().setUp()
        self.train, self.val = self.folder / "train.jsonl", self.folder / "val.jsonl"
        for path in (self.train, self.val):
            path.write_text("\n".join(ROWS) + "\n")
        self.options = [*OTHER_ENV, "data.env=gsm8k", f"data.train_files=[{self.train}]", f"data.val_files=[{self.val}]", "data.max_prompt_length=16",
                        "sft.total_training_steps=0", "trainer.total_training_steps=2"]

    def test_a_file_that_changed_is_an_error(self):
        self.ok(*self.words(*self.options))
        more = [*self.options, "trainer.total_training_steps=3"]
        for path, key in ((self.train, "data.train_files[0]"), (self.val, "data.val_files[0]")):
            path.write_text("\n".join(ROWS[::-1]) + "\n")
            for ranks in (0, 2):
                self.fails(
                    2, *self.words(*more), ranks=ranks,
                    says=["holds another experiment", f"{key}: {path} held sha256:", "now sha256:"])
            self.fails(2, *self.words(*self.options),
                       says=[key])  # complete: still not the run that the command describes
            self.fails(2, "launch", "-n", "1", *self.words(*more)[1:], says=[key, "no restart"])
            path.write_text("\n".join(ROWS) + "\n")
        moved = self.folder / "moved.jsonl"
        self.train.rename(moved)
        result = self.ok(*self.words(*more, f"data.train_files=[{moved}]"))
        self.assertNotIn("train_files", result.stderr)
        self.fails(2, *self.words(*more, f"data.train_files=[{moved},{self.val}]"),
                   says=["data.train_files[1]", "is new"])
        self.train.write_text("\n".join(ROWS[:9]) + "\n")
        self.assertIn(
            "data.train_files[0]",
            self.ok(*self.words(*more, f"trainer.resume={self.run_dir}",
                                "trainer.total_training_steps=4", run_dir=self.folder /
                                "other")).stderr)

    def test_texts_and_model_folders(self):
        model, text = self.folder / "model", self.folder / "t.txt"
        shutil.copytree(SOURCE / "experiments/quickstart_model", model)
        text.write_text("12+13=25 " * 3)
        options = [f"model.path={model}", f"sft.text_files=[{text}]", "sft.total_training_steps=2", "trainer.total_training_steps=0"]
        self.ok(*self.words(*options))
        more = [*options, "sft.total_training_steps=3"]
        text.write_text("12+13=26 " * 3)
        self.fails(2, *self.words(*more), says=[f"sft.text_files[0]: {text} held"])
        text.write_text("12+13=25 " * 3)
        tokenizer = model / "tokenizer_config.json"
        kept = tokenizer.read_text()
        tokenizer.write_text(json.dumps(json.loads(kept) | {"chat_template": "x"}))
        self.fails(2, *self.words(*more), says=["model.path/tokenizer_config.json"])
        tokenizer.write_text(kept)
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config |
                                                      {"rope_theta": 77.0}))  # the same shapes
        self.fails(2, *self.words(*more),
                   says=["model.path: its config.json describes another model"])
        (model / "config.json").write_text(json.dumps(config | {"transformers_version": "9"}))
        self.ok(*self.words(*more))

    def test_weights_that_training_began_from(self):
        model = ScriptedModel(self.folder / "model")
        model.default = "<eos>"
        model.write(eos_token="<eos>")
        options = [f"model.path={model.folder}", "model.from_scratch=false", "sft.total_training_steps=0", "trainer.total_training_steps=1"]
        self.ok(*self.words(*options))
        more = [*options, "trainer.total_training_steps=2"]
        model.say("7", "8")
        model.write(eos_token="<eos>")
        self.fails(2, *self.words(*more), says=["model.path/weights: weights held sums:"])

    def test_a_checkpoint_without_digests_resumes_with_a_line(self):
        self.ok(*self.words(*self.options))
        folder = sorted((self.run_dir / "checkpoints").glob("step_*"))[-1]
        manifest = json.loads((folder / "manifest.json").read_text())
        self.assertEqual({entry["key"] for entry in manifest["inputs"]},
                         {"data.train_files", "data.val_files", "model.path"})
        del manifest["inputs"]
        text = json.dumps(manifest)
        (folder / "manifest.json").write_text(text)
        (folder / "manifest.sha256"
        ).write_text(f"{hashlib.sha256(text.encode()).hexdigest()}  manifest.json\n")
        self.ok("ckpt", "verify", folder)
        result = self.ok(*self.words(*self.options, "trainer.total_training_steps=3"))
        self.assertIn("is of an older version of the program, which did not note what the data",
                      result.stderr)


class Older(Base):
    """A run of a program that numbered rollouts by RL's steps alone, noted no inputs, and gave
    TensorBoard no zeros."""

    def test_its_rollouts_and_events_are_brought_up_to_date(self):
        whole = self.folder / "whole"
        more = ["trainer.save_freq=2", "trainer.tensorboard=true", "trainer.total_training_steps=6"]
        self.ok(*self.words(*more, run_dir=whole))
        # Saved at step 4 (grpo 2), killed in step 6 (grpo 4).
        # Slowly, so that the save is on the disk by then.
        self.fails(-9, *self.words(*more),
                   env={"ORRERY_FAULT": "engine.step:slow;learner.update:crash@6"})
        folder = self.run_dir / "checkpoints/step_000004"
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest["inputs"], manifest["state"]["start_largest"]
        text = json.dumps(manifest)
        (folder / "manifest.json").write_text(text)
        (folder / "manifest.sha256"
        ).write_text(f"{hashlib.sha256(text.encode()).hexdigest()}  manifest.json\n")
        rollouts = self.run_dir / "rollouts"
        self.assertEqual(sorted(path.name for path in rollouts.glob("step_*.h5")),
                         [f"step_{step:06}.h5" for step in (3, 4, 5)])
        for path in sorted(rollouts.glob("step_*.h5")):
            self.as_an_older_program(path, 2)
        for path in (self.run_dir / "tensorboard").iterdir():
            path.write_bytes(path.read_bytes()[:200])  # what an older program left out of it
        result = self.ok(*self.words(*more))
        self.assertIn("the rollouts of 3 step(s) have other names now", result.stderr)
        self.assertIn("removed the rollouts of 1 step(s) after step 4", result.stderr)
        self.assertEqual(sorted(path.name for path in rollouts.iterdir()),
                         sorted(path.name for path in (whole / "rollouts").iterdir()))
        for path in sorted((whole / "rollouts").glob("*.h5")):
            shown = [json.loads(self.ok("rollouts", at, "--json").stdout.splitlines()[0]) for at in (path, rollouts / path.name)]
            self.assertEqual(*shown)
        self.check_tensorboard(self.run_dir)
        self.assertEqual(self.checkpoint_hash(self.run_dir), self.checkpoint_hash(whole))

    def as_an_older_program(self, path, sft_steps):
        """Its name, and its attributes: no stage_step, and step counts RL's."""
        data = path.read_bytes()
        step = int(path.stem.split("_")[1])
        at = data.index(b"stage_step\0")
        data = data[:at] + b"old_sstep_\0" + data[at + 11:]
        begin = 0
        for _ in range(data.count(b"step\0")):
            begin = data.index(b"step\0", begin) + 5
            value = data.find(struct.pack("<Q", step), begin, begin + 100)
            if value >= 0:
                data = data[:value] + struct.pack("<Q", step - sft_steps) + data[value + 8:]
        other = path.with_name(f"step_{step - sft_steps:06}.h5")
        path.unlink()
        (path.parent / (path.name + ".sha256")).unlink()
        other.write_bytes(data)
        (other.parent /
         (other.name + ".sha256")).write_text(f"{hashlib.sha256(data).hexdigest()}  {other.name}\n")

    def test_events_written_off_and_on(self):
        steps = ["trainer.total_training_steps=1"]
        self.ok(*self.words(*steps, "trainer.tensorboard=true"))
        for total, on in ((2, False), (3, True), (4, False), (5, False), (6, True)):
            self.ok(*self.words(f"trainer.total_training_steps={total}",
                                f"trainer.tensorboard={str(on).lower()}"))
            if on:
                self.check_tensorboard(self.run_dir, total)


class Versions(Base):
    def test_they_are_the_weights_whatever_happened_to_the_run(self):
        whole = self.folder / "whole"
        self.ok(*self.words("trainer.save_freq=2", run_dir=whole))
        # Killed between saves, stopped, resumed on other layouts.
        self.fails(-9, *self.words("trainer.save_freq=2"),
                   env={"ORRERY_FAULT": "learner.update:crash@6"})
        self.ok(*self.words("trainer.total_training_steps=3"), ranks=2)
        self.ok(*self.words("cluster.placement=split", "trainer.save_freq=2"), ranks=2)
        self.assertEqual(self.checkpoint_hash(self.run_dir), self.checkpoint_hash(whole))
        for step in range(1, 5):
            content = [(folder / f"rollouts/step_{2 + step:06}.h5").read_bytes()
                       for folder in (whole, self.run_dir)]
            self.assertEqual(
                *content,
                f"step {step}: equal samples give equal files, which hold weight_versions")
            # 64 samples of at least one token, all drawn from the weights of the checkpoint before:
            # 2 steps of SFT and step - 1 of RL.
            self.assertIn(struct.pack("<Q", 2 + step - 1) * 64, content[0])


if __name__ == "__main__":
    unittest.main()
