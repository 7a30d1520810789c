"""A stop request: saved and gone in the middle of a step, whichever rank it reaches, and the same
bits when the run goes on."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
import unittest

from harness import LEARNS, QUICKSTART, Case, command, environment, metrics
from launch_test import rank_pids

SFT_STEPS, RL_STEPS = 20, 3
# A generation of many engine steps, each of which takes 100 ms under SLOW: ten seconds. That a step
# was cut short shows in what is saved, so that no test depends on how fast the machine is. A
# validation takes several of the seconds in which status.json is written once, so that a test that
# waits for it there cannot miss it.
OPTIONS = [*LEARNS, f"trainer.total_training_steps={RL_STEPS}", "data.train_batch_size=16", "rollout.max_num_seqs=8",
           "trainer.save_freq=1", "trainer.max_ckpt_to_keep=100", "trainer.test_freq=2", "data.val_size=120"]
SLOW = "engine.step:slow"
FIRST, LAST = f"step_{SFT_STEPS + 1:06d}", f"step_{SFT_STEPS + RL_STEPS:06d}"
PATIENCE = 60


class StopNow(Case):
    @classmethod
    def setUpClass(cls):
        cls.whole = None

    def run_of_one_step(self, name="run", newest=FIRST):
        """A copy of the undisturbed run as it was after its first RL step: (folder, final hash)."""
        if StopNow.whole is None:
            keeper = Case()  # its folder lives as long as the class
            Case.setUp(keeper)
            self.addClassCleanup(keeper.doCleanups)
            StopNow.whole = keeper.folder / "whole"
            self.ok("train", QUICKSTART, f"run_dir={StopNow.whole}", *OPTIONS)
        run_dir = self.folder / name
        shutil.copytree(StopNow.whole, run_dir)
        for path in sorted((run_dir / "checkpoints").iterdir()):
            if path.name > newest:
                shutil.rmtree(path)
        return run_dir, self.checkpoint_hash(StopNow.whole)

    def start(self, run_dir, *options, ranks=0, fault=SLOW, words=("train",), **popen):
        self.log_path = run_dir.parent / f"{run_dir.name}.txt"
        with open(self.log_path, "w") as log:
            process = subprocess.Popen(
                command(*words, QUICKSTART, f"run_dir={run_dir}", *OPTIONS, *options,
                        ranks=ranks), **{"stdout": log, "stderr": subprocess.STDOUT,
                                         **popen}, env=dict(environment(), ORRERY_FAULT=fault),
                stdin=subprocess.DEVNULL, start_new_session=True)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def log(self):
        return self.log_path.read_text()

    def wait_for_phase(self, run_dir, process, begins, rank=0, timeout=60):
        """Until status.json of this process says that `rank` is in such a phase."""
        (run_dir / "status.json").unlink(missing_ok=True)
        deadline = time.time() + timeout
        while time.time() < deadline:
            self.assertIsNone(process.poll(), self.log())
            try:
                phase = json.loads((run_dir / "status.json").read_text())["ranks"][rank]["phase"]
            except (OSError, ValueError):
                phase = ""
            if phase.startswith(begins):
                return
            time.sleep(0.02)
        self.fail(f"no phase '{begins}':\n{self.log()}")

    def stopped(self, run_dir, process, newest=FIRST, code=0):
        """It ends soon, saved at `newest`, and says so."""
        begin = time.time()
        try:
            process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.fail(f"still running {time.time() - begin:.1f} s after the request:\n{self.log()}")
        self.assertEqual(process.returncode, code, self.log())
        self.assertEqual(max(p.name for p in (run_dir / "checkpoints").iterdir()), newest,
                         self.log())
        self.assertEqual(rank_pids(run_dir), {})
        self.assertEqual(json.loads((run_dir / "status.json").read_text())["state"], "stopped")

    def goes_on(self, run_dir, expected):
        """Resumed, it ends in the bits of the undisturbed run, each step and validation in the
        metrics once."""
        self.ok("train", QUICKSTART, f"run_dir={run_dir}", *OPTIONS)
        self.assertEqual(self.checkpoint_hash(run_dir), expected)

        def lines(folder):
            return sorted((row["step"], row["stage"], row.get("critic/rewards/mean"),
                           row.get("val-core/arithmetic/reward/mean@1")) for row in metrics(folder))
        self.assertEqual(lines(run_dir), lines(StopNow.whole))

    def pids(self, run_dir, process, ranks):
        deadline = time.time() + 20
        while len(rank_pids(run_dir)) < ranks and time.time() < deadline:
            self.assertIsNone(process.poll(), self.log())
            time.sleep(0.05)
        return rank_pids(run_dir)

    def test_alone(self):
        run_dir, expected = self.run_of_one_step()
        for stop in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
            process = self.start(run_dir)
            self.wait_for_phase(run_dir, process, "generate")
            before = os.stat(run_dir / "checkpoints" / FIRST).st_ino
            process.send_signal(stop)
            self.stopped(run_dir, process)
            self.assertIn(f"asked to stop by {stop.name}: saving", self.log())
            self.assertEqual(
                os.stat(run_dir / "checkpoints" / FIRST).st_ino, before, "nothing is written twice")
        self.goes_on(run_dir, expected)

    def test_what_is_not_yet_on_the_disk_is_saved(self):
        run_dir, expected = self.run_of_one_step()
        process = self.start(run_dir, "trainer.save_freq=-1")
        self.wait_for_phase(run_dir, process, f"generate step {SFT_STEPS + 3}", timeout=120)
        process.send_signal(signal.SIGTERM)
        self.stopped(run_dir, process, newest=f"step_{SFT_STEPS + 2:06d}")
        self.goes_on(run_dir, expected)

    def check_ranks(self, ranks, *layout):
        run_dir, expected = self.run_of_one_step()
        for rank in range(ranks):
            process = self.start(run_dir, *layout, ranks=ranks)
            self.wait_for_phase(run_dir, process, "generate", rank=ranks - 1)
            os.kill(self.pids(run_dir, process, ranks)[rank], signal.SIGTERM)
            self.stopped(run_dir, process)
        self.goes_on(run_dir, expected)

    def test_any_of_two_colocated_ranks(self):
        self.check_ranks(2)

    def test_a_learner_and_an_actor(self):
        self.check_ranks(2, "cluster.placement=split")

    def test_two_learners_and_an_actor(self):
        self.check_ranks(3, "cluster.placement=split", "cluster.learners=2")

    def test_usr1_by_mpirun(self):
        run_dir, expected = self.run_of_one_step()
        process = self.start(run_dir, ranks=2)
        self.wait_for_phase(run_dir, process, "generate")
        process.send_signal(signal.SIGUSR1)
        self.stopped(run_dir, process)
        self.goes_on(run_dir, expected)

    def test_launch(self):
        run_dir, expected = self.run_of_one_step()
        for stop in (signal.SIGTERM, signal.SIGHUP):
            process = self.start(run_dir, words=("launch", "-n", "2"))
            self.wait_for_phase(run_dir, process, "generate")
            process.send_signal(stop)
            self.stopped(run_dir, process)
        # To a rank instead: the job ends as asked, and nobody restarts it.
        process = self.start(run_dir, words=("launch", "-n", "2"))
        self.wait_for_phase(run_dir, process, "generate")
        os.kill(self.pids(run_dir, process, 2)[1], signal.SIGTERM)
        self.stopped(run_dir, process)
        self.goes_on(run_dir, expected)

    def test_in_a_validation_which_comes_again(self):
        """After step 2, whose samples are learned from: that step is kept."""
        run_dir, expected = self.run_of_one_step()
        second = f"step_{SFT_STEPS + 2:06d}"
        process = self.start(run_dir)
        self.wait_for_phase(run_dir, process, f"validate step {SFT_STEPS + 2}", timeout=120)
        process.send_signal(signal.SIGTERM)
        self.stopped(run_dir, process, newest=second)
        manifest = json.loads((run_dir / "checkpoints" / second / "manifest.json").read_text())
        self.assertTrue(manifest["state"]["validation_due"])
        # And again, by the other rank of two, in what comes first now.
        process = self.start(run_dir, ranks=2)
        self.wait_for_phase(run_dir, process, f"validate step {SFT_STEPS + 2}")
        os.kill(self.pids(run_dir, process, 2)[1], signal.SIGTERM)
        self.stopped(run_dir, process, newest=second)
        self.goes_on(run_dir, expected)

    def test_in_the_last_validation(self):
        run_dir, expected = self.run_of_one_step(newest=f"step_{SFT_STEPS + 2:06d}")
        process = self.start(run_dir)
        self.wait_for_phase(run_dir, process, f"validate step {SFT_STEPS + 3}", timeout=120)
        process.send_signal(signal.SIGTERM)
        self.stopped(run_dir, process, newest=LAST)
        self.goes_on(run_dir, expected)
        result = self.ok("train", QUICKSTART, f"run_dir={run_dir}", *OPTIONS)
        self.assertIn("nothing to do", result.stderr)

    def test_an_update_that_has_changed_nothing_is_dropped(self):
        """On one rank: 512 prompts of 32 samples take seconds to learn from, in many
        micro-batches."""
        run_dir = self.folder / "run"
        options = ["trainer.total_training_steps=1", "trainer.test_freq=0", "data.train_batch_size=512", "rollout.n=32",
                   "rollout.max_num_seqs=512", "actor.ppo_max_token_len_per_gpu=256"]
        process = self.start(run_dir, *options, fault="")
        self.wait_for_phase(run_dir, process, "update", timeout=120)
        process.send_signal(signal.SIGTERM)
        self.stopped(run_dir, process, newest=f"step_{SFT_STEPS:06d}")

    def test_a_dropped_update_leaves_the_step_before_to_be_saved(self):
        """The policy is tried before a save, with the same kernels and the same signs of progress
        as an update."""
        run_dir = self.folder / "run"
        options = ["trainer.total_training_steps=2", "trainer.save_freq=0", "trainer.test_freq=0", "data.train_batch_size=512",
                   "rollout.n=32", "rollout.max_num_seqs=512", "actor.ppo_max_token_len_per_gpu=256"]
        process = self.start(run_dir, *options, fault="")
        self.wait_for_phase(run_dir, process, f"update step {SFT_STEPS + 2}", timeout=120)
        process.send_signal(signal.SIGTERM)
        self.stopped(run_dir, process, newest=f"step_{SFT_STEPS + 1:06d}")

    def test_a_second_request_ends_it_now(self):
        run_dir, expected = self.run_of_one_step()
        for first, second in ((signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM),
                              (signal.SIGTERM, signal.SIGHUP)):
            process = self.start(run_dir, fault="engine.step:hang@3")
            self.wait_for_phase(run_dir, process, "generate")
            time.sleep(0.5)
            for stop in (first, second, signal.SIGUSR1):  # within a second: one request
                process.send_signal(stop)
            time.sleep(1.2)
            process.send_signal(signal.SIGUSR1)  # what is passed on never counts
            time.sleep(0.3)
            self.assertIsNone(process.poll(), self.log())
            process.send_signal(second)
            self.assertEqual(process.wait(timeout=PATIENCE), 128 + second, self.log())
            self.assertIn(f"asked to stop again, by {second.name}: ending at once", self.log())
        self.goes_on(run_dir, expected)

    def test_a_second_request_during_a_save(self):
        run_dir, expected = self.run_of_one_step()
        process = self.start(run_dir, "trainer.save_freq=-1",
                             fault=f"checkpoint.write:hang@2;{SLOW}")
        self.wait_for_phase(run_dir, process, f"generate step {SFT_STEPS + 3}", timeout=120)
        process.send_signal(signal.SIGTERM)
        time.sleep(1.5)
        self.assertIsNone(process.poll(), self.log())
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=PATIENCE), 128 + signal.SIGTERM, self.log())
        self.goes_on(run_dir, expected)

    def test_a_second_request_to_one_of_two_ranks_ends_both(self):
        run_dir, expected = self.run_of_one_step()
        process = self.start(run_dir, ranks=2, fault="engine.step:hang@3,rank=0")
        self.wait_for_phase(run_dir, process, "generate")
        time.sleep(0.5)
        rank = self.pids(run_dir, process, 2)[1]
        os.kill(rank, signal.SIGTERM)
        time.sleep(1.2)
        os.kill(rank, signal.SIGTERM)
        self.assertEqual(process.wait(timeout=PATIENCE), 128 + signal.SIGTERM, self.log())
        self.assertEqual(rank_pids(run_dir), {})
        self.goes_on(run_dir, expected)

    def test_nohup(self):
        run_dir, expected = self.run_of_one_step()
        process = self.start(run_dir, fault="",
                             preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        self.wait_for_phase(run_dir, process, "")
        process.send_signal(signal.SIGHUP)
        self.assertEqual(process.wait(timeout=120), 0, self.log())
        self.assertEqual(self.checkpoint_hash(run_dir), expected)

    def test_an_evaluation_just_ends(self):
        run_dir, _ = self.run_of_one_step()
        process = self.start(run_dir, f"--checkpoint={run_dir}", words=("eval",),
                             fault="engine.step:hang@3")
        while "hang injected" not in self.log():
            self.assertIsNone(process.poll(), self.log())
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=PATIENCE), -signal.SIGTERM, self.log())


class ClosedPipes(Case):
    def read_of(self, *words, lines=0, ignored=False, ranks=0):
        """(exit code, stderr) of a command whose reader leaves after some lines."""
        process = subprocess.Popen(command(*words, ranks=ranks), stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env=environment(), text=True,
                                   stdin=subprocess.DEVNULL, restore_signals=not ignored)
        for _ in range(lines):
            process.stdout.readline()
        process.stdout.close()
        stderr = process.stderr.read()
        process.stderr.close()
        return process.wait(timeout=120), stderr

    def test_listings_end_quietly(self):
        run_dir = self.folder / "run"
        self.ok("train", QUICKSTART, f"run_dir={run_dir}", *LEARNS, "trainer.rollout_save_freq=1")
        rollouts = sorted((run_dir / "rollouts").iterdir())[0]
        for words in (("rollouts", rollouts, "--limit", "1000"), ("ckpt", "ls", run_dir), ("config", QUICKSTART), ("config", "--faults"),
                      ("eval", QUICKSTART, *LEARNS, "--checkpoint", run_dir)):
            for ignored in (False, True):
                code, stderr = self.read_of(*words, ignored=ignored)
                self.assertIn(code, (0, -signal.SIGPIPE), (words, stderr))
                self.assertNotIn("orrery:", stderr, words)
        with open("/dev/full", "w") as full:  # which is a full disk
            result = subprocess.run(command("config", QUICKSTART), stdout=full,
                                    stderr=subprocess.PIPE, text=True, env=environment())
        self.assertEqual(result.returncode, 1)
        self.assertIn("could not be written", result.stderr)

    def test_a_run_goes_on(self):
        for name, words, ranks in (("alone", ("train",), 0), ("two", ("train",), 2),
                                   ("launch", ("launch", "-n", "1"), 0)):
            run_dir = self.folder / name
            code, stderr = self.read_of(*words, QUICKSTART, f"run_dir={run_dir}", *LEARNS,
                                        lines=1 if name == "alone" else 0, ranks=ranks)
            # mpirun itself takes no SIGPIPE any more once it is clearing up.
            self.assertIn(code, (0, -signal.SIGPIPE) if ranks else (0,), stderr)
            self.assertEqual(json.loads((run_dir / "status.json").read_text())["state"], "done")
            self.assertNotIn("could not be written", stderr)

    def test_a_run_without_anyone_to_hear_its_errors_goes_on(self):
        for words in (("train",), ("launch", "-n", "1")):
            run_dir = self.folder / words[0]
            reader, writer = os.pipe()
            process = subprocess.Popen(command(*words, QUICKSTART, f"run_dir={run_dir}",
                                               *LEARNS), stdout=writer, stderr=writer,
                                       env=environment(), stdin=subprocess.DEVNULL)
            os.close(writer)
            os.close(reader)
            self.assertEqual(process.wait(timeout=120), 0)
            self.assertEqual(json.loads((run_dir / "status.json").read_text())["state"], "done")


if __name__ == "__main__":
    unittest.main()
