"""orrery launch: restarts after crashes and hangs end in the bits of an undisturbed run; errors
that stay end it."""
import json
import os
import pathlib
import re
import signal
import subprocess
import time
import unittest

from harness import LEARNS, QUICKSTART, SHORT, Case, command, environment, metrics

SFT_STEPS, RL_STEPS = 20, 8
OPTIONS = [*LEARNS, f"trainer.total_training_steps={RL_STEPS}", "trainer.save_freq=2", "trainer.rollout_save_freq=1", "data.val_size=4"]


def rank_pids(run_dir):
    """Process ids of a run's ranks on this host, by rank."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if f"run_dir={run_dir}".encode(
            ) not in words or b"train" not in words or not words[0].endswith(b"orrery"):
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

    def start(self, run_dir, *flags, options=OPTIONS, fault=""):
        path = self.folder / f"{run_dir.name}.txt"
        with open(path, "w") as log:
            process = subprocess.Popen(
                command("launch", "-n", "2", "--backoff", "0.1", *flags, QUICKSTART,
                        f"run_dir={run_dir}", *options), stdout=log, stderr=subprocess.STDOUT,
                env=dict(environment(), ORRERY_FAULT=fault), stdin=subprocess.DEVNULL)
        process.log = path.read_text  # a function: what it has printed so far
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        while process.poll() is None:  # the second request counts a second after the first
            process.send_signal(signal.SIGTERM)
            time.sleep(1.1)

    def finish(self, process, code, timeout=90):
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.fail(f"still running after {timeout} s:\n{process.log()}")
        self.assertEqual(process.returncode, code, process.log())

    def state(self, run_dir):
        status = json.loads((run_dir / "status.json").read_text())
        return status["state"], status["exit_code"]

    def check_whole(self, run_dir, process):
        self.assertEqual(self.checkpoint_hash(run_dir), self.undisturbed(), process.log())
        self.assertEqual([row["step"] for row in metrics(run_dir) if row["stage"] != "val"],
                         list(range(1, SFT_STEPS + RL_STEPS + 1)), "each step once")
        self.assertEqual(rank_pids(run_dir), {}, "no rank is left")

    def test_a_killed_rank_and_a_killed_mpirun_are_restarted(self):
        run_dir = self.folder / "run"
        process = self.start(run_dir)
        self.wait_for(run_dir / "checkpoints/step_000010", process, timeout=60, log=process.log)
        os.kill(rank_pids(run_dir)[1], signal.SIGKILL)
        self.wait_for(run_dir / "checkpoints/step_000022", process, timeout=60, log=process.log)
        children = pathlib.Path(
            f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        self.assertEqual(len(children), 1, "mpirun")
        os.kill(int(children[0]), signal.SIGKILL)
        self.finish(process, 0)
        text = process.log()
        self.assertRegex(text,
                         r"rank 1 on \S+ was killed by signal 9 .*\n.*restart 1 of at most 10")
        self.assertIn("mpirun was killed by signal 9", text)
        self.check_whole(run_dir, process)

    def test_a_stopped_rank_is_named_and_the_job_restarted(self):
        run_dirs = [self.folder / f"run{rank}" for rank in (0, 1)
                   ]  # two jobs at once: it is mostly waiting
        # Slow enough that the ranks, which say once a second what they do, have said so since they
        # loaded the model.
        processes = [self.start(run_dir, "--hang-timeout", "4", fault="engine.step:slow") for run_dir in run_dirs]
        waiting, stopped_at = {0, 1}, {}
        while waiting:
            for rank in list(waiting):
                self.assertIsNone(processes[rank].poll(), processes[rank].log())
                if (run_dirs[rank] /
                        "checkpoints/step_000022").exists():  # the third RL step is under way
                    os.kill(rank_pids(run_dirs[rank])[rank], signal.SIGSTOP)
                    stopped_at[rank] = time.time()
                    waiting.remove(rank)
            time.sleep(0.01)
        while stopped_at:
            for rank, begin in list(stopped_at.items()):
                text = processes[rank].log()
                if re.search(rf"rank {rank} has been silent for \d+ s, last in '(\w+ step \d+[^']*|publish)'", text):
                    del stopped_at[rank]
                elif time.time() - begin > 9:
                    self.fail(f"rank {rank} is not named:\n{text}")
            time.sleep(0.05)
        for run_dir, process in zip(run_dirs, processes):
            self.finish(process, 0)
            self.assertRegex(
                process.log(),
                r"restarting in 0\.1 s from the checkpoint of step \d+ \(restart 1 of at most 10")
            self.check_whole(run_dir, process)

    def test_sigterm_saves_and_the_same_command_resumes(self):
        run_dir = self.folder / "run"
        process = self.start(run_dir, options=[*OPTIONS, "trainer.total_training_steps=100000", "trainer.save_freq=0",
                                               "trainer.test_freq=0"])
        self.wait_for(run_dir / "rollouts/step_000022.h5", process, timeout=60, log=process.log)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)  # as `timeout` does: to the process, and to its group
        process.send_signal(signal.SIGTERM)
        self.finish(process, 0)
        self.assertEqual(self.state(run_dir), ("stopped", 0))
        self.assertIn("stopped as asked; the same command resumes from the checkpoint of step",
                      process.log())
        self.assertEqual(rank_pids(run_dir), {})
        reached = int(self.checkpoint_hash(run_dir)[0].split("_")[1]) - SFT_STEPS
        rest = [*OPTIONS, f"trainer.total_training_steps={reached + 2}", "trainer.save_freq=0"]
        process = self.start(run_dir, options=rest)
        self.finish(process, 0)
        self.assertIn("resumed from", process.log())
        self.assertEqual(self.state(run_dir), ("done", 0))
        self.ok("train", QUICKSTART, f"run_dir={self.folder / 'other'}", *rest)
        self.assertEqual(self.checkpoint_hash(run_dir), self.checkpoint_hash(self.folder / "other"))

    def test_a_second_request_ends_a_job_that_cannot_save(self):
        run_dir = self.folder / "run"
        # Early: how many steps rank 1's engine makes depends on the prompts that it gets to lease.
        process = self.start(run_dir, fault="engine.step:hang@8,rank=1")
        self.wait_for(run_dir / "checkpoints/step_000020", process, timeout=60, log=process.log)
        deadline = time.time() + 30
        while "hang injected" not in process.log() and time.time() < deadline:
            time.sleep(0.05)
        for pause in (0.3, 1.2, 0):  # the second one is too soon to count
            process.send_signal(signal.SIGTERM)
            time.sleep(pause)
        self.finish(process, 1, timeout=20)
        text = process.log()
        self.assertIn("stopped as asked, but without a save: asked to stop a second time; the same command resumes from the checkpoint", text)
        self.assertEqual(self.state(run_dir), ("failed", 1))
        self.assertEqual(rank_pids(run_dir), {})

    def test_a_config_error_starts_nothing(self):
        run_dir = self.folder / "run"
        self.fails(2, "launch", "-n", "2", QUICKSTART, f"run_dir={run_dir}",
                   "actor.clip_ration_low=0.1", says=["clip_ratio_low"])
        self.fails(2, "launch", "-n", "16", QUICKSTART, f"run_dir={run_dir}", *SHORT,
                   says=["fewer ranks"])
        self.assertFalse(run_dir.exists())
        # One that only the ranks can see.
        result = self.fails(2, "launch", "-n", "1", QUICKSTART, f"run_dir={run_dir}",
                            "model.path=/no/such/model", says=["/no/such/model", "no restart"])
        self.assertNotIn("restarting", result.stderr)
        self.fails(2, "launch", QUICKSTART, says=["--ranks"])

    def test_the_same_error_without_a_new_checkpoint_ends_it(self):
        process = self.start(self.folder / "run", options=[*OPTIONS, "trainer.save_freq=0"],
                             fault="learner.update:error@3,rank=1")
        self.finish(process, 1)
        text = process.log()
        self.assertRegex(text, r"launch: no restart: it failed 3 times in the same way, now at about step \d: rank 1: .*learner\.update")
        self.assertEqual(self.state(self.folder / "run"), ("failed", 1))
        self.assertEqual(len(re.findall(r"restart \d of at most 10", text)), 2)
        self.assertRegex(text, r"flight recorder, rank 1: .* s ago: sft step 3")

    def test_a_restart_begins_where_the_user_said_until_there_is_a_checkpoint(self):
        other, run_dir = self.folder / "other", self.folder / "run"
        self.ok("train", QUICKSTART, f"run_dir={other}", *OPTIONS, "trainer.total_training_steps=0")
        options = [*OPTIONS, f"trainer.resume={other}"]
        process = self.start(run_dir, options=options, fault="learner.update:error@2,rank=1")
        self.finish(process, 1)
        text = process.log()
        self.assertIn(f"from trainer.resume={other} (restart 1", text)
        self.assertEqual(text.count(f"resumed from {other}"), 3, text)
        self.assertNotIn(f"resumed from {run_dir}", text)
        process = self.start(run_dir, options=options, fault="learner.update:error@3,rank=1")
        self.finish(process, 0)
        self.assertEqual(process.log().count(f"resumed from {other}"), 1, process.log())
        self.assertIn(f"resumed from {run_dir}/checkpoints/step_000022", process.log())
        self.assertEqual(self.checkpoint_hash(run_dir), self.undisturbed())
        self.finish(self.start(run_dir, options=options),
                    0)  # the same command once more: nothing is left to do
        process = self.start(self.folder / "anew", options=[*OPTIONS, "trainer.resume=off"],
                             fault="learner.update:error@12,rank=1")
        self.finish(process, 0)
        self.assertEqual(self.checkpoint_hash(self.folder / "anew"), self.undisturbed())

    def test_a_hung_actor_is_named_with_its_prompts(self):
        process = self.start(self.folder / "run", "--max-restarts", "0", "--hang-timeout", "3",
                             fault="engine.step:hang@9,rank=1")
        self.finish(process, 1)
        text = process.log()
        self.assertRegex(text, r"rank 1 has been in '(generate|validate) step \d+, prompts? \d+[^']*' for \d+ s without progress; rank 0 waits")
        for rank in (0, 1):
            self.assertRegex(
                text, rf"flight recorder, rank {rank}: .* s ago: (generate|validate) step \d+")

    def test_words_after_the_dashes_are_for_mpirun(self):
        result = self.fails(1, "launch", "-n", "1", QUICKSTART, f"run_dir={self.folder / 'run'}", *SHORT, "--", "--no-such-flag", "1",
                            says=['no restart: mpirun could not start the ranks: mpirun: Error: unknown option "--no-such-flag" Type'])
        self.assertNotIn("restarting", result.stderr)

    def test_an_mpirun_that_starts_nothing_is_a_failure(self):
        (self.folder / "mpirun").write_text("#!/bin/sh\nexit 0\n")
        (self.folder / "mpirun").chmod(0o755)
        env = dict(environment(), PATH=f"{self.folder}:{os.environ['PATH']}")
        result = subprocess.run(
            command("launch", "-n", "1", QUICKSTART, f"run_dir={self.folder / 'run'}", *SHORT),
            env=env, text=True, capture_output=True, timeout=60)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("no rank has run", result.stderr)

    def test_seconds_that_are_no_number_are_refused(self):
        for flag in ("--hang-timeout", "--backoff", "--stop-timeout"):
            for value in ("nan", "-1", "inf", "1x"):
                self.fails(2, "launch", "-n", "1", f"{flag}={value}", QUICKSTART, says=[flag])


if __name__ == "__main__":
    unittest.main()
