"""device=debug: the CPU's kernels on memory that only ops, uploads and downloads may touch. Any
other access of the program to a model's memory ends it, so a run that ends well had none, and its
bits are the CPU's."""
import shutil
import unittest

from harness import QUICKSTART, Case, run

OPTIONS = ["data.arithmetic.digits=1", "data.arithmetic.zero_pad=false", "data.arithmetic.flawed_fraction=0", "data.train_batch_size=4",
           "data.val_size=4", "sft.total_training_steps=20", "sft.train_batch_size=16", "sft.optim.lr=0.01", "rollout.n=4",
           "actor.kl_loss_coef=0.01", "actor.optim.lr=0.003", "trainer.total_training_steps=3", "trainer.save_freq=1",
           "trainer.tensorboard=false", "cluster.threads=1"]


class DebugDevice(Case):
    def setUp(self):
        super().setUp()
        self.model = self.tiny_model()

    def train(self, name, *options, ranks=0):
        run_dir = self.folder / name
        result = run("train", QUICKSTART, f"run_dir={run_dir}", f"model.path={self.model}",
                     *OPTIONS, *options, ranks=ranks)
        self.assertEqual(result.returncode, 0, f"{name}\n{result.stdout}\n{result.stderr}")
        return self.checkpoint_hash(run_dir)

    def test_runs_have_the_bits_of_the_cpu(self):
        wanted = self.train("cpu")
        self.assertEqual(self.train("debug", "device=debug"), wanted)
        self.assertEqual(self.train("two", "device=debug", ranks=2), wanted)
        self.assertEqual(self.train("split", "device=debug", "cluster.placement=split", ranks=2),
                         wanted)
        self.assertEqual(self.train("mixed", "device=debug", "rollout.device=cpu", "cluster.placement=split", ranks=2),
                         wanted)
        # From the other device's checkpoint, and rollouts in bf16.
        shutil.copytree(self.folder / "cpu", self.folder / "resumed")
        for folder in ("step_000023", "step_000022"):
            shutil.rmtree(self.folder / "resumed/checkpoints" / folder)
        self.assertEqual(self.train("resumed", "device=debug"), wanted)
        self.train("bf16", "device=debug", "cluster.placement=split", "rollout.compute_dtype=bf16",
                   ranks=2)

    def test_commands(self):
        self.train("run", "device=debug")
        words = ("generate", "--model", self.folder / "run", "--prompt", "1+1=", "--temperature", "0",
                 "--max-new-tokens", "4")
        self.assertEqual(self.ok(*words, "--device", "debug").stdout, self.ok(*words).stdout)
        (self.folder / "ids.json").write_text("[1, 5, 6, 3, 9]")
        words = ("logprobs", "--model", self.folder / "run", "--ids", self.folder / "ids.json", "--json")
        self.assertEqual(self.ok(*words, "--device", "debug").stdout, self.ok(*words).stdout)
        for words in (("rollout", "--prompt-len", "4", "--gen-len", "4"), ("train", "--batch", "1", "--seq-len", "4"),
                      ("step", "--prompts", "2", "--samples", "2", "--prompt-len", "4", "--gen-len", "4")):
            for model in (self.folder / "run", self.model):  # weights, and a config without any
                self.ok("bench", *words, "--repeats", "1", "--model", model, "--device", "debug")
        # A build that has CUDA takes its name, and finds no such device.
        result = run("generate", "--model", self.folder / "run", "--prompt", "1", "--device", "cuda:63")
        self.assertEqual(result.returncode, 2)
        self.assertRegex(result.stderr, "--device is 'cuda:63', which this build has no kernels for: "
                         "use cpu or cpu-dot16 or debug|device cuda:63: .*: use (another device|cpu)")


if __name__ == "__main__":
    unittest.main()
