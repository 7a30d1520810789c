#!/usr/bin/env python3
"""Runs of older programs, whose checkpoints are of format version 2: what says so, and how they
go on. tests/data/run_v2 is such a run after 3 of its 6 steps, saved by two ranks."""
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import unittest
from unittest import mock

from harness import QUICKSTART, SOURCE, Case, command, environment

OLD = SOURCE / "tests/data/run_v2"
# As the run was begun.
WORDS = ["experiment_name=old", "sft.total_training_steps=5", "sft.train_batch_size=8", "data.train_batch_size=4", "rollout.n=4",
         "data.val_size=4", "data.arithmetic.digits=1", "sft.optim.lr=1e-2", "sft.optim.lr_warmup_steps=1", "actor.optim.lr_warmup_steps=0",
         "actor.optim.lr=1e-3", "trainer.save_freq=1", "trainer.max_ckpt_to_keep=10", "trainer.rollout_save_freq=0", "cluster.threads=1",
         "trainer.tensorboard=false", "rollout.kv_cache_gb=0.01", "trainer.total_training_steps=1"]
# Of the program that saved it, after step 3. It computed in f32-chain/1, so the end of the whole run
# is what that checkpoint leads to in the class's version of today.
HASH_3 = "1b8f9942e076a5c316b9292e6bddddb9b0f2694a054fa5837d4a6754bd531790"
HASH_6 = "a416fb3dcd180be51e8fb8213ae486ae88a3a523ab846c243de4163051c3abcc"


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

    def add_checkpoint(self, step):
        """One more in the old run: the numbers of step 3, of another step."""
        made = self.old / f"checkpoints/step_{step:06}"
        shutil.copytree(self.old / "checkpoints/step_000003", made)
        manifest = json.loads((made / "manifest.json").read_text())
        manifest["step"] = manifest["state"]["sft_step"] = step
        text = json.dumps(manifest).encode()
        (made / "manifest.json").write_bytes(text)
        (made / "manifest.sha256").write_text(f"{hashlib.sha256(text).hexdigest()}  manifest.json\n")
        return made

    def damage(self, step):
        path = step / "rank_0001_of_0002.h5"
        blob = bytearray(path.read_bytes())
        blob[-100] ^= 1
        path.write_bytes(blob)

    def nothing_is_left(self, new):
        self.assertFalse(new.exists())
        self.assertEqual(list(self.folder.glob("*.tmp-*")), [])

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

    def test_a_run_goes_on_and_ends_in_the_bits_of_today(self):
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
        self.fails(2, "ckpt", "convert", self.old, "", says=["NEW is empty; name the folder to create"])
        self.damage(step)
        self.fails(1, "ckpt", "convert", self.old, self.folder / "x",
                   says=["step_000003 is passed over", "damaged", "none of the 1 checkpoint(s)"])
        self.assertFalse((self.folder / "x").exists())
        self.assertEqual(list(self.folder.glob("*.tmp-*")), [])

    def test_checkpoints_that_are_not_good_are_counted(self):
        new = self.folder / "new"
        self.damage(self.add_checkpoint(5))
        self.add_checkpoint(4)
        shutil.copytree(self.old / "checkpoints/step_000003", self.old / "checkpoints/step_000002")
        result = self.ok("ckpt", "convert", self.old, new)
        self.assertIn("step_000002 is passed over", result.stderr)
        self.assertIn("its manifest is of step 3", result.stderr)
        self.assertIn(f"in format version 3, with 2 of 4 checkpoint(s); passed over: step_000002, step_000005; go on with run_dir={new}\n",
                      result.stdout)
        self.ok("ckpt", "verify", new)
        told = json.loads(self.ok("ckpt", "convert", self.old, self.folder / "again", "--json").stdout)
        self.assertEqual([c["step"] for c in told["checkpoints"]], [3, 4])
        self.assertEqual([pathlib.Path(p["path"]).name for p in told["passed_over"]], ["step_000002", "step_000005"])
        self.assertIn("damaged", told["passed_over"][1]["reason"])
        # The new run is of version 3, whose checkpoints are copied.
        self.damage(new / "checkpoints/step_000003")
        told = json.loads(self.ok("ckpt", "convert", new, self.folder / "third", "--json").stdout)
        self.assertEqual(([c["step"] for c in told["checkpoints"]], len(told["passed_over"])), ([4], 1))
        self.ok("ckpt", "verify", self.folder / "third")

    def test_a_failure_to_write_fails_the_whole_conversion(self):
        self.add_checkpoint(4)
        new = self.folder / "new"
        step = self.old / "checkpoints/step_000003"
        for fault, says in (("checkpoint.write:enospc", "No space left"), ("checkpoint.write:enospc@7", "No space left"),
                            ("file.write:enospc@6", "No space left"), ("checkpoint.write:corrupt@7", "damaged"),
                            ("checkpoint.publish:error@2", "checkpoint.publish")):
            with mock.patch.dict(os.environ, {"ORRERY_FAULT": fault}):
                result = self.fails(1, "ckpt", "convert", self.old, new, says=[says])
            self.assertNotIn("passed over", result.stderr, fault)
            self.assertNotIn("earlier checkpoints", result.stderr, fault)
            self.assertNotIn("is a copy", result.stdout, fault)
            self.nothing_is_left(new)
        with mock.patch.dict(os.environ, {"ORRERY_FAULT": "checkpoint.write:corrupt@2"}):
            self.fails(1, "ckpt", "convert", step, new, says=["damaged"])
        self.nothing_is_left(new)

    def test_two_at_once(self):
        new = self.folder / "new"
        for old in (self.old, self.old / "checkpoints/step_000003"):
            both = [subprocess.Popen(command("ckpt", "convert", old, new), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                     env=environment()) for _ in range(2)]
            told = [process.communicate() for process in both]
            self.assertEqual([process.returncode for process in both].count(0), 1, told)
            self.ok("ckpt", "verify", new)
            self.assertEqual(self.ok("ckpt", "hash", new).stdout.strip(), HASH_3)
            self.assertEqual(list(self.folder.glob("*.tmp-*")), [])
            shutil.rmtree(new)

    def test_a_folder_of_checkpoints(self):
        new = self.folder / "new"
        told = self.ok("ckpt", "convert", self.old / "checkpoints", new).stdout
        self.assertIn(f"go on with trainer.resume={new}/step_000003\n", told)
        self.assertNotIn("run_dir", told)
        self.assertEqual(self.ok("ckpt", "hash", new / "step_000003").stdout.strip(), HASH_3)

    def test_new_lies_outside_old_and_has_all_of_it(self):
        (self.old / ".notes").write_text("mine")
        (self.old / "..sub").mkdir()
        (self.old / "..sub/file").write_text("too")
        (self.old / ".lock").touch()
        (self.old / "checkpoints/step_000009.tmp-save").mkdir()
        (self.old / "checkpoints/notes").write_text("also mine")
        self.fails(2, "ckpt", "convert", self.old, self.old / "..new", says=["which stays as it is"])
        new = self.folder / "..new"
        self.ok("ckpt", "convert", self.old, new)
        found = contents(new)
        for name in (".notes", "..sub/file", "checkpoints/notes"):
            self.assertEqual(found[pathlib.Path(name)], (self.old / name).read_bytes())
        self.assertFalse((new / ".lock").exists())
        self.assertFalse((new / "checkpoints/step_000009.tmp-save").exists())

    def test_a_run_that_goes_on_is_not_converted(self):
        new = self.folder / "new"
        for name in (".lock", ".launch.lock"):
            with open(self.old / name, "w", encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                for old in (self.old, self.old / "checkpoints"):
                    self.fails(2, "ckpt", "convert", old, new, says=[f"a run is using {self.old}; convert it when that has ended"])
            self.nothing_is_left(new)
        self.ok("ckpt", "convert", self.old, new)

    def test_the_command_that_is_told_works_from_anywhere(self):
        for place, words in ((self.old, "."), (self.old / "checkpoints", "step_000003"), (self.old / "checkpoints/step_000003", ".")):
            result = subprocess.run(command("ckpt", "hash", words), capture_output=True, text=True, env=environment(), cwd=place)
            told = result.stderr.strip().split("convert it with ")[-1].split()
            self.assertEqual(told, ["orrery", "ckpt", "convert", str(self.old), f"{self.old}_v3"])
            subprocess.run(command(*told[1:]), check=True, capture_output=True, env=environment(), cwd=place)
            shutil.rmtree(f"{self.old}_v3")


if __name__ == "__main__":
    unittest.main()
