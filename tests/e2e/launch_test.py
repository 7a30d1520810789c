"""orrery launch: restarts after crashes and hangs end in the bits of an undisturbed run; errors that stay end it."""
import json
import os
import pathlib
import re
import signal
import subprocess
import time
import unittest

from harness import BIN, QUICKSTART, SHORT, Case, command, environment, run

OPTIONS = [*SHORT, "trainer.total_training_steps=8", "trainer.save_freq=1", "trainer.rollout_save_freq=1",
           "data.val_size=4"]


def rank_pids(run_dir):
    """Process ids of a run's ranks on this host, by rank."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if f"run_dir={run_dir}".encode() not in words or b"train" not in words or not words[0].endswith(b"orrery"):
                continue
            variables = dict(v.split(b"=", 1) for v in (folder / "environ").read_bytes().split(b"\0") if b"=" in v)
            found[int(variables[b"OMPI_COMM_WORLD_RANK"])] = int(folder.name)
        except (OSError, KeyError):
            continue  # ended meanwhile
    return found


class Launch(Case):
    @classmethod
    def setUpClass(cls):
        cls.expected = None

    def undisturbed(self):
        if Launch.expected is None:
            self.ok("train", QUICKSTART, f"run_dir={self.folder / 'whole'}", *OPTIONS)
            Launch.expected = self.checkpoint_hash(self.folder / "whole")
        return Launch.expected

    def start(self, run_dir, *flags, options=OPTIONS):
        self.log = self.folder / "log.txt"
        with open(self.log, "w") as log:
            process = subprocess.Popen(command("launch", "-n", "2", "--backoff", "0.1", *flags, QUICKSTART, f"run_dir={run_dir}",
                                               *options), stdout=log, stderr=subprocess.STDOUT, env=environment(),
                                       stdin=subprocess.DEVNULL)
        self.addCleanup(lambda: process.poll() is None and (process.send_signal(signal.SIGTERM), process.send_signal(signal.SIGTERM)))
        return process

    def finish(self, process, code, timeout=90):
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.fail(f"still running after {timeout} s:\n{self.log.read_text()}")
        self.assertEqual(process.returncode, code, self.log.read_text())

    def wait_for(self, path, process, timeout=60):
        deadline = time.time() + timeout
        while not path.exists():
            self.assertIsNone(process.poll(), f"it ended before {path.name} was there:\n{self.log.read_text()}")
            self.assertLess(time.time(), deadline, f"{path.name} did not appear:\n{self.log.read_text()}")
            time.sleep(0.01)

    def check_whole(self, run_dir):
        self.assertEqual(self.checkpoint_hash(run_dir), self.undisturbed(), self.log.read_text())
        rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
        self.assertEqual([row["step"] for row in rows if row["stage"] != "val"], list(range(1, 15)), "each step once")
        self.assertEqual(rank_pids(run_dir), {}, "no rank is left")

    def test_a_killed_rank_and_a_killed_mpirun_are_restarted(self):
        run_dir = self.folder / "run"
        process = self.start(run_dir)
        self.wait_for(run_dir / "checkpoints/step_000003", process)
        os.kill(rank_pids(run_dir)[1], signal.SIGKILL)
        self.wait_for(run_dir / "checkpoints/step_000008", process)
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        self.assertEqual(len(children), 1, "mpirun")
        os.kill(int(children[0]), signal.SIGKILL)
        self.finish(process, 0)
        text = self.log.read_text()
        self.assertRegex(text, r"rank 1 on \S+ was killed by signal 9 .*\n.*restart 1 of 10")
        self.assertIn("mpirun was killed by signal 9", text)
        self.check_whole(run_dir)

    def test_a_stopped_rank_is_named_and_the_job_restarted(self):
        for rank in (1, 0):
            with self.subTest(rank=rank):
                run_dir = self.folder / f"run{rank}"
                process = self.start(run_dir, "--hang-timeout", "4")
                self.wait_for(run_dir / "checkpoints/step_000008", process)  # the third RL step is under way
                begin = time.time()
                os.kill(rank_pids(run_dir)[rank], signal.SIGSTOP)
                named = re.compile(rf"rank {rank} has been silent for \d+ s, last in '(\w+ step \d+[^']*|publish)'")
                while not named.search(self.log.read_text()):
                    self.assertLess(time.time() - begin, 9, self.log.read_text())
                    time.sleep(0.05)
                self.finish(process, 0)
                self.assertRegex(self.log.read_text(), r"restart 1 of 10 without progress in 0\.1 s, from the checkpoint of step")
                self.check_whole(run_dir)

    def test_sigterm_saves_and_the_same_command_resumes(self):
        run_dir = self.folder / "run"
        process = self.start(run_dir, options=[*OPTIONS, "trainer.total_training_steps=100000", "trainer.save_freq=0",
                                               "trainer.test_freq=0"])
        self.wait_for(run_dir / "rollouts/step_000002.h5", process)
        process.send_signal(signal.SIGTERM)
        self.finish(process, 0)
        self.assertIn("stopped as asked; the same command resumes from the checkpoint of step", self.log.read_text())
        self.assertEqual(rank_pids(run_dir), {})
        reached = int(self.checkpoint_hash(run_dir)[0].split("_")[1]) - 6
        rest = [*OPTIONS, f"trainer.total_training_steps={reached + 2}", "trainer.save_freq=0"]
        process = self.start(run_dir, options=rest)
        self.finish(process, 0)
        self.assertIn("resumed from", self.log.read_text())
        self.ok("train", QUICKSTART, f"run_dir={self.folder / 'other'}", *rest)
        self.assertEqual(self.checkpoint_hash(run_dir), self.checkpoint_hash(self.folder / "other"))

    def test_a_config_error_starts_nothing(self):
        run_dir = self.folder / "run"
        self.fails(2, "launch", "-n", "2", QUICKSTART, f"run_dir={run_dir}", "actor.clip_ration_low=0.1", says=["clip_ratio_low"])
        self.fails(2, "launch", "-n", "16", QUICKSTART, f"run_dir={run_dir}", *SHORT, says=["fewer ranks"])
        self.assertFalse(run_dir.exists())
        # One that only the ranks can see.
        result = self.fails(2, "launch", "-n", "1", QUICKSTART, f"run_dir={run_dir}", "model.path=/no/such/model",
                            says=["/no/such/model", "no restart"])
        self.assertNotIn("restart 1", result.stderr)
        self.fails(2, "launch", QUICKSTART, says=["--ranks"])

    def test_the_same_error_at_the_same_step_ends_it(self):
        run_dir = self.folder / "run"
        run_dir.mkdir()
        (run_dir / "rollouts").write_text("in the way of the folder")
        result = run("launch", "-n", "1", "--backoff", "0.1", QUICKSTART, f"run_dir={run_dir}", *OPTIONS)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertRegex(result.stderr, r"launch: no restart: it failed 3 times in the same way at step \d+: .*rollouts")
        self.assertEqual(len(re.findall(r"restart \d of 10", result.stderr)), 2)
        self.assertRegex(result.stderr, r"flight recorder.* s ago: update step 1")

    def test_words_after_the_dashes_are_for_mpirun(self):
        result = self.fails(1, "launch", "-n", "1", "--max-restarts", "0", QUICKSTART, f"run_dir={self.folder / 'run'}", *SHORT,
                            "--", "--no-such-flag", "1", says=["no-such-flag"])
        self.assertIn("0 restart(s)", result.stderr)


if __name__ == "__main__":
    unittest.main()
