"""Bad input gets one clear error line and the right exit code."""
import json
import pathlib
import shutil
import struct
import unittest

from harness import QUICKSTART, SHORT, SOURCE, Case, ScriptedModel, run


class Usage(Case):
    def test_help_has_an_example_everywhere(self):
        self.assertIn("Exit codes", self.ok("--help").stdout)
        for words in (["train"], ["launch"], ["eval"], ["generate"], ["logprobs"], ["config"],
                      ["bench", "rollout"], ["bench", "train"], ["bench", "step"], ["rollouts"],
                      ["ckpt", "ls"], ["ckpt", "show"], ["ckpt", "verify"], ["ckpt", "diff"],
                      ["ckpt", "hash"], ["ckpt", "export"], ["ckpt", "import"]):
            self.assertIn("orrery " + " ".join(words), self.ok(*words, "--help").stdout, words)

    def test_bad_command_lines(self):
        for words in ([], ["no-such-command"], ["train"], ["generate", "--model", "x"], ["bench"],
                      ["generate", "--model", "x", "--prompt", "y", "--temperature",
                       "-1"], ["bench", "step", "--model", "x", "--prompts", "0"]):
            result = self.fails(2, *words)
            self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)

    def test_config_errors(self):
        self.fails(2, "train", QUICKSTART, "actor.clip_ration_low=0.1",
                   says=["clip_ration_low", "clip_ratio_low"])
        self.fails(2, "train", QUICKSTART, "actor.optim.lr=fast", says=["actor.optim.lr", "fast"])
        self.fails(2, "train", QUICKSTART, "actor.optim.lr=-1", says=["actor.optim.lr"])
        self.fails(2, "train", QUICKSTART, "actor.ppo_mini_batch_size=5",
                   says=["ppo_mini_batch_size", "train_batch_size"])
        self.fails(2, "train", QUICKSTART, "data.max_response_length=1000",
                   says=["max_response_length"])
        self.fails(2, "train", QUICKSTART, "model.path=/no/such/folder", says=["/no/such/folder"])
        self.fails(2, "train", QUICKSTART, "data.env=gsm8k", says=["train_files"])
        self.fails(2, "train", QUICKSTART, "cluster.placement=split", says=["split"])
        self.fails(2, "train", QUICKSTART, "rollout.temperature=1e-40",
                   says=["rollout.temperature is 1e-40", "float32"])
        result = self.fails(2, "train", QUICKSTART, "actor.clip_ration_low=0.1", ranks=2,
                            says=["clip_ratio_low"])
        self.assertEqual(result.stderr.count("clip_ration_low"), 1,
                         "printed once, not by every rank")
        bad = self.folder / "bad.yaml"
        bad.write_text("seed: 1\nactor:\n  clip_ration_low: 0.1\n")
        self.fails(2, "train", bad, says=["bad.yaml:3", "clip_ratio_low"])
        self.assertNotEqual(run("train", self.folder / "missing.yaml").returncode, 0)

    def test_command_lines(self):
        self.fails(2, "foo", says=["foo"])
        result = self.fails(2, "bench", "train", "--model", "x", "--batch", "0",
                            says=["--batch", "at least 1"])
        self.assertLess(len(result.stderr), 200, "no range of double")
        self.fails(2, "generate", "--model", "x", "--prompt", "a", "--seed", "-1", says=["--seed"])
        self.fails(2, "generate", "--model", str(SOURCE / "experiments/quickstart_model"),
                   "--prompt", b"\xff", says=["UTF-8"])

    def test_option_texts_are_taken_as_they_stand(self):
        model = ScriptedModel(self.folder / "m", words=["<q>", "[/INST]", "[a, b]"])
        model.default = "<q>"
        model.say_all("[", "<q>", "[/INST]", "<q>")
        model.write(eos_token="<eos>")

        def generate(*words):
            result = self.ok("generate", "--model", model.folder, "--temperature", 0,
                             "--max-new-tokens", 3, "--json", *words)
            return [json.loads(line) for line in result.stdout.splitlines()]

        def ids(text):
            return [model.ids[text]] if text in model.ids else list(text.encode())

        for text in ("[x, y]", "[]", "[,]", "[[a], [b]]", "[\"q\", 1]", "a,b", "{a, b}", "--json",
                     "-n 3", "\"quoted\"", "'x'", "%%", "a=b", " [x] ", "--", "\n", "\\"):
            rows = generate("--prompt", text)
            self.assertEqual([row["prompt_ids"] for row in rows], [ids(text)], text)
            rows = generate("--prompt=" + text, "--prompt", "z")
            self.assertEqual([row["prompt_ids"] for row in rows], [ids(text), [ord("z")]], text)
            self.assertEqual(len(generate("--prompt", "x", "--stop", text, "--stop=" + text)), 1)
        self.assertEqual(generate("--prompt", "[", "--stop", "[/INST]")[0]["finish_reason"], "stop")
        self.assertEqual(generate("--prompt", "[", "--stop=[/INST]")[0]["finish_reason"], "stop")
        self.assertEqual(
            generate("--prompt", "[", "--stop", "[a, b]", "--stop", "zz")[0]["finish_reason"],
            "length")
        # A second text behind one option is no second prompt, and an empty value does not take the
        # next option.
        self.fails(2, "generate", "--model", model.folder, "--prompt", "a", "b", says=["b"])
        for words in (["--prompt=", "--temperature", "0"], ["--prompt", ""]):
            self.fails(2, "generate", "--model", model.folder, *words, says=["--prompt is empty"])
        self.fails(2, "generate", "--model=", "--prompt", "x", says=["--model"])
        self.fails(2, "generate", "--model", model.folder, "--prompt", "x", "--stop=", "--json",
                   says=["--stop is empty"])
        self.fails(2, "train", QUICKSTART, "[seed=3,rollout.n=2]", says=["[seed=3,rollout.n=2]"])
        self.fails(2, "ckpt", "export", self.folder, "--format=", self.folder, says=["--format"])

    def test_resume_paths(self):
        self.fails(2, "train", QUICKSTART, f"run_dir={self.folder}/a", "trainer.resume=/no/such",
                   *SHORT, says=["/no/such"])
        self.ok("train", QUICKSTART, f"run_dir={self.folder}/a", *SHORT)
        result = self.ok("train", QUICKSTART, f"run_dir={self.folder}/b",
                         f"trainer.resume={self.folder}/a", *SHORT)
        self.assertIn("resumed from", result.stderr)
        # A run that began from PATH goes on; one that began otherwise keeps its checkpoints to
        # itself.
        longer = [*SHORT, f"run_dir={self.folder}/d", f"trainer.resume={self.folder}/a", "seed=2"]
        self.assertIn(
            "seed: 1 -> 2",
            self.ok("train", QUICKSTART, *longer, "trainer.total_training_steps=5").stderr)
        self.assertIn(
            "step 11",
            self.ok("train", QUICKSTART, *longer, "trainer.total_training_steps=6").stderr)
        self.fails(2, "train", QUICKSTART, f"run_dir={self.folder}/a",
                   f"trainer.resume={self.folder}/d", *SHORT, says=["began otherwise", "auto"])
        self.fails(2, "train", QUICKSTART, "run_dir=/proc/x", *SHORT, says=["run_dir", "/proc/x"])
        shutil.rmtree(self.folder / "a" / "checkpoints")
        (self.folder / "a" / "checkpoints").mkdir()
        self.fails(2, "train", QUICKSTART, f"run_dir={self.folder}/c",
                   f"trainer.resume={self.folder}/a", *SHORT, says=["holds no checkpoint"])

    def test_a_cache_too_small_for_one_sequence_is_found_before_sft(self):
        run_dir = self.folder / "run"
        self.fails(2, "train", QUICKSTART, f"run_dir={run_dir}", *SHORT,
                   "rollout.kv_cache_gb=0.0002",
                   says=["rollout.kv_cache_gb is 0.0002", "give at least"])
        self.assertFalse((run_dir / "metrics.jsonl").exists())

    def test_config_prints_every_key_and_both_batch_sizes(self):
        result = self.ok("config", QUICKSTART)
        self.assertIn("ppo_max_token_len_per_gpu", result.stdout)
        self.assertIn("32 prompts x 16 samples = 512 samples", result.stderr)
        saved = self.folder / "resolved.yaml"
        saved.write_text(result.stdout)
        self.assertEqual(self.ok("config", saved).stdout, result.stdout)

    def test_resume_off_refuses_a_used_folder(self):
        self.ok("train", QUICKSTART, f"run_dir={self.folder}", *SHORT)
        self.fails(2, "train", QUICKSTART, f"run_dir={self.folder}", "trainer.resume=off", *SHORT,
                   says=["resume"])
        self.assertIn("complete",
                      self.ok("train", QUICKSTART, f"run_dir={self.folder}", *SHORT).stderr)


class Models(Case):
    def setUp(self):
        super().setUp()
        golden = SOURCE / "tests/goldens/llama"
        tokenizer = SOURCE / "experiments/quickstart_model"
        self.model = self.folder / "model"
        self.model.mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copy(golden / name, self.model)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tokenizer / name, self.model)

    def generate(self, code, *says):
        return self.fails(code, "generate", "--model", self.model, "--prompt", "1+1=",
                          "--max-new-tokens", "4", says=says)

    def rewrite(self, change):
        path = self.model / "model.safetensors"
        blob = path.read_bytes()
        (size,) = struct.unpack("<Q", blob[:8])
        header, data = json.loads(blob[8:8 + size]), bytearray(blob[8 + size:])
        change(header, data)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data)

    def test_a_good_folder_works(self):
        self.ok("generate", "--model", self.model, "--prompt", "1+1=", "--max-new-tokens", "4")

    def test_files(self):
        path = self.model / "model.safetensors"
        blob = path.read_bytes()
        path.write_bytes(blob[:-100])
        self.generate(1, "model.safetensors")
        path.write_bytes(struct.pack("<Q", 1 << 62) + blob[8:])
        self.generate(1, "model.safetensors")
        path.write_bytes(b"")
        self.generate(1, "model.safetensors")
        path.unlink()
        self.generate(1, "safetensors")

    def test_tensors(self):
        self.rewrite(lambda header, data: header.update(
            {"model.norm.wait": header.pop("model.norm.weight")}))
        self.generate(1, "model.norm.wait")

    def test_shape(self):
        def change(header, data):
            entry = header["model.layers.0.mlp.gate_proj.weight"]
            entry["shape"] = entry["shape"][::-1]
        self.rewrite(change)
        self.generate(1, "model.layers.0.mlp.gate_proj.weight")

    def test_nan_weights(self):
        def change(header, data):
            begin = header["model.layers.1.mlp.up_proj.weight"]["data_offsets"][0]
            data[begin + 40:begin + 44] = struct.pack("<f", float("nan"))
        self.rewrite(change)
        self.generate(1, "model.layers.1.mlp.up_proj.weight")

    def test_overflow(self):
        """Weights that are finite, and too large to compute with."""
        def change(header, data):
            begin, end = header["model.layers.1.mlp.down_proj.weight"]["data_offsets"]
            data[begin:end] = struct.pack("<f", 3e38) * ((end - begin) // 4)
        self.rewrite(change)
        ids = self.folder / "ids.json"
        ids.write_text("1 2 3")
        for dtype in ("f32", "bf16"):
            self.fails(1, "logprobs", "--model", self.model, "--ids", ids, "--dtype", dtype,
                       says=[str(self.model), "at position 1 is not finite"])

    def test_configs(self):
        path = self.model / "config.json"
        config = json.loads(path.read_text())
        for change, says in (({"vocab_size": 10},
                              "vocab_size"), ({"hidden_act": "gelu"},
                                              "hidden_act"), ({"model_type": "gpt2"}, "gpt2"),
                             ({"num_attention_heads": 5},
                              "num_attention_heads"), ({"hidden_size": -1}, "hidden_size"),
                             ({"rope_parameters": {"rope_type": "longrope",
                                                   "rope_theta": 1e4}}, "longrope")):
            path.write_text(json.dumps({**config, **change}))
            self.generate(1, says)
        path.write_text("{")
        self.generate(1, "config.json")

    def test_ids(self):
        ids = self.folder / "ids.json"
        for text in ("[1, 2, 99]", "[1]", "one two", "[1, 2.5]", "", "{}"):
            ids.write_text(text)
            self.fails(1, "logprobs", "--model", self.model, "--ids", ids, says=["ids.json"])
        ids.write_text("1 2 3")
        self.assertEqual(len(json.loads(self.ok("logprobs", "--model", self.model, "--ids", ids, "--json").stdout)["logprobs"]), 2)


class Data(Case):
    def test_rows(self):
        good = json.dumps({"question": "1+1?", "answer": "two #### 2"})
        data = self.folder / "train.jsonl"
        options = [QUICKSTART, "data.env=gsm8k", f"data.train_files=[{data}]", f"data.val_files=[{data}]", "sft.total_training_steps=0",
                   f"run_dir={self.folder / 'run'}"]
        for row, says in (("{", "JSON"), ("[]", "object"), ('{"question": "x"}', "answer"), ('{"question": 3, "answer": "#### 1"}', "question"),
                          ('{"prompt": "x"}', "reward_model"), ('{"question": "x", "answer": "no mark"}', "####")):
            data.write_text(good + "\n" + row + "\n")
            self.fails(2, "train", *options,
                       says=["train.jsonl:2",
                             says])  # as final as a config error: a restart changes nothing
        data.write_text(good + "\n" +
                        json.dumps({"question": "1+1?" * 99, "answer": "two #### 2"}) + "\n")
        self.fails(2, "train", *options, "data.train_batch_size=2", "data.max_prompt_length=8",
                   says=["train.jsonl:2", "max_prompt_length"])


if __name__ == "__main__":
    unittest.main()
