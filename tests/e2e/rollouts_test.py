"""Answers can be looked at: what a run keeps of its samples, `orrery rollouts` that shows them and
looks among them, `orrery eval --out`."""
import json
import os
import shutil
import subprocess
import unittest

from harness import BIN, Case, ScriptedModel, command, environment

EVIL = "\x1b[2J\x1b]0;owned\x07\u009b31m\u202ered\r\x7f"
# prompt, what the model says to it, the row's truth
TRAIN = [("<q0>", "#### 42", "42"), ("<q1>", "#### 7", "8"), ("<q2>", EVIL, "5")]
VAL = [("<v0>", "so #### 1", "1"), ("<v1>", "two\nlines\t#### 3", "2"), ("<v2>", "#### 9", "9"),
       ("<v3>", "nothing", "4")]
KEYS = {"step", "stage", "stage_step", "prompt_index", "sample_index", "data_source", "reward", "reward_extra", "finish_reason",
        "prompt_tokens", "tokens", "logprobs", "entropies", "loss_mask", "response",  # as they were before these
        "prompt", "truth", "file", "row", "prompt_length", "response_length"}


class Base(Case):
    def setUp(self):
        super().setUp()
        words = list(
            dict.fromkeys(
                [text for prompt, response, _ in TRAIN + VAL for text in (prompt, response)]))
        model = ScriptedModel(self.folder / "model", special=["<eos>"], words=words)
        for prompt, response, _ in TRAIN + VAL:
            model.say(prompt, response)
        model.default = "<eos>"
        model.write(eos_token="<eos>")
        for name, rows in (("train.jsonl", TRAIN), ("val.jsonl", VAL)):
            lines = [json.dumps({"prompt": prompt, "reward_model": {"ground_truth": truth}}) for prompt, _, truth in rows]
            (self.folder / name).write_text("\n\n".join(lines) +
                                            "\n")  # rows stand in lines 1, 3, 5, ...
        self.config = self.folder / "config.yaml"
        self.config.write_text(f"""
model: {{path: model}}
data: {{env: gsm8k, train_files: [train.jsonl], val_files: [val.jsonl], train_batch_size: {len(TRAIN)}, max_prompt_length: 16,
        max_response_length: 4, shuffle: false}}
rollout: {{n: 2, kv_cache_gb: 0.01}}
actor: {{optim: {{lr: 0}}}}
trainer: {{total_training_steps: 2, save_freq: -1, tensorboard: false, test_freq: 1}}
cluster: {{threads: 1}}
""")
        self.run_dir = self.folder / "run"

    def train(self, *options, run_dir=None, **kwargs):
        return self.ok("train", self.config, f"run_dir={run_dir or self.run_dir}", *options,
                       **kwargs)

    def names(self, run_dir=None):
        return sorted(path.name for path in ((run_dir or self.run_dir) / "rollouts").glob("*.h5"))

    def shown(self, *args):
        return [json.loads(line) for line in self.ok("rollouts", *args, "--json").stdout.splitlines()]

    def one_error(self, code, *args, says=()):
        result = self.fails(code, *args, says=says)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        self.assertEqual(result.stdout, "")
        return result


class Rollouts(Base):
    def test_what_a_run_keeps(self):
        self.train()
        self.assertEqual(self.names(), ["step_000001.h5", "step_000002.h5", "val_step_000000.h5", "val_step_000001.h5", "val_step_000002.h5"])
        for step in (1, 2):
            rows = self.shown(self.run_dir / f"rollouts/step_{step:06}.h5")
            self.assertEqual([(row["prompt_index"], row["sample_index"]) for row in rows],
                             [(len(TRAIN) * (step - 1) + index, sample)
                              for index in range(len(TRAIN))
                              for sample in range(2)])
            for row in rows:
                index = row["prompt_index"] % len(TRAIN)
                prompt, response, truth = TRAIN[index]
                self.assertEqual(set(row), KEYS)
                self.assertEqual((row["prompt"], row["response"], row["truth"]),
                                 (prompt, response, truth))
                self.assertEqual((row["file"], row["row"]),
                                 (str(self.folder / "train.jsonl"), 2 * index + 1))
                self.assertEqual((row["step"], row["stage"], row["stage_step"]),
                                 (step, "grpo", step))
                self.assertEqual(row["reward"], 1 if index == 0 else 0)
                self.assertEqual(row["response_length"], len(row["tokens"]))
        for step in (0, 1, 2):
            rows = self.shown(self.run_dir / f"rollouts/val_step_{step:06}.h5")
            self.assertEqual(
                [(row["prompt"], row["response"], row["truth"], row["row"]) for row in rows],
                [(*texts, 2 * index + 1) for index, texts in enumerate(VAL)])
            self.assertEqual(
                {(row["step"], row["stage"], row["stage_step"], row["file"]) for row in rows},
                {(step, "val", step, str(self.folder / "val.jsonl"))})
            self.assertEqual([row["reward"] for row in rows], [1, 0, 1, 0])
        # Another layout keeps the same bytes.
        self.train(run_dir=self.folder / "pair", ranks=2)
        self.assertEqual(self.names(self.folder / "pair"), self.names())
        for name in self.names():
            self.assertEqual((self.folder / "pair/rollouts" / name).read_bytes(),
                             (self.run_dir / "rollouts" / name).read_bytes(), name)

    def test_frequency(self):
        self.train("trainer.rollout_save_freq=2")
        self.assertEqual(
            self.names(),
            ["step_000002.h5", "val_step_000000.h5", "val_step_000001.h5", "val_step_000002.h5"])
        self.train("trainer.rollout_save_freq=0", run_dir=self.folder / "none")
        self.assertFalse((self.folder / "none/rollouts").exists())
        self.train("trainer.test_freq=0", run_dir=self.folder / "train_only")
        self.assertEqual(self.names(self.folder / "train_only"),
                         ["step_000001.h5", "step_000002.h5"])

    def test_filters(self):
        self.train()
        run_dir = self.run_dir

        def steps(*args):
            return [(row["stage"], row["step"]) for row in self.shown(run_dir, *args)]

        def prompts(*args):
            return [row["prompt"] for row in self.shown(run_dir / "rollouts/step_000001.h5", *args)]

        order = [("val", 0), ("grpo", 1), ("val", 1), ("grpo", 2), ("val", 2)]
        everything = [key for key in order for _ in range(4 if key[0] == "val" else 6)]
        self.assertEqual(steps(), everything)
        self.assertEqual(self.shown(run_dir / "rollouts"), self.shown(run_dir))
        self.assertEqual(steps("--limit", "12"), everything[:12])
        self.assertEqual(steps("--limit=0"), everything)
        for text, wanted in (("1", {1}), ("0..1", {0, 1}), ("1..", {1, 2}), ("..1", {0, 1}),
                             ("2..2", {2}), ("7", set())):
            self.assertEqual(steps("--step", text), [key for key in everything if key[1] in wanted],
                             text)
        self.assertEqual(steps("--stage", "val"), [key for key in everything if key[0] == "val"])
        self.assertEqual(steps("--stage", "grpo", "--step", "2"), [("grpo", 2)] * 6)
        self.assertEqual(steps("--prompt-index", "5"), [("grpo", 2)] * 2)
        for text, wanted in (("0", [1, 2]), ("1", [0]), ("=1", [0]), ("==0", [1, 2]), ("!=0", [0]),
                             ("<0.5", [1, 2]), ("<= 0", [1,
                                                         2]), (">0", [0]), (">=1", [0]), (">1", []),
                             ("<0", []), ("-0", [1, 2]), ("+1", [0]), ("-1", []), ("1e0", [0])):
            self.assertEqual(prompts("--reward", text),
                             [f"<q{index}>" for index in wanted for _ in range(2)], text)
            self.assertEqual(prompts(f"--reward={text}"), prompts("--reward", text), text)
        for text, wanted in (("q1", [1]), ("#### ", [0, 1]), ("42", [0]), ("8", [1]), ("<q", [0, 1, 2]), ("\x1b[2J", [2]), ("Q1", []),
                             (".*", []), ("[a, b]", []), ("-5", [])):
            self.assertEqual(prompts("--grep", text),
                             [f"<q{index}>" for index in wanted for _ in range(2)], text)
        self.assertEqual(prompts("--grep", "####", "--reward", "0", "--limit", "1"), ["<q1>"])
        two = [run_dir / "rollouts/step_000002.h5", run_dir / "rollouts/step_000001.h5"]
        self.assertEqual([row["step"] for row in self.shown(*two)], [2] * 6 + [1] * 6)
        every = sorted(
            (run_dir / "rollouts").iterdir())  # digests too, as a shell's rollouts/* has them
        self.assertEqual(len(every), 10)
        self.assertEqual(len(self.shown(*every)), len(everything))
        for args in (["--reward", ">7"], ["--step", "99"], ["--grep", "zebra"], ["--stage", "val", "--prompt-index", "77"]):
            for more in ([], ["--json"]):
                result = self.ok("rollouts", run_dir, *args, *more)
                self.assertEqual(result.stdout, "")
                self.assertRegex(
                    result.stderr,
                    r"^orrery: no sample matches; \d+ in \d of 5 file\(s\) were looked at\n$")

    def test_filters_that_mean_nothing(self):
        self.train()
        for args, says in ((["--reward", "good"], "--reward \"good\""), (["--reward", "<"], "--reward \"<\""), (["--reward", "nan"], "nan"),
                           (["--reward", ""], "--reward"), (["--reward="], "--reward"), (["--reward", "0.5x"], "0.5x"), (["--reward", "1,2"], "1,2"),
                           (["--reward", "=<1"], "=<1"), (["--reward", "1e99"], "1e99"),
                           (["--step", "a"], "--step \"a\""), (["--step", "3..1"], "3..1"), (["--step", ".."], "--step"), (["--step", "-1"], "-1"),
                           (["--step", "1...2"], "1...2"), (["--step", "1-2"], "1-2"), (["--step", "99999999999999999999"], "9999"),
                           (["--step", "1.5"], "1.5"), (["--grep", ""], "--grep is empty"), (["--grep="], "--grep is empty"),
                           (["--prompt-index", "-1"], "--prompt-index"), (["--prompt-index", "x"], "--prompt-index"),
                           (["--stage", "sft"], "--stage sft: give grpo or val"), (["--limit", "-1"], "--limit"), (["--regex", "x"], "--regex")):
            self.one_error(2, "rollouts", self.run_dir, *args, says=[says])

    def test_text_for_people(self):
        self.train()
        text = self.ok("rollouts", self.run_dir, "--step", "1").stdout
        file = self.folder
        self.assertIn(f"step 1 (grpo 1) | prompt 0 | sample 1 | reward 1 | stop | 2 tokens | gsm8k | {file}/train.jsonl:1\n"
                      "  parts     correct 1, format 1\n  truth     42\n  prompt    <q0>\n  response  #### 42\n\n", text)
        self.assertIn(f"validation at step 1 (grpo 1) | prompt 1 | sample 0 | reward 0 | stop | 2 tokens | gsm8k | {file}/val.jsonl:3\n"
                      "  parts     correct 0, format 1\n  truth     2\n  prompt    <v1>\n  response  two\n            lines\t#### 3\n\n", text)
        # A response that would clear the screen and name the window is seen, and does nothing.
        self.assertIn("  response  \\x1b[2J\\x1b]0;owned\\x07\\u009b31m\\u202ered\\r\\x7f\n", text)
        for output in (text, self.ok("rollouts", self.run_dir, "--json").stdout):
            self.assertEqual(
                [c for c in output if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160], [])

    def test_a_reader_that_goes_away(self):
        self.train()
        for more in ("", "--json"):
            result = subprocess.run([
                "bash", "-c",
                f"for i in 1 2 3; do {BIN} rollouts {self.run_dir} {more} | head -1; done"
            ], capture_output=True, text=True, env=environment(), timeout=60)
            self.assertEqual((result.returncode, result.stderr, len(result.stdout.splitlines())),
                             (0, "", 3))

    def test_copies(self):
        self.train()
        original = self.run_dir / "rollouts/step_000001.h5"
        copies = self.folder / "copies"
        copies.mkdir()
        copy = copies / "taken home.h5"
        shutil.copy(original, copy)
        result = self.ok("rollouts", copy)
        self.assertEqual(result.stdout, self.ok("rollouts", original).stdout)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        self.assertIn("taken home.h5 has no .sha256 beside it", result.stderr)
        # A folder of copies: one warning.
        for name in ("step_000001.h5", "val_step_000001.h5", "step_000002.h5"):
            shutil.copy(self.run_dir / "rollouts" / name, copies)
        result = self.ok("rollouts", copies, "--json")
        self.assertEqual(len(result.stdout.splitlines()), 16)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        self.assertIn("and 2 more file(s) have no .sha256", result.stderr)
        # A wrong digest stays an error, of that file; the others are shown.
        bad = copies / "step_000002.h5"
        digest = copies / "step_000002.h5.sha256"
        digest.write_text("0" * 64 + "  step_000002.h5\n")
        self.one_error(
            1, "rollouts", bad,
            says=["step_000002.h5 is damaged: its SHA-256 is not the one in step_000002.h5.sha256"])
        result = self.fails(1, "rollouts", copies, "--json", says=["is damaged"])
        self.assertEqual(len(result.stdout.splitlines()), 10)
        digest.write_text("")
        self.fails(1, "rollouts", bad, says=["is damaged"])
        digest.unlink()
        # Damage without a digest: never a crash.
        data = original.read_bytes()
        for place in (0, 8, 40, 100, 500, 800, 1000, 2000, len(data) // 2):
            bad.write_bytes(data[:place] + bytes(200) + data[place + 200:])
            result = subprocess.run(command("rollouts", bad, "--json"), capture_output=True,
                                    text=True, env=environment(), timeout=60)
            self.assertIn(result.returncode, (0, 1), f"{place}: {result.stderr}")
        for size in (0, 1, 100, 1000, len(data) // 2, len(data) - 1000):
            bad.write_bytes(data[:size])
            self.fails(1, "rollouts", bad, says=["step_000002.h5"])

    def test_what_is_no_rollouts(self):
        self.train("trainer.save_freq=1")
        checkpoint = self.run_dir / "checkpoints/step_000002"
        empty = self.folder / "empty"
        empty.mkdir()
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        for path, says in ((self.folder / "absent.h5", "absent.h5: no such file or folder"),
                           (empty, "holds no rollouts"), (checkpoint,
                                                          "is a checkpoint, which holds weights"),
                           (self.run_dir / "checkpoints",
                            "holds no rollouts"), (self.folder / "model", "holds no rollouts"),
                           ("/dev/null", "not a regular file"), (pipe, "not a regular file"),
                           ("", "no such file")):
            self.one_error(2, "rollouts", path, says=[says])
        self.fails(2, "rollouts", says=["PATH is missing"])
        slice_of_weights = next(checkpoint.glob("*.h5"))
        for path, says in ((slice_of_weights, "is not a rollouts file"), (self.folder / "val.jsonl", "not an HDF5 file"),
                           (self.run_dir / "rollouts/step_000001.h5.sha256", "not an HDF5 file")):
            self.fails(1, "rollouts", path, says=[says])

    def test_later_ones_go_when_a_run_resumes(self):
        whole = self.folder / "whole"
        options = ["trainer.total_training_steps=4", "trainer.save_freq=2"]
        self.train(*options, run_dir=whole)
        args = command("train", self.config, f"run_dir={self.run_dir}", *options)
        result = subprocess.run(
            args, capture_output=True, text=True, timeout=120,
            env=environment() | {"ORRERY_FAULT": "engine.step:slow;learner.update:crash@4"})
        self.assertEqual(result.returncode, -9, result.stderr)
        self.assertEqual(self.names(), ["step_000001.h5", "step_000002.h5", "step_000003.h5", *(f"val_step_00000{i}.h5" for i in range(4))])
        left = self.run_dir / "rollouts/val_step_000003.h5.sha256.tmp"  # of a kill
        left.write_text("half a li")
        result = self.train(*options)
        self.assertIn("removed the rollouts of 1 step(s) after step 2, which come again",
                      result.stderr)
        self.assertEqual(sorted(os.listdir(self.run_dir / "rollouts")),
                         sorted(os.listdir(whole / "rollouts")))
        for name in self.names():
            self.assertEqual((self.run_dir / "rollouts" / name).read_bytes(),
                             (whole / "rollouts" / name).read_bytes(), name)

    def test_what_cannot_be_written_costs_only_itself(self):
        args = command("train", self.config, f"run_dir={self.run_dir}")
        result = subprocess.run(args, capture_output=True, text=True, timeout=120,
                                env=environment() | {"ORRERY_FAULT": "rollout.write:error@3"})
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn(
            "the rollouts of step 1 (grpo 1) are not kept, training goes on"
            if "val_step_000001.h5" in self.names() else
            "the rollouts of the validation at step 1 (grpo 1) are not kept, training goes on",
            result.stderr)
        self.assertEqual(len(self.names()), 4)
        (self.folder / "blocked").mkdir()
        (self.folder / "blocked/rollouts").write_text("a file")
        result = self.train(run_dir=self.folder / "blocked")
        self.assertEqual(result.stderr.count("are not kept, training goes on"), 5)


class Evaluation(Base):
    def evaluate(self, *args, **kwargs):
        return self.ok("eval", self.config, *args, **kwargs)

    def test_out(self):
        out = self.folder / "samples.jsonl"
        out.write_text("of an earlier evaluation")
        result = self.evaluate("--out", out)
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        self.assertEqual(len(rows), len(VAL))
        for index, ((prompt, response, truth), row) in enumerate(zip(VAL, rows)):
            right = index in (0, 2)
            self.assertEqual(row, {
                "prompt_index": index, "sample_index": 0, "data_source": "gsm8k", "file": str(self.folder / "val.jsonl"), "row": 2 * index + 1,
                "reward": 1 if right else 0, "reward_extra": {"correct": 1 if right else 0, "format": 0 if index == 3 else 1},
                "finish_reason": "stop", "prompt": prompt, "truth": truth, "response": response, "prompt_length": 1, "response_length": 2,
                "correct": right})
        self.assertIn(f"2 of 4 answers are wrong; to see them: grep '\"correct\":false' {out}",
                      result.stdout)
        wrong = subprocess.run(["grep", '"correct":false', out], capture_output=True,
                               text=True).stdout
        self.assertEqual(len(wrong.splitlines()), 2)
        self.assertEqual(
            [path.name for path in self.folder.iterdir() if path.name.endswith(".tmp")], [])
        # More samples a prompt, on two ranks: the same as on one.
        more = ["rollout.val_n=3", "rollout.val_temperature=1"]
        self.evaluate("--out", self.folder / "one.jsonl", *more)
        self.evaluate("--out", self.folder / "two.jsonl", *more, ranks=2)
        self.assertEqual((self.folder / "two.jsonl").read_text(),
                         (self.folder / "one.jsonl").read_text())
        rows = [json.loads(line) for line in (self.folder / "one.jsonl").read_text().splitlines()]
        self.assertEqual([(row["prompt_index"], row["sample_index"]) for row in rows],
                         [(p, s) for p in range(4) for s in range(3)])
        told = json.loads(self.evaluate("--out", out, "--json").stdout)
        self.assertEqual((told["wrong"], told["out"], told["pass@1"]), (2, str(out), 0.5))
        told = json.loads(self.evaluate("--json").stdout)
        self.assertEqual((told["wrong"], "out" in told), (2, False))

    def test_places_that_cannot_take_it_are_found_first(self):
        link, data = self.folder / "link.jsonl", (self.folder / "val.jsonl").read_text()
        link.symlink_to("val.jsonl")
        for out, says in ((self.folder, "is no file's name"), (f"{self.folder}/", "is no file's name"), ("", "is no file's name"),
                          (self.folder / "none/x.jsonl", "there is no folder"), (self.folder / "val.jsonl/x", "there is no folder"),
                          ("/dev/null", "not a regular file"), (self.folder / "val.jsonl", "which the config reads"), (link, "which the config reads"),
                          (self.folder / "train.jsonl", "which the config reads"), (self.config, "which the config reads"),
                          (self.folder / "model/config.json", "would replace a file of"),
                          (self.folder / ("x" * 300), "cannot write"), (f"{self.folder}/{'y' * 255}", "cannot write")):
            for more in ({}, {"ranks": 2}) if out == self.folder else ({},):
                result = self.fails(2, "eval", self.config, "--out", out, says=["--out", says],
                                    **more)
                self.assertEqual(
                    len([line for line in result.stderr.splitlines() if line.startswith("orrery:")
                        ]), 1, result.stderr)
                self.assertNotIn("pass@1", result.stdout)
        self.assertEqual((self.folder / "val.jsonl").read_text(), data)
        self.assertTrue(os.path.exists("/dev/null") and not os.path.isfile("/dev/null"))

    def test_a_link_is_followed(self):
        (self.folder / "there").mkdir()
        (self.folder / "there/real.jsonl").write_text("old")
        (self.folder / "link.jsonl").symlink_to("there/real.jsonl")
        self.evaluate("--out", self.folder / "link.jsonl")
        self.assertTrue((self.folder / "link.jsonl").is_symlink())
        self.assertEqual(len((self.folder / "there/real.jsonl").read_text().splitlines()), 4)

    def test_whole_or_not_at_all(self):
        out = self.folder / "samples.jsonl"
        out.write_text("of an earlier evaluation")
        for fault, code in (("file.write:enospc", 1), ("file.write:torn", -9)):
            result = subprocess.run(command("eval", self.config, "--out",
                                            out), capture_output=True, text=True, timeout=120,
                                    env=environment() | {"ORRERY_FAULT": fault})
            self.assertEqual(result.returncode, code, result.stderr)
            self.assertEqual(out.read_text(), "of an earlier evaluation", fault)
            if code == 1:  # the scores are not lost with the file
                self.assertIn("No space left on device", result.stderr)
                self.assertIn("pass@1", result.stdout)
                self.assertNotIn("to see them", result.stdout)


if __name__ == "__main__":
    unittest.main()
