"""tools/bundle.sh: the command runs from an unpacked bundle alone, with its own Open MPI and libraries,
and the checks of a GPU machine can be rehearsed there."""
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import unittest

from harness import BIN, SHORT, SOURCE, metrics

# The C library's own, which a bundle takes from the system.
SYSTEM = re.compile(r"(ld-linux.*|lib(c|m|pthread|dl|rt|resolv|util))\.so\.\d+$")
# All that a machine has to have.
TOOLS = ("awk bash cat cmp cp cut date diff dirname env expr getconf grep head id ls mkdir mktemp nproc readlink "
         "rm sed sh tail tee timeout tr wc").split()


class Bundle(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="orrery-bundle-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        archive = cls.folder / "bundle.tar.gz"
        made = subprocess.run([SOURCE / "tools/bundle.sh", archive, pathlib.Path(BIN).parents[1]], capture_output=True,
                              text=True, timeout=300)
        assert made.returncode == 0, made.stdout + made.stderr
        cls.size = archive.stat().st_size
        with tarfile.open(archive) as packed:
            packed.extractall(cls.folder)
        archive.unlink()
        cls.root = cls.folder / "orrery-bundle"
        cls.path = cls.folder / "tools"
        cls.path.mkdir()
        for tool in TOOLS:
            (cls.path / tool).symlink_to(shutil.which(tool))

    def run_there(self, *words, timeout=300):
        """Without this environment, in an empty folder, with no tools but TOOLS."""
        work = tempfile.mkdtemp(dir=self.folder)
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=timeout, cwd=work,
                              env={"PATH": str(self.path), "HOME": work}, stdin=subprocess.DEVNULL)
        return done, pathlib.Path(work)

    def test_it_is_small_and_whole(self):
        self.assertLess(self.size, 60e6)
        programs = [path for folder in ("lib", "libexec") for path in (self.root / folder).rglob("*")
                    if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"]
        self.assertGreater(len(programs), 50)
        for path in programs:
            headers = subprocess.run(["objdump", "-p", path], capture_output=True, text=True, check=True).stdout
            for needed in re.findall(r"NEEDED\s+(\S+)", headers):
                if not SYSTEM.match(needed):
                    self.assertTrue((self.root / "lib" / needed).exists(), f"{path} needs {needed}")

    def test_two_ranks_train(self):
        done, work = self.run_there(self.root / "bin/mpirun", "--oversubscribe", "--bind-to", "none", "-n", 2,
                                    self.root / "bin/orrery", "train", self.root / "share/quickstart/quickstart.yaml",
                                    "run_dir=run", *SHORT)
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        self.assertIn("2 rank(s)", done.stdout + done.stderr)
        self.assertGreater(len(metrics(work / "run")), 0)

    def test_an_older_system_is_told(self):
        minor = self.root / "lib/glibc_minor"
        kept = minor.read_text()
        self.assertGreaterEqual(int(kept), 17)
        minor.write_text("99\n")
        try:
            for program in ("orrery", "mpirun"):
                done, _ = self.run_there(self.root / "bin" / program, "--version")
                self.assertEqual(done.returncode, 2)
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
                self.assertIn("the programs of this bundle need 2.99 or later", done.stderr)
        finally:
            minor.write_text(kept)

    def test_the_suite_is_rehearsed(self):
        suite = self.root / "src/tools/gpu_suite.sh"
        done, work = self.run_there(suite, "--rehearse", "--out", "out", "hashes", "commands", "sanitizer")
        self.assertEqual(done.returncode, 0, done.stdout[-3000:] + done.stderr[-1000:])
        table = (work / "out/gpu_suite.md").read_text()
        where = "in the emulator" if (self.root / "bin/orrery-emulated").exists() else "device=debug"
        self.assertRegex(table, rf"\| hashes \| passed \| \d+ \| rehearsed: {where} \|")
        self.assertRegex(table, rf"\| commands \| passed \| \d+ \| rehearsed: {where} \|")
        self.assertRegex(table, r"\| sanitizer \| skipped \|")
        self.assertEqual([path.name for path in (work / "out").iterdir() if path.name.startswith("runs.")], [])

    def test_the_suite_stops_where_something_differs(self):
        # A command that says of the device's run what it does not say of the CPU's.
        liar = self.folder / "liar"
        liar.write_text(f"""#!/bin/sh
[ "$1 $2" = "ckpt hash" ] && case "$3" in *rl_on_device*) echo 0000; exit 0 ;; esac
exec {self.root}/bin/orrery "$@"
""")
        liar.chmod(0o755)
        done, work = self.run_there("env", f"ORRERY_BIN={liar}", self.root / "src/tools/gpu_suite.sh", "--rehearse", "--out",
                                    "out", "hashes", "commands")
        self.assertEqual(done.returncode, 1, done.stdout[-2000:])
        self.assertIn("DIFFERENT: rl_on_device ended with 0000", (work / "out/hashes.log").read_text())
        table = (work / "out/gpu_suite.md").read_text()
        self.assertIn("| hashes | FAILED |", table)
        self.assertNotIn("| commands |", table)


if __name__ == "__main__":
    unittest.main()
