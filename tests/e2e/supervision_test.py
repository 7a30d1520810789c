"""orrery launch and the run's folder: nobody else gets in between two attempts, and the log says
everything once."""
import json
import os
import re
import subprocess
import time
import unittest

from harness import QUICKSTART, SHORT, Case, command, environment

# Fails at the third update of every attempt.
FAULT = dict(ORRERY_FAULT="learner.update:error@3,rank=0")


class Supervision(Case):
    def launch(self, run_dir, *words, env=None):
        log = self.folder / f"{run_dir.name}.txt"
        with open(log, "w") as out:
            process = subprocess.Popen(
                command("launch", "-n", "1", *words, QUICKSTART, f"run_dir={run_dir}",
                        *SHORT), stdout=out, stderr=out, env=dict(environment(), **(env or FAULT)),
                stdin=subprocess.DEVNULL)
        process.log = log.read_text
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def wait_for_text(self, process, text, timeout=60):
        deadline = time.time() + timeout
        while text not in process.log():
            self.assertIsNone(process.poll(), process.log())
            self.assertLess(time.time(), deadline, process.log())
            time.sleep(0.05)

    def test_nobody_gets_in_while_it_waits_to_restart(self):
        run_dir = self.folder / "run"
        process = self.launch(run_dir, "--backoff", "60", "--max-restarts", "3")
        self.wait_for_text(process, "restarting in")
        before = (run_dir / "status.json").read_text()
        result = self.fails(1, "train", QUICKSTART, f"run_dir={run_dir}", *SHORT,
                            says=["another run is using", "or orrery launch is",
                                  str(run_dir)])
        self.assertNotIn("flight recorder", result.stderr)
        # From another folder, by another name.
        os.symlink(run_dir, self.folder / "name")
        self.fails(1, "train", QUICKSTART, f"run_dir={self.folder}/name", *SHORT,
                   says=["or orrery launch is"])
        self.fails(1, "launch", "-n", "1", QUICKSTART, f"run_dir={run_dir}", *SHORT,
                   says=["another run is using"])
        self.assertEqual((run_dir / "status.json").read_text(), before)
        self.assertEqual(json.loads(before)["state"], "failed")
        self.assertIn("learner.update", json.loads(before)["error"])
        self.ok("train", QUICKSTART, f"run_dir={self.folder}/other", *SHORT)
        process.kill()
        process.wait()
        self.ok("train", QUICKSTART, f"run_dir={run_dir}", *SHORT)  # the lock went with it

    def test_a_launch_waits_for_no_train(self):
        run_dir = self.folder / "run"
        log = open(self.folder / "log.txt", "w")
        self.addCleanup(log.close)
        train = subprocess.Popen(
            command("train", QUICKSTART, f"run_dir={run_dir}", *SHORT,
                    "trainer.total_training_steps=100000"), stdout=log, stderr=log,
            env=environment())
        self.addCleanup(train.wait)
        self.addCleanup(train.kill)
        self.wait_for(run_dir / "checkpoints/step_000006", train)
        result = self.fails(1, "launch", "-n", "1", QUICKSTART, f"run_dir={run_dir}", *SHORT,
                            says=["another run is using"])
        self.assertNotIn("restarting", result.stderr)

    def test_the_banner_stands_once_and_the_state_has_the_reason(self):
        run_dir = self.folder / "run"
        process = self.launch(run_dir, "--backoff", "0.1")
        self.assertEqual(process.wait(timeout=90), 1, process.log())
        text = process.log()
        self.assertEqual(len(re.findall("restarting in", text)), 2, text)
        for line in ("RL step  ", "gradient shard ", "parameters, 1 rank"):
            self.assertEqual(text.count(line), 1, f"{line}\n{text}")
        status = json.loads((run_dir / "status.json").read_text())
        self.assertEqual((status["state"], status["exit_code"]), ("failed", 1))
        self.assertIn("learner.update", status["error"])
        self.assertEqual(text.count("flight recorder: ") > 0, True, text)

    def test_no_warnings_of_hangs_and_still_an_end(self):
        run_dir = self.folder / "run"
        self.ok("config", QUICKSTART, "cluster.hang_warn_s=0")
        self.fails(2, "config", QUICKSTART, "cluster.hang_warn_s=-1", says=["hang_warn_s"])
        result = subprocess.run(
            command("train", QUICKSTART, f"run_dir={run_dir}", *SHORT, "cluster.hang_warn_s=0",
                    "cluster.hang_timeout_s=2"), env=dict(environment(),
                                                          ORRERY_FAULT="engine.step:hang@3"),
            text=True, capture_output=True, timeout=60)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertEqual(result.stderr.count("no progress for"), 1, result.stderr)
        self.assertIn("ending all ranks", result.stderr)
        self.assertIn("flight recorder", result.stderr)
        status = json.loads((run_dir / "status.json").read_text())
        self.assertEqual((status["state"], status["exit_code"]), ("failed", 1))
        self.assertIn("no progress for", status["error"])


if __name__ == "__main__":
    unittest.main()
