#!/usr/bin/env python3
"""Runs of older programs, whose checkpoints are of format version 2: what says so, and how they
go on. tests/data/run_v2 is such a run after 3 of its 6 steps, saved by two ranks."""
import json
import pathlib
import shutil
import unittest

from harness import QUICKSTART, SOURCE, Case

OLD = SOURCE / "tests/data/run_v2"
# As the run was begun.
WORDS = ["experiment_name=old", "sft.total_training_steps=5", "sft.train_batch_size=8", "data.train_batch_size=4", "rollout.n=4",
         "data.val_size=4", "data.arithmetic.digits=1", "sft.optim.lr=1e-2", "sft.optim.lr_warmup_steps=1", "actor.optim.lr_warmup_steps=0",
         "actor.optim.lr=1e-3", "trainer.save_freq=1", "trainer.max_ckpt_to_keep=10", "trainer.rollout_save_freq=0", "cluster.threads=1",
         "trainer.tensorboard=false", "rollout.kv_cache_gb=0.01", "trainer.total_training_steps=1"]
# By the program that saved it: after step 3, and at the end of the whole run.
HASH_3 = "1b8f9942e076a5c316b9292e6bddddb9b0f2694a054fa5837d4a6754bd531790"
HASH_6 = "0a9ced65ece016dac97e145605cc154d099ee4fbf2e5f1ad3501bc14b8bcc860"


def contents(folder):
    """Relative path -> bytes, without what says that a run has the folder."""
    return {path.relative_to(folder): path.read_bytes() for path in pathlib.Path(folder).rglob("*")
            if path.is_file() and path.name not in ("status.json", ".lock", ".launch.lock")}


class Convert(Case):
    def setUp(self):
        super().setUp()
        self.old = self.folder / "old"
        shutil.copytree(OLD, self.old)
        self.before = contents(self.old)
        self.model = self.folder / "model"
        shutil.copytree(self.old / "checkpoints/step_000003/tokenizer", self.model)
        shutil.copy(self.old / "model/config.json", self.model)

    def train(self, run_dir, *words):
        return ["train", QUICKSTART, *WORDS, f"model.path={self.model}", f"run_dir={run_dir}", *words]

    def test_whatever_meets_it_names_the_command_and_changes_nothing(self):
        step = self.old / "checkpoints/step_000003"
        says = ["step_000003 is of format version 2; this program reads version 3: "
                f"convert it with orrery ckpt convert {self.old} {self.old}_v3"]
        for words in (self.train(self.old), ["launch", "-n", "1", *self.train(self.old)[1:]],
                      self.train(self.folder / "x", f"trainer.resume={step}"),
                      self.train(self.folder / "x", f"trainer.resume={self.old}"),
                      ["eval", QUICKSTART, *WORDS, f"model.path={self.model}", "--checkpoint", self.old],
                      ["generate", "--model", self.old, "--prompt", "1"],
                      ["ckpt", "hash", self.old], ["ckpt", "show", step], ["ckpt", "verify", step],
                      ["ckpt", "export", self.old, self.folder / "y"]):
            result = self.fails(2, *words, says=says)
            self.assertEqual(result.stderr.count("ckpt convert"), 1, result.stderr)
        self.assertIn(says[0], self.ok("ckpt", "ls", self.old).stdout)
        self.assertEqual(contents(self.old), self.before)

    def test_a_run_goes_on_and_ends_in_the_same_bits(self):
        new = self.folder / "old_v3"
        told = self.ok("ckpt", "convert", self.old, new).stdout
        self.assertIn(f"{new}/checkpoints/step_000003: step 3, hash {HASH_3}", told)
        self.assertEqual(self.ok("ckpt", "hash", new).stdout.strip(), HASH_3)
        self.assertEqual(contents(self.old), self.before)
        for name in ("config.yaml", "metrics.jsonl"):
            self.assertEqual((new / name).read_bytes(), (self.old / name).read_bytes())
        manifests = [json.loads((folder / "checkpoints/step_000003/manifest.json").read_text()) for folder in (self.old, new)]
        for key in ("step", "stage", "created", "unix_time", "reward", "tokenizer_files", "state", "run_config", "inputs", "model_config"):
            self.assertEqual(manifests[0][key], manifests[1][key], key)
        result = self.ok(*self.train(new))
        self.assertIn("step 3 (sft 3)", result.stderr)
        self.assertEqual(self.ok("ckpt", "hash", new).stdout.strip(), HASH_6)
        steps = [json.loads(line)["step"] for line in (new / "metrics.jsonl").read_text().splitlines()]
        self.assertEqual(sorted(set(steps)), [1, 2, 3, 4, 5, 6])

    def test_one_checkpoint_alone(self):
        step = self.old / "checkpoints/step_000003"
        new = self.folder / "new/step_000003"
        made = json.loads(self.ok("ckpt", "convert", step, new, "--json").stdout)
        self.assertEqual(made["checkpoints"], [{"path": str(new), "step": 3, "hash": HASH_3}])
        self.ok("ckpt", "verify", new)
        self.assertEqual([path.name for path in new.parent.iterdir()], ["step_000003"])

    def test_what_cannot_be_converted(self):
        step = self.old / "checkpoints/step_000003"
        self.fails(2, "ckpt", "convert", self.folder / "none", self.folder / "x", says=["is not a folder"])
        self.fails(2, "ckpt", "convert", self.old, self.model, says=["exists; name a new folder"])
        self.fails(2, "ckpt", "convert", self.old, self.old / "x", says=["which stays as it is"])
        self.fails(2, "ckpt", "convert", step, self.folder / "step_000004", says=["the checkpoint is step_000003"])
        self.ok("ckpt", "convert", step, self.folder / "step_000003")
        self.fails(1, "ckpt", "convert", self.folder / "step_000003", self.folder / "again",
                   says=["is of format version 3; version 2 is what can be converted, and this program reads it as it is"])
        damaged = step / "rank_0001_of_0002.h5"
        blob = bytearray(damaged.read_bytes())
        blob[-100] ^= 1
        damaged.write_bytes(blob)
        self.fails(1, "ckpt", "convert", self.old, self.folder / "x",
                   says=["step_000003 is passed over", "damaged", "none of the 1 checkpoint(s)"])
        self.assertFalse((self.folder / "x").exists())
        self.assertFalse((self.folder / "x.tmp-convert").exists())


if __name__ == "__main__":
    unittest.main()
