"""docs/tutorial.md does what it says: its commands are run as they stand, in a folder that looks
like the repository's root."""
import pathlib
import re
import subprocess
import unittest
from harness import BIN, SOURCE, Case, environment

TUTORIAL = SOURCE / "docs/tutorial.md"


def commands(section):
    """The bash blocks under a heading that begins with this number, as one script."""
    text = TUTORIAL.read_text(encoding="utf-8")
    part = re.search(rf"^## {section}\..*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL).group(0)
    return "\n".join(re.findall(r"^```bash\n(.*?)^```", part, re.MULTILINE | re.DOTALL))


class Tutorial(Case):
    def script(self, text):
        script = self.folder / "script.sh"
        script.write_text(text)
        result = subprocess.run(["bash", "-euo", "pipefail", script], cwd=self.folder,
                                env=environment(), capture_output=True, text=True, timeout=300,
                                stdin=subprocess.DEVNULL)
        self.assertEqual(result.returncode, 0, f"{text}\n{result.stdout}\n{result.stderr}")
        return result.stdout

    def test_own_rows_own_reward_a_kill_and_a_resume(self):
        for name in ("experiments", "examples"):
            (self.folder / name).symlink_to(SOURCE / name)
        binary = self.folder / "build/release/bin/orrery"
        binary.parent.mkdir(parents=True)
        binary.symlink_to(pathlib.Path(BIN).resolve())
        self.assertIn('"response"', self.script(commands(2)))
        self.assertIn('"reward": 1.0', self.script(commands(3)))
        trained = self.script(commands(4))
        self.assertRegex(trained, r"held-out accuracy: before 0\.\d+ after \d\.\d+")
        before, after = map(float, re.search(r"before (\S+) after (\S+)", trained).groups())
        self.assertGreater(after, before + 0.2)
        self.assertIn('"truth"', self.script(commands(5)))
        hashes = re.findall(r"\b[0-9a-f]{64}\b", self.script(commands(6)))
        self.assertEqual(len(hashes), 2)
        self.assertEqual(hashes[0], hashes[1])


if __name__ == "__main__":
    unittest.main()
