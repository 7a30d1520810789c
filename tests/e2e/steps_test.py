"""A run has one step number, SFT and RL steps done, wherever it is shown; the stage and its own
count stand beside it."""
import json
import re
import subprocess
import unittest

from harness import QUICKSTART, SHORT, Case, command, environment, metrics

SFT, RL = 6, 4
ALL = [(step, "sft", step) for step in range(1, SFT + 1)] + [(SFT + step, "grpo", step) for step in range(1, RL + 1)]


class Steps(Case):
    def test_one_number_everywhere(self):
        run_dir = self.folder / "run"
        options = [QUICKSTART, f"run_dir={run_dir}", *SHORT, "trainer.save_freq=1", "trainer.max_ckpt_to_keep=100",
                   "trainer.test_freq=2", "trainer.rollout_save_freq=1"]
        result = self.ok("train", *options, "trainer.tensorboard=true")
        text = result.stdout + result.stderr

        rows = metrics(run_dir)
        self.assertEqual([
            (row["step"], row["stage"], row["stage_step"]) for row in rows if row["stage"] != "val"
        ], ALL)
        validations = [(row["step"], row["stage_step"]) for row in rows if row["stage"] == "val"]
        self.assertEqual(validations, [(6, 0), (8, 2), (10, 4)])
        self.check_tensorboard(run_dir)

        self.assertEqual(re.findall(r"^validation at step (\d+) \(grpo (\d+)/4\) \|", text, re.M),
                         [(str(a), str(b)) for a, b in validations])
        lines = re.findall(r"^step (\d+) \((\w+) (\d+)/(\d+)\) \|", text, re.M)
        self.assertEqual(lines, [(str(step), stage, str(own), str({"sft": SFT, "grpo": RL}[stage]))
                                 for step, stage, own in ALL
                                 if stage == "grpo" or step == SFT])

        self.assertEqual(sorted(path.name for path in (run_dir / "checkpoints").iterdir()),
                         [f"step_{step:06}" for step, _, _ in ALL])
        listed = json.loads(self.ok("ckpt", "ls", run_dir, "--json").stdout)
        self.assertEqual([(row["step"], row["stage"], row["stage_step"]) for row in listed], ALL)
        self.assertRegex(self.ok("ckpt", "ls", run_dir).stdout, r"\n +10  grpo 4 ")
        self.assertIn("step        10 (grpo 4)", self.ok("ckpt", "show", run_dir).stdout)
        self.assertEqual(json.loads(self.ok("ckpt", "hash", run_dir, "--json").stdout)["step"], 10)

        self.assertEqual(sorted(path.name for path in (run_dir / "rollouts").glob("*.h5")),
                         [*(f"step_{step:06}.h5" for step, stage, _ in ALL if stage == "grpo"),
                          *(f"val_step_{step:06}.h5" for step, _ in validations)])
        rows = [json.loads(line) for line in self.ok("rollouts", run_dir, "--stage", "val", "--json").stdout.splitlines()]
        self.assertEqual([(row["step"], row["stage"], row["stage_step"]) for row in rows[::20]],
                         [(6, "val", 0), (8, "val", 2), (10, "val", 4)])
        row = json.loads(
            self.ok("rollouts", run_dir / "rollouts/step_000009.h5", "--json", "--limit",
                    "1").stdout)
        self.assertEqual((row["step"], row["stage"], row["stage_step"]), (9, "grpo", 3))

        status = json.loads((run_dir / "status.json").read_text())
        self.assertEqual((status["step"], status["stage"], status["stage_step"]), (10, "grpo", 4))

        more = self.ok("train", *options)
        self.assertIn("step_000010 at step 10 (grpo 4)", more.stderr)
        self.assertIn("is complete at step 10 (grpo 4/4); nothing to do", more.stderr)

    def test_phases_of_a_run_that_fails_have_it_too(self):
        result = subprocess.run(
            command("train", QUICKSTART, f"run_dir={self.folder / 'run'}", *SHORT,
                    "trainer.test_freq=-1"), text=True, capture_output=True,
            env=dict(environment(), ORRERY_FAULT="learner.update:error@8"), timeout=120)
        self.assertEqual(result.returncode, 1, result.stderr)
        phases = [line.split("ago: ")[1] for line in result.stderr.splitlines() if "ago: " in line and "step" in line]
        self.assertEqual(phases[-5:], ["validate step 6", "generate step 7", "update step 7", "generate step 8", "update step 8"])

    def test_rollouts_of_steps_that_are_done_again_go(self):
        run_dir = self.folder / "run"
        options = [QUICKSTART, f"run_dir={run_dir}", *SHORT]
        result = subprocess.run(
            command("train", *options, "trainer.save_freq=2",
                    "trainer.rollout_save_freq=1"), capture_output=True, text=True,
            env=dict(environment(),
                     ORRERY_FAULT="engine.step:slow;learner.update:crash@10"), timeout=120)
        self.assertEqual(result.returncode, -9,
                         result.stderr)  # after step 9; the newest checkpoint is of step 8
        self.assertTrue((run_dir / "rollouts/step_000009.h5").exists())
        result = self.ok("train", *options, "trainer.rollout_save_freq=2")
        self.assertIn("removed the rollouts of 1 step(s) after step 8, which come again",
                      result.stderr)
        self.assertEqual(sorted(path.name for path in (run_dir / "rollouts").glob("*.h5")),
                         ["step_000007.h5", "step_000008.h5", "step_000010.h5", "val_step_000006.h5", "val_step_000010.h5"])


if __name__ == "__main__":
    unittest.main()
