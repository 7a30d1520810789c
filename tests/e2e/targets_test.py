"""A whole SFT and GRPO run gives the same checkpoint on every instruction set that this CPU has."""
import subprocess
import unittest

from harness import BIN, LEARNS, QUICKSTART, Case, command, environment, metrics


class Targets(Case):
    def test_instruction_set_changes_no_bit(self):
        for dtype in ("f32", "bf16"):
            hashes = {}
            # AMX multiplies bf16 alone; its kernels run in emulation where it is absent.
            for target in ("avx2", "avx512", "neon") + (("amx", "amx-emulated") if dtype == "bf16" else ()):
                env = environment() | {"ORRERY_CPU_TARGET": target}
                if subprocess.run([BIN, "config", QUICKSTART], env=env, capture_output=True).returncode != 0:
                    continue
                run_dir = self.folder / dtype / target
                subprocess.run(
                    command("train", QUICKSTART, f"run_dir={run_dir}",
                            f"model.compute_dtype={dtype}", *LEARNS), env=env, check=True,
                    capture_output=True, timeout=300)
                hashes[target] = self.checkpoint_hash(run_dir)
                rows = metrics(run_dir)
                self.assertTrue(any(row.get("actor/grad_norm", 0) > 0 for row in rows if row["stage"] == "grpo"), "RL must learn something")
            if len(hashes) < 2:
                self.skipTest(f"this CPU has only {', '.join(hashes)}: nothing to compare")
            self.assertEqual(len(set(hashes.values())), 1, hashes)


if __name__ == "__main__":
    unittest.main()
