"""Whole training runs: resume after a kill, signals, damaged checkpoints, a full disk."""
import hashlib
import json
import os
import pathlib
import random
import resource
import signal
import subprocess
import time
import unittest

from harness import BIN, QUICKSTART, SHORT, Case, command, environment, metrics, start


class Resume(Case):
    def test_killed_anywhere_ends_in_the_same_bits(self):
        whole = self.folder / "whole"
        options = [QUICKSTART, *SHORT, "trainer.save_freq=1"]
        begin = time.time()
        self.ok("train", *options, f"run_dir={whole}")
        duration = time.time() - begin
        expected = self.checkpoint_hash(whole)
        rows = metrics(whole)
        self.assertTrue(all(row["actor/grad_norm"] > 0 for row in rows if row["stage"] == "grpo"),
                        "RL must learn something")
        generator = random.Random(5)
        for attempt in range(3):
            run_dir = self.folder / f"killed{attempt}"
            kills = 0
            while True:
                process = start("train", *options, f"run_dir={run_dir}",
                                ranks=2 if attempt == 2 else 0)
                try:
                    process.wait(timeout=generator.uniform(0.3, 0.9) * duration)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    kills += 1
                    if kills == 6:  # enough: let it finish
                        self.ok("train", *options, f"run_dir={run_dir}")
                        break
                    continue
                break
            self.assertEqual(self.checkpoint_hash(run_dir), expected, f"after {kills} kills")
            self.ok("ckpt", "verify", run_dir)
            steps = [row["step"] for row in metrics(run_dir) if row["stage"] != "val"]
            self.assertEqual(steps, list(range(1, 11)), "each step is listed once")

    def test_a_second_run_in_the_folder_is_refused_and_changes_are_told(self):
        run_dir = self.folder / "run"
        long = [*SHORT, "trainer.total_training_steps=100000", "trainer.test_freq=0"]
        process = start("train", QUICKSTART, f"run_dir={run_dir}", *long)
        self.wait_for(run_dir / "rollouts" / "step_000056.h5", process)
        self.fails(1, "train", QUICKSTART, f"run_dir={run_dir}", *long,
                   says=["another run is using"])
        process.send_signal(signal.SIGUSR1)
        self.assertEqual(process.wait(timeout=60), 0)
        more = [*long, "trainer.total_training_steps=100001"]
        self.fails(2, "train", QUICKSTART, f"run_dir={run_dir}", *more,
                   "sft.total_training_steps=7", says=["past SFT"])
        self.fails(2, "train", QUICKSTART, f"run_dir={run_dir}", *SHORT,
                   says=["trainer.total_training_steps is 4"])
        done = int(self.checkpoint_hash(run_dir)[0].split("_")[1]) - 6
        result = self.ok("train", QUICKSTART, f"run_dir={run_dir}", *SHORT,
                         f"trainer.total_training_steps={done + 2}", "actor.optim.lr=1e-6")
        self.assertIn("actor.optim.lr", result.stderr)

    def test_resume_on_another_layout(self):
        whole, part = self.folder / "whole", self.folder / "part"
        self.ok("train", QUICKSTART, f"run_dir={whole}", *SHORT)
        # The schedule's length is part of the run, so the first part is cut by a signal, not by
        # fewer steps.
        process = start("train", QUICKSTART, f"run_dir={part}", *SHORT, "trainer.save_freq=1",
                        ranks=2)
        self.wait_for(part / "checkpoints" / "step_000007", process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.ok("train", QUICKSTART, f"run_dir={part}", *SHORT, ranks=4)
        self.assertEqual(self.checkpoint_hash(part), self.checkpoint_hash(whole))

    def test_sigterm_saves_and_exits_0(self):
        run_dir = self.folder / "run"
        long = [*SHORT, "trainer.total_training_steps=100000", "trainer.save_freq=0", "trainer.test_freq=0"]
        process = start("train", QUICKSTART, f"run_dir={run_dir}", *long)
        self.wait_for(run_dir / "rollouts" / "step_000056.h5", process)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=60), 0)
        name, _ = self.checkpoint_hash(run_dir)
        self.assertGreaterEqual(int(name.split("_")[1]), 56)

    def test_damaged_checkpoint_falls_back_loudly(self):
        run_dir = self.folder / "run"
        self.ok("train", QUICKSTART, f"run_dir={run_dir}", *SHORT, "trainer.save_freq=2")
        expected = self.checkpoint_hash(run_dir)
        newest = sorted((run_dir / "checkpoints").glob("step_*"))[-1]
        data = next(newest.glob("*.h5"))
        blob = bytearray(data.read_bytes())
        blob[len(blob) // 2] ^= 4
        data.write_bytes(blob)
        self.fails(1, "ckpt", "verify", newest, says=[data.name])
        result = self.ok("train", QUICKSTART, f"run_dir={run_dir}", *SHORT)
        self.assertIn("damaged", result.stderr)
        self.assertIn(newest.name, result.stderr)
        self.assertEqual(self.checkpoint_hash(run_dir), expected, "redone from the one before")

    def test_checkpoints_that_cannot_be_used_are_never_overwritten(self):
        run_dir = self.folder / "run"
        options = [QUICKSTART, *SHORT, "trainer.total_training_steps=1", "trainer.save_freq=6", f"run_dir={run_dir}"]
        self.ok("train", *options)
        self.fails(2, "train", *options, "cluster.gradient_shards=4",
                   says=["cluster.gradient_shards: 8 -> 4", "would have no effect"])

        def rewrite(step, change):
            folder = run_dir / "checkpoints" / f"step_{step:06}"
            manifest = json.loads((folder / "manifest.json").read_text())
            change(manifest)
            text = json.dumps(manifest)
            (folder / "manifest.json").write_text(text)
            (folder / "manifest.sha256"
            ).write_text(f"{hashlib.sha256(text.encode()).hexdigest()}  manifest.json\n")
            return folder

        stateless = rewrite(7, lambda manifest: manifest.pop("state"))
        self.fails(1, "ckpt", "verify", stateless, says=["state is absent"])
        result = self.ok("train", *options)
        self.assertIn("step_000007 cannot be used and is passed over", result.stderr)
        self.assertIn("step_000006 at step 6 (sft 6)", result.stderr)

        for step in (6, 7):
            rewrite(step, lambda manifest: manifest.update(format_version=1))
        contents = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file() and "status" not in path.name}
        says = ["none of the 2 checkpoint(s)", f"{run_dir}/checkpoints", "step_000007 is of format version 1", "move the whole folder away"]
        for command_line in (("train", *options), ("launch", "-n", "1", *options)):
            result = self.fails(2, *command_line, says=says)
            self.assertNotIn("damaged", result.stderr)
        for path, content in contents.items():
            self.assertEqual(path.read_bytes(), content, path)

    def test_full_disk_keeps_the_previous_checkpoint(self):
        run_dir = self.folder / "run"
        options = ["train", QUICKSTART, f"run_dir={run_dir}", *SHORT, "trainer.save_freq=5"]

        def small_files(
        ):  # writes beyond a size fail with EFBIG, as they do with ENOSPC on a full disk
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

        result = subprocess.run(command(*options), capture_output=True, text=True,
                                env=environment(), preexec_fn=small_files, timeout=300)
        self.assertEqual(result.returncode, 1, result.stderr)  # the last save must succeed
        self.assertIn("was not saved", result.stderr)
        self.assertEqual([p.name for p in (run_dir / "checkpoints").glob("step_*[0-9]")], [])
        self.ok(*options)
        self.ok("ckpt", "verify", run_dir)


class Faults(Case):
    def test_more_ranks_than_prompts(self):
        self.fails(2, "train", QUICKSTART, f"run_dir={self.folder / 'a'}", *SHORT,
                   "data.train_batch_size=2", ranks=4, says=["4 learner ranks", "fewer ranks"])

    def test_one_rank_failing_ends_all_promptly(self):
        # Rank 1 cannot read its model folder (its working folder lacks it); rank 0 could go on.
        script = self.folder / "rank.sh"
        script.write_text(f"#!/bin/sh\n[ \"$OMPI_COMM_WORLD_RANK\" = 1 ] && ulimit -v 400000\nexec {BIN} \"$@\"\n")
        script.chmod(0o755)
        begin = time.time()
        result = subprocess.run([
            "mpirun", "--oversubscribe", "--bind-to", "none", "-n", "2",
            str(script), "train", QUICKSTART, f"run_dir={self.folder / 'a'}", *SHORT,
            "sft.train_batch_size=20000", "rollout.kv_cache_gb=8"
        ], capture_output=True, text=True, env=environment(), timeout=120)
        self.assertNotEqual(result.returncode, 0)
        self.assertLess(time.time() - begin, 60)


if __name__ == "__main__":
    unittest.main()
