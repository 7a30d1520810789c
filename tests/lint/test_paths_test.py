#!/usr/bin/env python3
"""No test names a path that another process may have: ctest -j runs tests side by side, and so do
two builds.

Folders come from tests/support/scratch.h (C++), tempfile (Python) or mktemp (bash).
"""
import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAKERS = {"tests/support/scratch.h", "tests/fuzz/fuzzing.h",
          "tests/lint/test_paths_test.py"}  # whose names are unique
FIXED = re.compile(r"TempDir\(|temp_directory_path|gettempdir|[\"' =(]/(tmp|dev/shm|var/tmp)\b")


class Paths(unittest.TestCase):
    def test_no_test_names_a_fixed_temporary_path(self):
        files = [path for path in (ROOT / "tests").rglob("*") if path.suffix in (".cc", ".h", ".py", ".sh")]
        self.assertGreater(len(files), 50)
        for path in files:
            name = str(path.relative_to(ROOT))
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if name not in MAKERS and FIXED.search(line):
                    self.fail(f"{name}:{number}: {line.strip()}")

    def test_it_would_be_found(self):
        for line in ('path(testing::TempDir()) / "a"', "x = \"/tmp/a\"", "open('/dev/shm/x')",
                     "std::filesystem::temp_directory_path()"):
            self.assertTrue(FIXED.search(line), line)
        for line in ("tempfile.mkdtemp(prefix='a')", "const ScratchFolder scratch;", "a/tmp/b",
                     "step.tmp-1"):
            self.assertFalse(FIXED.search(line), line)


if __name__ == "__main__":
    unittest.main()
