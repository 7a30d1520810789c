"""tools/lint/layering.py finds each kind of violation where it stands, and nothing in a tree that
keeps the rules."""
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "tools" / "lint" / "layering.py"

CLEAN = {
    "core/error.h": "#pragma once\n#include <string>\n",
    "proto/trajectory.proto": 'syntax = "proto3";\n',
    "kernels/matmul.h": '#pragma once\n#include "core/error.h"\n',
    "kernels/cpu/matmul.cc": '#include "kernels/matmul.h"\n#include "hwy/highway.h"\n',
    "comm/mpi_comm.cc": '#include <mpi.h>\n#include "proto/trajectory.pb.h"\n',
    "storage/checkpoint_io.cc": '#include <hdf5.h>\n#include "models/transformer.h"\n',
    "models/transformer.h": '#pragma once\n#include "kernels/matmul.h"\n',
    "rollout/trajectory.h": "#pragma once\n",
    "rollout/engine.h": '#pragma once\n#include "rollout/trajectory.h"\n',
    "learners/step.cc": '#include "rollout/trajectory.h"\n',
    "actors/loop.h": '#pragma once\n#include "rollout/engine.h"\n',
    "experiments/sync.cc": '#include "actors/loop.h"\n',
    "tools/main.cc": "int main() { return 0; }\n",
    "tests/mpi/comm_test.cc": "#include <mpi.h>\n",
}


class Layering(unittest.TestCase):
    def check(self, changes):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in {**CLEAN, **changes}.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            done = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True,
                                  timeout=60)
            return done.returncode, done.stdout

    def expect(self, name, text, place, words):
        code, output = self.check({name: text})
        self.assertEqual(code, 1, output)
        self.assertEqual(len(output.splitlines()), 1, output)
        self.assertTrue(output.startswith(place + ":"), output)
        self.assertIn(words, output)

    def test_a_tree_that_keeps_the_rules(self):
        self.assertEqual(self.check({}), (0, "layering: clean\n"))

    def test_upward_include(self):
        self.expect("core/bad.cc", '#include "core/error.h"\n#include "kernels/matmul.h"\n',
                    "core/bad.cc:2", "core/ may not include kernels/matmul.h")

    def test_upward_include_in_angle_brackets(self):
        self.expect("comm/bad.cc", "#  include <kernels/matmul.h>\n", "comm/bad.cc:1",
                    "comm/ may not include")

    def test_actors_and_learners_do_not_see_each_other(self):
        self.expect("learners/bad.cc", '#include "actors/loop.h"\n', "learners/bad.cc:1",
                    "learners/ may not include")
        code, output = self.check(
            {"learners/loss.h": "#pragma once\n", "actors/bad.cc": '#include "learners/loss.h"\n'})
        self.assertEqual(code, 1)
        self.assertIn("actors/bad.cc:1: actors/ may not include learners/loss.h", output)

    def test_learners_see_only_the_trajectory_of_rollout(self):
        self.expect("learners/bad.cc", '#include "rollout/engine.h"\n', "learners/bad.cc:1",
                    "only trajectory.h")

    def test_headers_with_a_place(self):
        self.expect("models/bad.cc", "#include <mpi.h>\n", "models/bad.cc:1",
                    "mpi.h belongs to comm/")
        self.expect("models/bad.cc", "\n#include <hdf5.h>\n", "models/bad.cc:2",
                    "hdf5.h belongs to")
        self.expect("learners/bad.cc", "#include <cuda_runtime.h>\n", "learners/bad.cc:1",
                    "CUDA's headers")
        self.expect("models/bad.cc", '#include "proto/trajectory.pb.h"\n', "models/bad.cc:1",
                    "generated protobuf")

    def test_paths_start_at_the_root_and_exist(self):
        self.expect("kernels/bad.cc", '#include "matmul.h"\n', "kernels/bad.cc:1",
                    "path from the root")
        self.expect("kernels/bad.cc", '#include "../core/error.h"\n', "kernels/bad.cc:1",
                    "path from the root")
        self.expect("kernels/bad.cc", '#include "core/gone.h"\n', "kernels/bad.cc:1",
                    "does not exist")
        self.expect("comm/bad.cc", '#include "proto/gone.pb.h"\n', "comm/bad.cc:1",
                    "generated from proto/gone.proto")

    def test_long_file(self):
        self.expect("models/long.cc", "\n" * 601, "models/long.cc:601", "601 lines")
        self.assertEqual(self.check({"models/long.cc": "\n" * 600})[0], 0)

    def test_header_without_a_guard(self):
        self.expect("core/bad.h", "#include <string>\n", "core/bad.h:1", "#pragma once")

    def test_unknown_folder(self):
        self.expect("helpers/bad.cc", "\n", "helpers/bad.cc:1", "not a folder of the house")

    def test_the_repository_itself(self):
        done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == "__main__":
    unittest.main()
