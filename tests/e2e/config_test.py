"""`orrery config --files`: what training would refuse is refused before it, and nothing is made;
templates from files."""
import bz2
import gzip
import json
import lzma
import os
import struct
import subprocess
import unittest
import zipfile

from harness import QUICKSTART, Case, ScriptedModel, run

CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
ROW = {"question": "1+1=", "answer": "#### 2"}


class FilesCase(Case):
    def setUp(self):
        super().setUp()
        model = ScriptedModel(self.folder / "model")
        model.default = "<eos>"
        model.write(eos_token="<eos>")
        self.config = self.folder / "config.yaml"
        self.config.write_text(
            "model: {path: model}\nrun_dir: " + json.dumps(str(self.folder / "run")) + "\n"
            "data: {env: gsm8k, train_files: train.jsonl, train_batch_size: 2, max_prompt_length: 40, max_response_length: 4}\n"
            "rollout: {n: 2}\ntrainer: {total_training_steps: 1, tensorboard: false}\ncluster: {threads: 1}\n")
        self.train = self.folder / "train.jsonl"
        self.rows(ROW, {"question": "what is 10+20?", "answer": "#### 30"})

    def rows(self, *rows, name="train.jsonl"):
        (self.folder / name).write_text("".join(json.dumps(r) + "\n" for r in rows))

    def check(self, *overrides):
        return self.ok("config", self.config, "--files", *overrides)

    def refused(self, *says, overrides=(), train_says_it=True):
        """By --files, in one line, and by train in the same words."""
        before = sorted(self.folder.rglob("*"))
        result = self.fails(2, "config", self.config, "--files", *overrides, says=says)
        (line,) = [one for one in result.stderr.splitlines() if "[warning]" not in one]
        self.assertEqual(sorted(self.folder.rglob("*")), before)
        if train_says_it:
            self.fails(2, "train", self.config, *overrides, says=[line.removeprefix("orrery: ")])
        return line


class WhatIsThere(FilesCase):
    def test_a_table_says_what_was_found_and_nothing_is_made(self):
        before = sorted(self.folder.rglob("*"))
        result = self.check()
        self.assertEqual(sorted(self.folder.rglob("*")), before)
        self.assertIn("2 prompts of 1 file, the longest 14 of 40 tokens", result.stdout)
        self.assertIn("parameters, headers of its weights read", result.stdout)
        self.assertRegex(result.stdout, r"KV cache +1 GiB: \d+ sequences of 44 tokens")
        self.assertNotIn("held-out", result.stdout)
        self.rows(ROW, name="val.jsonl")
        self.assertIn("held-out data   1 prompts of 1 file, the longest 4 of", self.check(
            f"data.val_files={self.folder / 'val.jsonl'}").stdout)

    def test_quickstart(self):
        result = self.ok("config", QUICKSTART, "--files")
        for text in ("weights drawn from the seed",
                     "training data   generated, the longest 7 of 8 tokens",
                     "SFT data        generated demonstrations"):
            self.assertIn(text, result.stdout)

    def test_rows_that_are_left_out_are_told(self):
        self.rows(ROW, {"question": "x" * 50, "answer": "#### 1"})
        result = self.check("data.on_error=skip")
        self.assertIn("1 prompts of 1 file", result.stdout)
        self.assertIn("1 of 2 training prompts left out", result.stderr)

    def test_texts_of_sft(self):
        (self.folder / "a.txt").write_text("one story<|endoftext|>another story")
        texts = ["sft.total_training_steps=1", f"sft.text_files={self.folder / 'a.txt'}"]
        self.assertIn("SFT data        2 examples", self.check(*texts).stdout)

    def test_too_many_threads_are_told(self):
        result = self.ok("config", self.config, "cluster.threads=4000")
        self.assertIn("cluster.threads is 4000 and this machine has", result.stderr)
        self.assertNotIn("cluster.threads is",
                         self.ok("config", self.config, "cluster.threads=1").stderr)


class WhatIsWrong(FilesCase):
    def test_files_that_are_not_there(self):
        self.train.unlink()
        self.refused(f"cannot open {self.train}: No such file or directory")
        self.train.mkdir()
        self.refused(f"{self.train} is a folder, not a JSONL file")

    def test_a_pipe_is_left_alone(self):
        self.train.unlink()
        os.mkfifo(self.train)
        self.refused(f"data.train_files: {self.train} is not a regular file", train_says_it=False)

    def test_a_prompt_that_is_too_long(self):
        self.rows(ROW, {"question": "x" * 41, "answer": "#### 1"})
        self.refused("train.jsonl:2: the prompt has 41 tokens, more than data.max_prompt_length 40")

    def test_data_of_other_formats(self):
        text = json.dumps(ROW).encode() + b"\n"
        table = b"question,answer\n1+1=,#### 2\n"
        cases = {
            "x.parquet": (b"PAR1\x15\0\x15", ["a Parquet file", "pandas.read_parquet(", "x.parquet", "duckdb -c", "x.jsonl"]),
            "x.arrow": (b"ARROW1\0\0", ["an Arrow file", "read_feather"]),
            "y.arrow": (b"\xff\xff\xff\xff\x10\x02\0\0", ["an Arrow stream", "datasets.Dataset.from_file("]),
            "x.jsonl.gz": (gzip.compress(text), ["compressed by gzip", "gzip -dc ", "x.jsonl.gz > ", "/x.jsonl"]),
            "x.jsonl.xz": (lzma.compress(text), ["compressed by xz", "xz -dc "]),
            "x.jsonl.bz2": (bz2.compress(text), ["compressed by bzip2", "bzip2 -dc "]),
            "x.jsonl.zst": (b"\x28\xb5\x2f\xfd\x04", ["compressed by zstd", "zstd -dc "]),
            "x.csv": (table, ["a CSV table", "csv.DictReader(open(", "> "]),
            "x.tsv": (table.replace(b",", b"\t"), ["a TSV table", 'delimiter="\\t"']),
            "named.jsonl": (table, ["a CSV table"]),
            "x.json": (json.dumps([ROW]).encode(), ["one JSON array over the whole file", "jq -c '.[]' ", "x.json > "]),
            "y.json": (json.dumps(ROW, indent=1).encode(), ["one JSON object over the whole file"]),
            "lfs.jsonl": (LFS.encode(), ["a pointer of Git LFS", "git lfs pull"]),
            "page.jsonl": (b"<!DOCTYPE html>\n<html>", ["a web page"]),
            "x.h5": (b"\x89HDF\r\n\x1a\n", ["an HDF5 file"]),
            "x.npy": (b"\x93NUMPY\x01", ["a NumPy file"]),
            "utf16.jsonl": (text.decode().encode("utf-16"), ["text in UTF-16", "iconv"]),
            "empty.jsonl": (b"", ["it is empty"]),
            "blank.jsonl": (b"\n \n", ["its lines are blank"]),
        }
        with zipfile.ZipFile(self.folder / "x.zip", "w") as archive:
            archive.writestr("x.jsonl", text)
        cases["x.zip"] = ((self.folder / "x.zip").read_bytes(), ["a ZIP archive", "unzip -p "])
        for name, (data, says) in cases.items():
            with self.subTest(name):
                path = self.folder / name
                path.write_bytes(data)
                for skip in ([], ["data.on_error=skip"]):
                    line = self.refused(str(path), *says,
                                        overrides=[f"data.train_files={path}", *skip],
                                        train_says_it=name in ("x.parquet", "x.csv"))
                    self.assertNotIn("\n", line)

    def test_the_command_for_a_table_works(self):
        path = self.folder / "x.csv"
        path.write_text('question,answer\n"1, 2 and 3?",#### 6\n')
        line = self.refused("a CSV table", overrides=[f"data.train_files={path}"])
        command = line.split("convert it: ")[1]
        subprocess.run(command, shell=True, check=True)
        self.assertEqual(json.loads((self.folder / "x.jsonl").read_text()),
                         {"question": "1, 2 and 3?", "answer": "#### 6"})
        self.check(f"data.train_files={self.folder / 'x.jsonl'}")

    def test_texts_of_other_formats(self):
        for name, data, says in (("a.txt.gz", gzip.compress(b"text"), "compressed by gzip"), ("lfs.txt", LFS.encode(), "Git LFS"),
                                 ("a.parquet", b"PAR1\x15", "a Parquet file")):
            (self.folder / name).write_bytes(data)
            self.refused(
                name, says,
                overrides=["sft.total_training_steps=1", f"sft.text_files={self.folder / name}"])

    def test_a_model_folder_that_is_none(self):
        self.refused("is not a folder", overrides=["model.path=nowhere"])
        weights = self.folder / "model/model.safetensors"
        data = weights.read_bytes()
        weights.unlink()
        self.refused("holds neither model.safetensors nor")
        self.assertIn("drawn from the seed", self.check("model.from_scratch=true").stdout)
        weights.write_bytes(data[:100])
        self.refused("model.safetensors")
        # A tensor of another shape.
        (size,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8:8 + size])
        name = next(name for name, tensor in header.items()
                    if name != "__metadata__" and len(tensor["shape"]) == 2)
        header[name]["shape"].reverse()
        text = json.dumps(header).encode()
        if header[name]["shape"][0] == header[name]["shape"][1]:
            del header[name]
        weights.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size:])
        self.refused(name, "has shape")
        weights.write_bytes(data)
        (self.folder / "model/tokenizer.json").unlink()
        self.refused("tokenizer.json: not found")

    def test_what_does_not_fit_the_model(self):
        self.refused("positions; lower one of them", overrides=["data.max_response_length=100000"])
        self.refused("rollout.kv_cache_gb is", overrides=["rollout.kv_cache_gb=1e-6"])
        self.refused("no chat template", overrides=["data.apply_chat_template=true"])

    def test_a_folder_to_resume_from(self):
        self.refused("trainer.resume: '", "is not a folder", overrides=["trainer.resume=nowhere"])
        (self.folder / "other/checkpoints").mkdir(parents=True)
        self.refused("holds no checkpoint", overrides=[f"trainer.resume={self.folder / 'other'}"])
        self.ok("train", self.config, f"run_dir={self.folder / 'first'}")
        self.assertRegex(
            self.check(f"trainer.resume={self.folder / 'first'}").stdout,
            r"resume +.*step_000001, step 1\n")


class Templates(FilesCase):
    def prompts(self, run_dir):
        lines = self.ok("rollouts", run_dir / "rollouts/step_000001.h5",
                        "--json").stdout.splitlines()
        return sorted({bytes(json.loads(line)["prompt_tokens"]).decode() for line in lines if line.startswith("{")})

    def run_of(self, *overrides):
        run_dir = self.folder / "trained"
        self.ok("train", self.config, f"run_dir={run_dir}", "data.max_prompt_length=300",
                *overrides)
        return run_dir

    def setUp(self):
        super().setUp()
        (self.folder / "chat.jinja").write_text(CHATML)
        self.chat = ["data.apply_chat_template=true", f"model.chat_template_file={self.folder / 'chat.jinja'}"]

    def test_a_prompt_template_of_a_file_stands_around_the_user_message_of_a_chat(self):
        (self.folder / "p.txt").write_text('{}\nAnswer after "####".\n')
        overrides = [*self.chat, f"data.prompt_template_file={self.folder / 'p.txt'}", "data.system_prompt=Be brief."]
        run_dir = self.run_of(*overrides)
        self.assertEqual(self.prompts(run_dir)[0],
                         "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+1=\nAnswer after \"####\".<|im_end|>\n"
                         "<|im_start|>assistant\n")
        # The run's config has the text: the file is not needed to go on, and another text is
        # another experiment.
        (self.folder / "p.txt").unlink()
        self.ok("train", run_dir / "config.yaml", f"run_dir={run_dir}")
        (self.folder / "p.txt").write_text("{} is?")
        self.fails(2, "train", self.config, f"run_dir={run_dir}", "data.max_prompt_length=300",
                   *overrides, says=["holds another experiment", "data.prompt_template: "])

    def test_a_chat_template_of_a_file_is_part_of_the_experiment_and_of_its_checkpoints(self):
        self.ok("config", self.config, "--files", "data.max_prompt_length=300", *self.chat)
        run_dir = self.run_of(*self.chat)
        self.assertIn("<|im_start|>user\n1+1=<|im_end|>\n<|im_start|>assistant\n",
                      self.prompts(run_dir))
        out = self.folder / "exported"
        self.ok("ckpt", "export", run_dir, "--format", "hf", out)
        self.assertEqual((out / "chat_template.jinja").read_text(), CHATML)
        self.ok("train", self.config, f"run_dir={self.folder / 'second'}", f"model.path={out}",
                "data.apply_chat_template=true", "data.max_prompt_length=300")
        # Elsewhere the same, with other words another experiment.
        (self.folder / "copy.jinja").write_text(CHATML)
        again = ["train", self.config, f"run_dir={run_dir}", "data.max_prompt_length=300", "data.apply_chat_template=true"]
        self.ok(*again, f"model.chat_template_file={self.folder / 'copy.jinja'}")
        (self.folder / "copy.jinja").write_text(CHATML.replace("user", "human") + " ")
        self.fails(2, *again, f"model.chat_template_file={self.folder / 'copy.jinja'}",
                   says=["holds another experiment", "model.chat_template_file[0]"])

    def test_what_is_no_chat_template(self):
        for name, text, says in (("none.jinja", None, "there is no such file"), ("empty.jinja", " \n", "empty"),
                                 ("bad.jinja", "{% for %}", "this chat template is not supported")):
            if text is not None:
                (self.folder / name).write_text(text)
            self.refused(name, says, overrides=["data.apply_chat_template=true", f"model.chat_template_file={self.folder / name}"])

    def test_generate_takes_one(self):
        result = self.ok("generate", "--model", self.folder / "model", "--chat", "--chat-template",
                         self.folder / "chat.jinja", "--prompt", "hi", "--print-prompt")
        self.assertIn("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", result.stdout)
        self.fails(2, "generate", "--model", self.folder / "model", "--chat-template", "x",
                   "--prompt", "hi", says=["--chat-template needs --chat"])


class Effect(FilesCase):
    def test_a_resolved_config_and_a_run_go_on(self):
        resolved = self.folder / "resolved.yaml"
        resolved.write_text(
            self.ok("config", QUICKSTART, "sft.total_training_steps=0",
                    "data.env=constraint").stdout)
        self.assertEqual(self.ok("config", resolved).stdout, resolved.read_text())
        self.ok("train", self.config)
        self.ok("train", self.folder / "run/config.yaml")

    def test_what_has_no_effect_is_named_with_its_line(self):
        self.config.write_text(self.config.read_text() + "actor:\n  kl_loss_type: k1\n")
        self.fails(2, "config", self.config,
                   says=["config.yaml:8: actor.kl_loss_type is set, but actor.kl_loss_coef is 0"])
        self.assertEqual(run("config", self.config, "actor.kl_loss_coef=0.1").returncode, 0)


if __name__ == "__main__":
    unittest.main()
