#!/usr/bin/env python3
"""`orrery ckpt` from the outside, on a tiny model written here with the standard library alone."""
import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import tempfile
import unittest

ORRERY = os.environ["ORRERY_BIN"]
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 12,
          "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 11,
          "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "eos_token_id": 2}
SHAPES = {"model.embed_tokens.weight": [11, 8], "model.norm.weight": [8],
          "model.layers.0.input_layernorm.weight": [8], "model.layers.0.post_attention_layernorm.weight": [8],
          "model.layers.0.self_attn.q_proj.weight": [8, 8], "model.layers.0.self_attn.k_proj.weight": [4, 8],
          "model.layers.0.self_attn.v_proj.weight": [4, 8], "model.layers.0.self_attn.o_proj.weight": [8, 8],
          "model.layers.0.mlp.gate_proj.weight": [12, 8], "model.layers.0.mlp.up_proj.weight": [12, 8],
          "model.layers.0.mlp.down_proj.weight": [8, 12]}


def write_model(folder, seed):
    """Writes a Hugging Face folder; returns tensor name -> bytes."""
    folder.mkdir(parents=True)
    generator = random.Random(seed)
    header, data, tensors = {}, b"", {}
    for name, shape in SHAPES.items():
        count = shape[0] * (shape[1] if len(shape) == 2 else 1)
        blob = struct.pack(f"<{count}f", *(generator.uniform(-1, 1) for _ in range(count)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(blob)]}
        data += blob
        tensors[name] = blob
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    return tensors


def read_safetensors(path):
    blob = path.read_bytes()
    (length,) = struct.unpack("<Q", blob[:8])
    header = json.loads(blob[8:8 + length])
    data = blob[8 + length:]
    return {name: data[slice(*entry["data_offsets"])] for name, entry in header.items() if name != "__metadata__"}


class CkptTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="orrery_ckpt_"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.tensors = write_model(self.folder / "a", 1)
        write_model(self.folder / "b", 2)
        self.step = self.folder / "run" / "checkpoints" / "step_000000"
        self.ckpt("import", self.folder / "a", self.step)

    def ckpt(self, *args, code=0):
        done = subprocess.run([ORRERY, "ckpt", *map(str, args)], capture_output=True, text=True,
                              timeout=60)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stderr if code else done.stdout

    def test_ls_show_verify_hash(self):
        rows = json.loads(self.ckpt("ls", self.folder / "run", "--json"))
        self.assertEqual([(r["step"], r["stage"], r["good"], r["ranks"]) for r in rows],
                         [(0, "import", True, 1)])
        self.assertIn("step_000000", self.ckpt("ls", self.folder / "run"))
        shown = json.loads(self.ckpt("show", self.folder / "run", "--json"))
        self.assertEqual({t["name"]: t["shape"] for t in shown["tensors"]}, SHAPES)
        norm = struct.unpack("<8f", self.tensors["model.norm.weight"])
        stats = next(t for t in shown["tensors"] if t["name"] == "model.norm.weight")
        self.assertAlmostEqual(stats["norm"], sum(x * x for x in norm) ** 0.5, places=12)
        self.assertEqual((stats["min"], stats["max"], stats["nan"]), (min(norm), max(norm), 0))
        text = self.ckpt("show", self.step)
        self.assertIn("model.layers.0.mlp.up_proj.weight", text)
        self.assertIn(shown["hash"], text)
        self.assertEqual(self.ckpt("hash", self.step).strip(), shown["hash"])
        self.assertTrue(json.loads(self.ckpt("verify", self.step, "--json"))["good"])
        self.assertEqual(shown["modules"], [{"name": "policy", "trainable": True, "tensors": 11}])
        self.assertIn("modules     policy (11 tensors)", text)
        self.assertEqual(self.ckpt("hash", self.step, "--module", "policy").strip(), shown["hash"])
        self.assertIn('step_000000 has no module "critic"; its modules are policy',
                      self.ckpt("hash", self.step, "--module", "critic", code=1))

    def test_export_gives_the_same_weights_and_the_tokenizer(self):
        out = self.folder / "out"
        self.ckpt("export", "--format", "hf", self.folder / "run", out)
        self.assertEqual(read_safetensors(out / "model.safetensors"), self.tensors)
        self.assertEqual((out / "tokenizer.json").read_text(), '{"model": {"type": "BPE"}}')
        written = json.loads((out / "config.json").read_text())
        for key, value in CONFIG.items():
            self.assertEqual(written[key], value)
        self.assertIn("not an empty folder", self.ckpt("export", self.folder / "run", out, code=1))
        again = self.folder / "again" / "step_000000"
        self.ckpt("import", out, again)
        self.assertTrue(self.ckpt("diff", self.step, again).endswith("identical\n"))

    def test_diff_counts_what_differs(self):
        other = self.folder / "other" / "step_000000"
        self.ckpt("import", self.folder / "b", other)
        self.assertIn("of 11 tensors in both, 11 differ in weights, 0 in adam_m",
                      self.ckpt("diff", self.step, other))
        diff = json.loads(self.ckpt("diff", self.step, other, "--json"))
        self.assertFalse(diff["identical"])
        self.assertGreater(diff["tensors"][0]["weights"]["max_abs"], 0)

    def test_damage_is_found_and_named_in_one_line(self):
        path = self.step / "rank_0000_of_0001.h5"
        blob = bytearray(path.read_bytes())
        blob[len(blob) // 2] ^= 4
        path.write_bytes(blob)
        error = self.ckpt("verify", self.step, code=1)
        self.assertIn("rank_0000_of_0001.h5: damaged", error)
        self.assertEqual(len(error.splitlines()), 1)
        self.assertIn("damaged", self.ckpt("verify", self.folder / "run", code=1))
        self.assertIn("damaged", self.ckpt("export", self.step, self.folder / "x", code=1))
        self.assertIn("holds no good one", self.ckpt("show", self.folder / "run", code=1))
        self.assertFalse((self.folder / "x").exists())

    def test_usage_errors(self):
        self.ckpt("ls", self.folder / "absent", code=2)
        self.ckpt("verify", code=2)
        self.assertIn("'' is not a folder", self.ckpt("hash", "", code=2))
        self.ckpt("export", "--format", "gguf", self.step, self.folder / "x", code=2)
        self.ckpt("import", self.folder / "a", self.step, code=2)
        self.assertIn("config.json", self.ckpt("import", self.folder, self.folder / "x", code=1))
        for command in ("ls", "show", "verify", "diff", "hash", "export", "import", "convert"):
            self.assertIn("Example:\n  orrery ckpt " + command, self.ckpt(command, "--help"))


if __name__ == "__main__":
    unittest.main()
