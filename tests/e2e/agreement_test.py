"""Ranks that were not started alike, and data that changed between a save and a resume, end in one
error that names what differs."""
import json
import os
import shutil
import subprocess
import time
import unittest

from harness import BIN, OTHER_ENV, QUICKSTART, SHORT, SOURCE, Case, ScriptedModel, environment

MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none"]
ROWS = [{"question": f"{i}+1?", "answer": f"so #### {i + 1}"} for i in range(12)]


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Ranks(Case):
    def start_unlike(self, *sides):
        """One rank for each list of arguments (with a working folder first)."""
        words = list(MPIRUN)
        for index, (folder, *arguments) in enumerate(sides):
            words += [*([":"] if index else []), "-n", "1", "-wdir", str(folder), BIN, *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=120,
                              stdin=subprocess.DEVNULL)

    def refused(self, result, *says):
        self.assertEqual(result.returncode, 2, result.stderr)
        lines = [line for line in result.stderr.splitlines() if line.startswith("orrery:")]
        self.assertEqual(len(lines), 1, result.stderr)
        for text in ("the ranks would mix two experiments",
                     f"rank 1 on host {os.uname().nodename}, unlike rank 0 on host", *says):
            self.assertIn(text, lines[0])

    def train(self, run_dir="run"):
        return ["train", QUICKSTART, f"run_dir={self.folder / run_dir}", *SHORT]

    def test_keys(self):
        begin = time.time()
        for change in ("data.env=gsm8k", "cluster.placement=split", "sft.total_training_steps=0",
                       "rollout.stop=[x]", "trainer.save_freq=1"):
            key = change.split("=")[0]
            more = OTHER_ENV if key == "data.env" else []
            result = self.start_unlike((self.folder, *self.train(), *more),
                                       (self.folder, *self.train(), *more, change))
            self.refused(result, f" {key} ")
        self.assertLess(time.time() - begin, 60, "nothing may hang")
        self.assertFalse((self.folder / "run" / "checkpoints").exists())
        # Both values are told, and what has nothing to do with it is not.
        result = self.start_unlike((self.folder, *self.train(), "seed=7"),
                                   (self.folder, *self.train(), "seed=2"))
        self.refused(result, "seed 2 (not 7)")
        self.assertNotIn("model.path", result.stderr)
        self.refused(
            self.start_unlike((self.folder, *self.train("a")), (self.folder, *self.train("b"))),
            f"run_dir {self.folder / 'b'} (not")

    def test_the_one_that_differs_from_most_is_named(self):
        same = (self.folder, *self.train(), "seed=3")
        result = self.start_unlike((self.folder, *self.train()), same, same)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("rank 0 on host", result.stderr)
        self.assertIn("has seed 1 (not 3)", result.stderr)

    def test_what_a_host_may_have_otherwise(self):
        model = self.folder / "elsewhere"
        shutil.copytree(SOURCE / "experiments/quickstart_model", model)
        for name in ("a", "b"):
            write_rows(self.folder / name / "data.jsonl", ROWS)
        options = [*self.train(), *OTHER_ENV, "data.env=gsm8k", "data.train_files=[data.jsonl]", "data.val_files=[data.jsonl]",
                   "data.max_prompt_length=16", "sft.total_training_steps=0", "trainer.total_training_steps=1"]
        result = self.start_unlike(
            (self.folder / "a", *options),
            (self.folder / "b", *options, f"model.path={model}", "cluster.threads=2"))
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_content_of_files(self):
        write_rows(self.folder / "a/data.jsonl", ROWS)
        write_rows(self.folder / "b/data.jsonl", ROWS[::-1])
        options = [*self.train(), *OTHER_ENV, "data.env=gsm8k", "sft.total_training_steps=0", "data.max_prompt_length=16"]
        a, b = self.folder / "a", self.folder / "b"
        one = str(a / "data.jsonl")
        # The same relative path, another file; then a second file that only one rank has.
        for key, other in (("train_files", "val_files"), ("val_files", "train_files")):
            words = [*options, f"data.{key}=[data.jsonl]", f"data.{other}=[{one}]"]
            self.refused(self.start_unlike(
                (a, *words), (b, *words)), f"data.{key}[0] {b / 'data.jsonl'} with sha256:",
                         f"(not {one} with sha256:")
        words = [*options, f"data.val_files=[{one}]"]
        self.refused(
            self.start_unlike((a, *words, f"data.train_files=[{one}]"),
                              (a, *words, f"data.train_files=[{one},{one}]")),
            "data.train_files[1]", "(not none)")
        self.refused(
            self.start_unlike((a, *words, f"data.train_files=[{one}]"),
                              (a, *words, "data.train_files=[missing.jsonl]")),
            "missing.jsonl with unreadable: No such file")
        texts = self.folder / "texts"
        for name in ("a", "b"):
            (texts / name).mkdir(parents=True)
            (texts / name / "t.txt").write_text("1+1=2 " * 3 +
                                                name.replace("a", "3").replace("b", "4"))
        words = [*self.train(), "sft.text_files=[t.txt]"]
        self.refused(self.start_unlike((texts / "a", *words), (texts / "b", *words)),
                     "sft.text_files[0]")

    def model(self, name, follow="<eos>"):
        model = ScriptedModel(self.folder / name / "model", words=["<2>", "<3>"])
        model.default = follow
        return model

    def test_content_of_the_model_folder(self):
        self.model("a").write(eos_token="<eos>")
        options = ["train", QUICKSTART, f"run_dir={self.folder / 'run'}", *SHORT, "sft.total_training_steps=0", "model.path=model",
                   "model.from_scratch=false"]
        a, b = self.folder / "a", self.folder / "b"
        self.model("b", follow="<2>").write(eos_token="<eos>")
        self.refused(self.start_unlike((a, *options), (b, *options)), "model.path/weights sums:")
        self.model("b").write(eos_token="<eos>", chat_template="{{ messages }}")
        self.refused(self.start_unlike((a, *options), (b, *options)),
                     "model.path/tokenizer_config.json sha256:")
        self.model("b").write(eos_token="<eos>", config={"rope_theta": 500.0})
        self.refused(self.start_unlike((a, *options), (b, *options)),
                     "model.path/config.json sha256:")
        self.model("b").write(eos_token="<eos>", generation_config={"eos_token_id": 0})
        self.refused(self.start_unlike((a, *options), (b, *options)),
                     "model.path/generation_config.json", "(not none)")
        # The same, written otherwise, is the same.
        (b / "model/generation_config.json").unlink()
        self.model("b").write(eos_token="<eos>", config={"transformers_version": "9"})
        result = self.start_unlike((a, *options, "trainer.total_training_steps=0"),
                                   (b, *options, "trainer.total_training_steps=0"))
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_checkpoints_and_eval(self):
        for name, seed in (("a", 1), ("b", 2)):
            self.ok("train", QUICKSTART, f"run_dir={self.folder / name / 'old'}", *SHORT,
                    f"seed={seed}", "trainer.total_training_steps=0")
        a, b = self.folder / "a", self.folder / "b"
        # Each host has another run at the path that rank 0 names: as on folders that only look
        # shared.
        for folder in (a, b):
            shutil.copytree(folder / "old/checkpoints/step_000006", folder / "there")
        view = ["unshare", "-rm", "sh", "-c", f"mount --bind {b / 'there'} {a / 'there'} && exec \"$0\" \"$@\"", BIN]
        if subprocess.run([*view[:4], "true"], capture_output=True).returncode == 0:
            words = ["train", QUICKSTART, f"run_dir={self.folder / 'run'}", *SHORT, f"trainer.resume={a / 'there'}"]
            result = subprocess.run(
                [*MPIRUN, "-n", "1", BIN, *words, ":", "-n", "1", *view, *words],
                capture_output=True, text=True, env=environment(), timeout=120)
            self.refused(result, f"{a / 'there' / 'manifest.json'} ")
        words = ["eval", QUICKSTART, *SHORT, "rollout.val_temperature=1"]
        self.refused(
            self.start_unlike((a, *words, "--checkpoint", a / "old"),
                              (a, *words, "--checkpoint", b / "old")), "--checkpoint")
        self.refused(
            self.start_unlike((a, *words, "--checkpoint", a / "old"),
                              (a, *words, "--checkpoint", a / "old", "rollout.val_n=2")),
            "rollout.val_n 2 (not 1)")
        self.refused(self.start_unlike((a, *words, "--checkpoint", a / "old"), (a, *self.train())),
                     "command train")
        self.refused(
            self.start_unlike((a, *words, "--checkpoint", "old"),
                              (b, *words, "--checkpoint", "old")), "step_000006/manifest.json ")

    def test_launch_does_not_restart_it(self):
        # A wrapper before the program: a host whose start script adds something.
        script = self.folder / "rank.sh"
        script.write_text(f"#!/bin/sh\n[ \"$OMPI_COMM_WORLD_RANK\" = 1 ] && set -- \"$@\" seed=9\nexec {BIN} \"$@\"\n")
        script.chmod(0o755)
        mpirun = self.folder / "mpirun"
        real = shutil.which("mpirun")
        mpirun.write_text(f"#!/usr/bin/env python3\nimport os, sys\nwords = [{str(script)!r} if w.endswith('/orrery') else w for w in sys.argv[1:]]\n"
                          f"os.execv({real!r}, [{real!r}, *words])\n")
        mpirun.chmod(0o755)
        env = dict(environment(), PATH=f"{self.folder}:{os.environ['PATH']}")
        result = subprocess.run([BIN, "launch", "-n", "2", *self.train()[1:]], env=env,
                                capture_output=True, text=True, timeout=120)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("has seed 9 (not 1)", result.stderr)
        self.assertNotIn("restarting", result.stderr)


if __name__ == "__main__":
    unittest.main()
