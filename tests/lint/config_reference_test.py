#!/usr/bin/env python3
"""docs/config.md has every key of proto/config.proto, and the script that writes it notices when it
has not."""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools/lint/config_reference.py"


def run(root, *args):
    return subprocess.run([sys.executable, SCRIPT, "--root", root, *args], capture_output=True,
                          text=True)


class ConfigReference(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="orrery-reference-"))
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        for name in ("proto/config.proto", "docs/config.md"):
            (self.root / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)

    def edit(self, name, old, new):
        text = (self.root / name).read_text()
        self.assertIn(old, text)
        (self.root / name).write_text(text.replace(old, new, 1))

    def test_it_is_current(self):
        result = run(ROOT, "--check")
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_it_has_every_key_with_a_comment(self):
        text = (ROOT / "docs/config.md").read_text()
        keys = re.findall(r"^### (\S+)\n(.+\n)+\n(.*)", text, re.M)
        fields = re.findall(r"^  (?:optional|repeated|map<string, string>) ",
                            (ROOT / "proto/config.proto").read_text(), re.M)
        self.assertGreater(len(keys), len(fields) - 20)
        self.assertEqual(len(keys), len({name for name, _, _ in keys}))
        for name, _, comment in keys:
            self.assertFalse(comment.startswith("#") or not comment, f"{name} says nothing")
        for line in text.splitlines():
            self.assertLessEqual(len(line), 200, line)
        self.assertIn("### rollout.compute_dtype\n`same`, `f32` or `bf16`; default `same`.", text)
        self.assertIn("### model.compute_dtype\n`f32` or `bf16`; default `f32`.", text)

    def test_links_lead_somewhere(self):
        text = (ROOT / "docs/config.md").read_text()
        headings = {re.sub(r"[^a-z0-9_ -]", "", line[3:].lower()).replace(" ", "-")
                    for line in text.splitlines() if line.startswith("## ")}
        for target in re.findall(r"\]\(([^)]+)\)", text):
            if target.startswith("#"):
                self.assertIn(target[1:], headings)
            else:
                self.assertTrue((ROOT / "docs" / target).exists(), target)

    def test_a_change_of_either_is_found_and_mended(self):
        for name, old, new in (("proto/config.proto", "[default = 100, (range)", "[default = 101, (range)"),
                               ("proto/config.proto", "// Samples of each prompt.", "// Samples of every prompt."),
                               ("proto/config.proto", "optional int64 n = 1", "optional int64 samples = 1"),
                               ("docs/config.md", "### actor.ppo_epochs\n", "### actor.epochs\n")):
            with self.subTest(new):
                self.edit(name, old, new)
                result = run(self.root, "--check")
                self.assertEqual(result.returncode, 1)
                self.assertRegex(result.stderr, r"^docs/config.md:\d+: not what proto/config.proto says; run tools/lint/config_reference.py\n$")
                self.assertEqual(run(self.root).returncode, 0)
                self.assertEqual(run(self.root, "--check").returncode, 0)


if __name__ == "__main__":
    unittest.main()
