"""Saves: what is on the disk is not written again."""
import os
import re
import unittest
from unittest import mock

from harness import LEARNS, QUICKSTART, Case


class Save(Case):
    def saved(self, result):
        return [int(step) for step in re.findall(r"saved \S+/step_0*(\d+) in", result.stderr)]

    def test_the_end_of_an_sft_run_saves_once(self):
        options = [f"run_dir={self.folder / 'run'}", *LEARNS, "trainer.total_training_steps=0", "trainer.save_freq=8"]
        self.assertEqual(self.saved(self.ok("train", QUICKSTART, *options)), [8, 16, 20])
        self.assertEqual(self.saved(self.ok("train", QUICKSTART, *options)), [],
                         "nothing is left to do")
        self.assertEqual(self.saved(self.ok("train", QUICKSTART, *options, ranks=2)), [])

    def test_the_end_of_a_run_saves_once(self):
        options = [f"run_dir={self.folder / 'run'}", *LEARNS, "trainer.save_freq=2"]
        self.assertEqual(self.saved(self.ok("train", QUICKSTART, *options)),
                         [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 23])

    def test_a_save_that_failed_is_made_up_for_at_the_end(self):
        options = [f"run_dir={self.folder / 'run'}", *LEARNS, "trainer.total_training_steps=0", "trainer.save_freq=0"]
        with mock.patch.dict(os.environ, ORRERY_FAULT="checkpoint.write:enospc@1"):
            result = self.ok("train", QUICKSTART, *options)
        self.assertIn("checkpoint of step 20 was not saved", result.stderr)
        self.assertEqual(self.saved(result), [20])


if __name__ == "__main__":
    unittest.main()
