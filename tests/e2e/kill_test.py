"""A run killed at named points (ORRERY_FAULT), then resumed on the same or another layout, always
ends in the bits of the run that was never killed. (train_test.py kills at random moments.) And what
else can be injected is found, told and survived."""
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from harness import QUICKSTART, Case, command, environment, metrics

# Every stage, as small as it gets: 2 steps of SFT, 3 of RL, a save after each, rollouts of each RL
# step and of both validations.
TINY = ["sft.total_training_steps=2", "sft.train_batch_size=8", "trainer.total_training_steps=3", "data.train_batch_size=4",
        "rollout.n=2", "data.val_size=4", "trainer.save_freq=1", "trainer.max_ckpt_to_keep=2", "trainer.rollout_save_freq=1",
        "cluster.threads=1", "rollout.kv_cache_gb=0.01"]
ALONE, PAIR, SPLIT = (0, "colocated"), (2, "colocated"), (2, "split")
STEPS = 5


def train(run_dir, layout, fault=""):
    ranks, placement = layout
    return subprocess.run(
        command("train", QUICKSTART, f"run_dir={run_dir}", f"cluster.placement={placement}", *TINY,
                ranks=ranks), capture_output=True, text=True,
        env=environment() | {"ORRERY_FAULT": fault, "OMPI_MCA_odls_base_sigkill_timeout": "0"},
        timeout=120, stdin=subprocess.DEVNULL)


class Kills(Case):
    @classmethod
    def setUpClass(cls):
        cls.shared = pathlib.Path(tempfile.mkdtemp(prefix="orrery-kill-"))
        cls.addClassCleanup(shutil.rmtree, cls.shared, ignore_errors=True)
        result = train(cls.shared / "whole", ALONE)
        assert result.returncode == 0, result.stderr

    def setUp(self):
        super().setUp()
        self.whole = self.checkpoint_hash(self.shared / "whole")
        self.kills = 0
        self.lines = [(row["step"], row["stage"], row["stage_step"]) for row in metrics(self.shared / "whole")]

    def killed(self, fault, layout):
        result = train(self.folder / "run", layout, fault)
        self.assertNotEqual(result.returncode, 0, f"{fault} did not strike on {layout}")
        if layout[0] == 0:
            self.assertEqual(result.returncode, -9, f"{fault}: {result.stderr}")
            self.assertIn("injected at " + fault.split(":")[0], result.stderr)
        self.kills += 1

    def ends_in_the_same_bits(self, layout, after):
        run_dir = self.folder / "run"
        result = train(run_dir, layout)
        self.assertEqual(result.returncode, 0,
                         f"resumed after {after} on {layout}: {result.stderr}")
        self.assertEqual(self.checkpoint_hash(run_dir), self.whole,
                         f"after {after}, resumed on {layout}")
        self.ok("ckpt", "verify", run_dir)
        rows = metrics(run_dir)
        self.assertEqual([row["step"] for row in rows if row["stage"] != "val"],
                         list(range(1, STEPS + 1)), f"each step once, after {after}")
        for path in (self.shared / "whole/rollouts").glob("*.h5"):  # weight versions too
            self.assertEqual((run_dir / "rollouts" / path.name).read_bytes(), path.read_bytes(),
                             f"{path.name} after {after}")
        self.assertEqual([(row["step"], row["stage"], row["stage_step"]) for row in rows],
                         self.lines, f"each line once, after {after}")
        self.check_tensorboard(run_dir, f"after {after}")
        self.assertEqual(sorted(path.name for path in (run_dir / "rollouts").iterdir()),
                         sorted(path.name for path in (self.shared / "whole/rollouts").iterdir()),
                         f"after {after}")
        left = [path.name for path in (run_dir / "checkpoints").iterdir() if ".tmp-" in path.name]
        self.assertEqual(left, [], "nothing is left of killed saves")
        shutil.rmtree(run_dir)

    def kill_and_resume(self, kills, then=ALONE):
        """Each kill strikes the run that the one before left; then the run is finished."""
        for fault, layout in kills:
            self.killed(fault, layout)
        self.ends_in_the_same_bits(then, kills)

    def test_in_saves(self):
        for fault in ("checkpoint.copy:crash", "checkpoint.copy:crash@4", "checkpoint.write:crash",
                      "checkpoint.write:crash@11", "checkpoint.write:torn@2",
                      "checkpoint.write:torn@16", "checkpoint.publish:crash",
                      "checkpoint.publish:crash@3", "checkpoint.publish:crash@5",
                      "checkpoint.remove:crash", "checkpoint.remove:crash@2"):
            self.kill_and_resume([(fault, ALONE)])
        self.assertEqual(self.kills, 11)

    def test_in_updates_and_generation(self):
        for fault in ("learner.update:crash", "learner.update:crash@4", "optimizer.step:crash@2",
                      "optimizer.step:crash@5", "engine.step:crash", "engine.step:crash@5",
                      "engine.step:crash@12"):
            self.kill_and_resume([(fault, ALONE)])
        self.assertEqual(self.kills, 7)

    def test_a_validation_is_listed_once_wherever_the_kill_comes(self):
        # The one before RL comes after the last save of SFT, so that it is done again.
        self.assertEqual([line for line in self.lines if line[1] == "val"], [(2, "val", 0), (5, "val", 3)])
        for faults in (["learner.update:crash@3"], ["metrics.write:crash@3"],
                       ["metrics.write:torn@3"], ["metrics.write:crash@4"], [
                           "learner.update:crash@3", "learner.update:crash",
                           "metrics.write:crash@2", "engine.step:crash"
                       ], ["metrics.write:crash@6"], ["metrics.write:torn@7"
                                                     ], ["checkpoint.write:crash@20"]):
            self.kill_and_resume([(fault, ALONE) for fault in faults])
        self.assertEqual(self.kills, 11)

    def test_in_files(self):
        for fault in ("file.write:torn", "file.write:crash@4", "file.write:torn@9",
                      "rollout.write:crash", "rollout.write:crash@3", "rollout.write:crash@4",
                      "metrics.write:crash", "metrics.write:torn@4"):
            self.kill_and_resume([(fault, ALONE)])
        self.assertEqual(self.kills, 8)

    def test_again_and_again(self):
        self.kill_and_resume([("learner.update:crash@2", ALONE), ("checkpoint.read:crash", ALONE),
                              ("checkpoint.read:crash@2", ALONE),
                              ("checkpoint.write:torn@3", ALONE), ("engine.step:crash@3", ALONE),
                              ("optimizer.step:crash@2", ALONE)], then=PAIR)

    def test_two_ranks(self):
        self.kill_and_resume([("optimizer.step:crash@2,rank=1", PAIR),
                              ("lease.send:crash,rank=1", PAIR),
                              ("checkpoint.write:crash@3,rank=1", PAIR)])
        self.kill_and_resume([("checkpoint.publish:crash@2", PAIR),
                              ("trajectory.send:crash,rank=1", PAIR),
                              ("learner.update:crash@2,rank=0", PAIR)], then=PAIR)

    def test_an_actor_of_its_own(self):
        self.kill_and_resume([("weights.publish:crash,rank=1", SPLIT),
                              ("engine.step:crash@2,rank=1", SPLIT),
                              ("weights.publish:crash@2,rank=0", SPLIT)])
        self.kill_and_resume([("lease.send:crash@2,rank=0", SPLIT),
                              ("trajectory.send:crash@3,rank=1", SPLIT)], then=PAIR)


class Injected(Kills):
    """Faults that do not end the process by themselves."""
    test_a_validation_is_listed_once_wherever_the_kill_comes = None
    test_in_saves = test_in_updates_and_generation = test_in_files = test_again_and_again = test_two_ranks = None
    test_an_actor_of_its_own = None

    def test_a_damaged_message_is_an_error_that_names_it(self):
        run_dir = self.folder / "run"
        for fault, layout, says in (("trajectory.send:corrupt@2,rank=1", SPLIT,
                                     "damaged groups message from rank 1"),
                                    ("lease.send:corrupt@2,rank=0", SPLIT,
                                     "damaged lease message from rank 0"),
                                    ("weights.publish:corrupt@2", SPLIT, "reached rank 1 damaged")):
            result = train(run_dir, layout, fault)
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertIn(says, result.stderr)
        self.ends_in_the_same_bits(ALONE, "damaged messages")

    def test_a_full_disk_costs_one_save(self):
        run_dir = self.folder / "run"
        result = train(run_dir, ALONE, "checkpoint.write:enospc@8;metrics.write:enospc@2")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("No space left on device", result.stderr)
        self.assertIn("was not saved, earlier ones are whole", result.stderr)
        self.assertEqual(self.checkpoint_hash(run_dir), self.whole)
        result = train(self.folder / "rollouts", ALONE, "rollout.write:error@3;file.write:enospc@8")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("the rollouts of step 4 (grpo 2) are not kept, training goes on",
                      result.stderr)
        self.assertEqual(self.checkpoint_hash(self.folder / "rollouts"), self.whole)
        result = train(self.folder / "last", ALONE, "checkpoint.publish:error@5")
        self.assertEqual(result.returncode, 1, "the last save must succeed")
        self.assertIn("checkpoint of step 5 was not saved: error injected at checkpoint.publish",
                      result.stderr)

    def test_a_wrong_bit_on_the_disk_is_passed_over(self):
        run_dir = self.folder / "run"
        result = train(run_dir, ALONE,
                       "checkpoint.write:corrupt@12+")  # from the third save on
        self.assertEqual(result.returncode, 0, result.stderr)
        self.fails(1, "ckpt", "verify", run_dir, says=["damaged"])
        result = train(run_dir, ALONE)
        self.assertIn("cannot be used and is passed over", result.stderr)
        for fault in ("checkpoint.read:short-read", "checkpoint.read:corrupt"):
            result = train(run_dir, ALONE, fault)
            self.assertIn("cannot be used and is passed over", result.stderr)
        self.ends_in_the_same_bits(ALONE, "wrong bits on the disk")

    def test_a_slow_disk_blocks_the_step_only_when_the_next_save_comes(self):
        run_dir = self.folder / "run"
        result = train(run_dir, PAIR, "checkpoint.publish:slow@2")
        self.assertEqual(result.returncode, 0, result.stderr)
        rows = metrics(run_dir)
        background = [row["timing_s/save_checkpoint_background"] for row in rows if "timing_s/save_checkpoint_background" in row]
        self.assertGreaterEqual(max(background), 0.1)
        self.assertEqual(len([row for row in rows if "timing_s/save_checkpoint" in row]), STEPS - 1)
        self.ends_in_the_same_bits(ALONE, "a slow disk")

    def test_an_error_during_a_save_lets_it_end_and_never_hangs(self):
        run_dir = self.folder / "run"
        for fault, saved in (("checkpoint.write:slow,rank=0", True), ("checkpoint.publish:hang@2", False)):
            result = train(run_dir, PAIR, f"{fault};learner.update:error@3,rank=1")
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertIn("error injected at learner.update", result.stderr)
            self.assertEqual((run_dir / "checkpoints/step_000002").exists(), saved, fault)
            self.ends_in_the_same_bits(ALONE, fault)

    def test_faults_are_listed_and_unknown_ones_refused(self):
        listed = self.ok("config", "--faults").stdout
        for point in ("checkpoint.write", "engine.step", "weights.publish", "optimizer.step"):
            self.assertIn(point, listed)
        self.fails(2, "config", says=["CONFIG is missing"])
        for fault, says in (("chekpoint.write:crash", "there is no point"),
                            ("engine.step:torn", "its actions are crash, hang, slow, error")):
            result = train(self.folder / "run", ALONE, fault)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertIn(says, result.stderr)
            self.assertFalse((self.folder / "run").exists())


if __name__ == "__main__":
    unittest.main()
