"""bf16 of tensor cores, computed by the CUDA backend in the emulator (docs/cuda.md): RL from a
checkpoint that SFT on cpu-dot16 left ends in the hash of cpu-dot16, however batches and micro-batches
are cut, on 1 and 2 ranks and across a kill, and what it recorded passes the audit on a CPU."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest
from unittest import mock

import harness
from emulated_cuda_test import EMULATED
from harness import SOURCE, Case, command, environment, metrics, run

MODEL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 16, "vocab_size": 1000, "max_position_embeddings": 1200}
# Two tiles of keys, three, and more than a split of 1,024; every answer is a digit, as imitated.
LENGTHS = [100, 131, 180, 1100, 128, 300, 129, 256]
CONFIG = """
model: {path: model, from_scratch: true, compute_dtype: bf16}
data: {env: gsm8k, train_batch_size: 4, max_prompt_length: 1120, max_response_length: 4, shuffle: false,
       answer_extraction: flexible}
sft: {total_training_steps: 30, train_batch_size: 16, max_length: 40, optim: {lr: 1e-2, lr_warmup_steps: 1}}
rollout: {n: 4, max_num_seqs: 16}
actor: {ppo_max_token_len_per_gpu: 4096, optim: {lr: 1e-3}}
trainer: {total_training_steps: 3, save_freq: 1, max_ckpt_to_keep: 4, rollout_save_freq: 1, tensorboard: false}
cluster: {threads: 1}
"""


def digits(length, seed):
    """A prompt of so many tokens, one of them <bos>, that asks for a digit."""
    return "".join(str((seed * 7 + i * i) % 10) for i in range(length - 2)) + "="


@unittest.skipUnless(pathlib.Path(EMULATED).exists(), "this build has no emulator")
class EmulatedBf16(Case):
    @classmethod
    def setUpClass(cls):
        """A run on cpu-dot16, and a copy of what SFT left of it."""
        super().setUpClass()
        cls.home = pathlib.Path(tempfile.mkdtemp(prefix="orrery-emulated-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.home, ignore_errors=True)
        shutil.copytree(SOURCE / "experiments/quickstart_model", cls.home / "model")
        config = json.loads((cls.home / "model/config.json").read_text())
        (cls.home / "model/config.json").write_text(json.dumps(config | MODEL))
        (cls.home / "config.yaml").write_text(CONFIG)
        rows = [{"question": digits(length, i), "answer": f"#### {i % 10}"} for i, length in enumerate(LENGTHS)]
        (cls.home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        pairs = [{"prompt": digits(20, i), "response": str(i % 10)} for i in range(40)]
        (cls.home / "sft.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
        cls.cpu = cls.home / "cpu"
        done = run(*cls.words(cls.cpu, "device=cpu-dot16"))
        assert done.returncode == 0, done.stdout + done.stderr
        cls.start = cls.home / "sft"
        shutil.copytree(cls.cpu, cls.start)
        for step in (31, 32, 33):
            shutil.rmtree(cls.start / f"checkpoints/step_{step:06}")

    @classmethod
    def words(cls, run_dir, *options):
        return ["train", cls.home / "config.yaml", f"run_dir={run_dir}", f"data.train_files=[{cls.home / 'rows.jsonl'}]",
                f"sft.train_files=[{cls.home / 'sft.jsonl'}]", *options]

    def setUp(self):
        super().setUp()
        self.cpu_bin = harness.BIN
        harness.BIN = EMULATED
        self.addCleanup(setattr, harness, "BIN", self.cpu_bin)
        self.enterContext(mock.patch.dict(os.environ, ORRERY_EMULATOR_MEMORY_MB="128"))

    def train(self, name, *options, ranks=0):
        result = run(*self.words(self.folder / name, "device=cuda", *options), ranks=ranks, timeout=600)
        self.assertEqual(result.returncode, 0, f"{name}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}")
        steps = [row for row in metrics(self.folder / name) if row["stage"] == "grpo"]
        self.assertEqual(len(steps), 3)
        self.assertEqual(max(row["rollout/logprob_diff_max"] for row in steps), 0)
        self.assertGreater(min(row["actor/grad_norm"] for row in steps), 0)
        return self.checkpoint_hash(self.folder / name)

    def test_runs_have_the_bits_of_cpu_dot16(self):
        wanted = self.checkpoint_hash(self.cpu)
        shutil.copytree(self.start, self.folder / "one")
        self.assertEqual(self.train("one"), wanted)
        # What it recorded was drawn and scored so: computed anew on the CPU.
        harness.BIN = self.cpu_bin
        for step in (31, 33):
            self.ok("audit", self.folder / f"one/rollouts/step_{step:06}.h5", "--checkpoint",
                    self.folder / f"one/checkpoints/step_{step - 1:06}")

    def test_other_cuts_on_two_ranks_and_a_kill(self):
        cuts = ["actor.ppo_max_token_len_per_gpu=300", "rollout.max_num_seqs=5", "rollout.max_num_batched_tokens=96"]
        shutil.copytree(self.start, self.folder / "two")
        killed = subprocess.run(command(*self.words(self.folder / "two", "device=cuda", *cuts), ranks=2), capture_output=True,
                                text=True, timeout=600, env=environment() | {"ORRERY_FAULT": "optimizer.step:crash@2"})
        self.assertNotEqual(killed.returncode, 0)
        self.assertTrue((self.folder / "two/checkpoints/step_000031").exists(), killed.stderr)
        self.assertFalse((self.folder / "two/checkpoints/step_000032").exists(), killed.stderr)
        self.assertEqual(self.train("two", *cuts, ranks=2), self.checkpoint_hash(self.cpu))

    def test_actors_on_cpus(self):
        """Of the GPU's class they are its equals; of another, what they drew is recomputed and weighted."""
        split = ["cluster.placement=split", "trainer.total_training_steps=1"]
        for name, device in (("equal", "cpu-dot16"), ("other", "cpu")):
            shutil.copytree(self.start, self.folder / name)
            result = run(*self.words(self.folder / name, "device=cuda", f"rollout.device={device}", *split), ranks=2, timeout=600)
            self.assertEqual(result.returncode, 0, result.stdout[-3000:] + result.stderr[-3000:])
            (step,) = [row for row in metrics(self.folder / name) if row["stage"] == "grpo"]
            if name == "other":
                self.assertGreater(step["rollout/logprob_diff_max"], 0)
                self.assertIn("rollout_corr/rollout_is_mean", step)
            else:
                self.assertEqual(step["rollout/logprob_diff_max"], 0)
                first = self.cpu / "checkpoints/step_000031"
                wanted = json.loads(self.ok("ckpt", "hash", first, "--json").stdout)["hash"]
                self.assertEqual(self.checkpoint_hash(self.folder / name), (first.name, wanted))

    def test_a_gpu_of_another_class_is_refused(self):
        with mock.patch.dict(os.environ, ORRERY_EMULATOR_CAPABILITY="80"):
            result = run(*self.words(self.folder / "old", "device=cuda"))
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertIn("device cuda:0 has compute capability 8.0 (emulated), whose tensor cores are not known to sum as those of 9.x "
                          "and 10.x (H100, H200, B200): use f32 instead of bf16, or another device", result.stderr)
            self.ok("logprobs", "--model", self.cpu, "--ids", self.ids(), "--device", "cuda")
            self.fails(2, "logprobs", "--model", self.cpu, "--ids", self.ids(), "--device", "cuda", "--dtype", "bf16",
                       says=["compute capability 8.0"])

    def ids(self):
        path = self.folder / "ids.json"
        path.write_text("[1, 5, 6, 3]")
        return path


if __name__ == "__main__":
    unittest.main()
