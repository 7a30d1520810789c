"""Where a generation ends and which text it leaves: end ids in every place where they may stand,
stop strings that name special tokens, the text that a reward sees."""
import json
import unittest

from harness import Case, ScriptedModel, run

EOS, EOT, X, Y, Q = 256, 257, 258, 259, 260
FLAGS = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}


class Model(Case):

    def model(self, name="model", special=("<eos>", "<eot>"), words=("<x>", "<y>", "<q>"),
              chain=("A", "<x>", "<eot>", "<y>", "<eos>"), **write):
        """Says <x> <eot> <y> <eos> after "A", and then <q> for ever."""
        model = ScriptedModel(self.folder / name, special, words)
        model.default = "<q>"
        model.say_all(*chain)
        return model.write(**write)

    def generate(self, model, *options, prompt="A", tokens=6):
        result = self.ok("generate", "--model", model, "--prompt", prompt, "--temperature", 0,
                         "--max-new-tokens", tokens, "--json", *options)
        return json.loads(result.stdout)

    def says(self, model, ids, text, reason, *options, **kwargs):
        row = self.generate(model, *options, **kwargs)
        self.assertEqual((row["ids"], row["text"], row["finish_reason"]), (ids, text, reason),
                         options)

    def rollouts(self, model, *overrides, answer="A"):
        """The samples of one training step on one prompt."""
        rows, config, run_dir = self.folder / "rows.jsonl", self.folder / "run.yaml", self.folder / f"run-{model.name}"
        rows.write_text(
            json.dumps({"prompt": "A", "reward_model": {"ground_truth": answer}}) + "\n")
        config.write_text(json.dumps({
            "run_dir": str(run_dir), "model": {"path": str(model)}, "rollout": {"n": 2}, "actor": {"optim": {"lr": 0}},
            "data": {"env": "gsm8k", "train_files": [str(rows)], "train_batch_size": 1, "max_prompt_length": 10,
                     "max_response_length": 6},
            "trainer": {"total_training_steps": 1, "save_freq": -1, "tensorboard": False}, "cluster": {"threads": 1}}))
        self.ok("train", config, *overrides)
        shown = self.ok("rollouts", run_dir / "rollouts" / "step_000001.h5", "--json", "--limit", 0)
        return [json.loads(line) for line in shown.stdout.splitlines()]


class EndIds(Model):
    STOPS = {(): ([X, EOT, Y, EOS, Q, Q], "length"), (EOT,): ([X, EOT], "stop"), (EOS,): ([X, EOT, Y, EOS], "stop"),
             (EOS, EOT): ([X, EOT], "stop"), (X,): ([X], "stop"), (Q,): ([X, EOT, Y, EOS, Q], "stop")}

    def test_every_place_where_they_may_stand(self):
        typed = {"__type": "AddedToken", "content": "<eot>", **FLAGS}
        config = lambda **names: {"tokenizer_config": names}  # noqa: E731
        in_map = lambda **names: {"files": {"special_tokens_map.json": names}}  # noqa: E731
        shapes = [
            ((), {}),
            # The tokenizer's own eos_token.
            ((EOT,), config(eos_token="<eot>")),
            ((EOT,), config(eos_token={"content": "<eot>", **FLAGS})),
            ((EOT,), config(eos_token=typed)),
            ((EOT,), in_map(eos_token="<eot>")),
            ((EOT,), in_map(eos_token={"content": "<eot>", **FLAGS})),
            ((EOT,), config(eos_token="<eos>") | in_map(eos_token="<eot>")),
            ((), config(eos_token="<eos>") | in_map(eos_token=None)),
            ((EOS,), config(eos_token="<eos>", added_tokens_decoder={"257": {"content": "<eot>", "special": True, **FLAGS}})
             | in_map(eos_token="<eot>")),
            ((), config(eos_token=None)),
            ((), config(eos_token=None, pad_token="<eot>")),
            # config.json.
            ((EOT,), {"config": {"eos_token_id": EOT}}),
            ((EOT,), {"config": {"eos_token_id": [EOT]}}),
            ((EOS, EOT), {"config": {"eos_token_id": [EOS, EOT]}}),
            ((), {"config": {"eos_token_id": None}}),
            ((), {"config": {"eos_token_id": []}}),
            ((), {"config": {"bos_token_id": EOT, "pad_token_id": -1}}),
            # generation_config.json, and config.json where it says nothing.
            ((EOT,), {"generation_config": {"eos_token_id": EOT}}),
            ((EOS, EOT), {"generation_config": {"eos_token_id": [EOS, EOT]}}),
            ((EOS,), {"generation_config": {"eos_token_id": EOS}, "config": {"eos_token_id": EOT}}),
            ((EOT,), {"generation_config": {}, "config": {"eos_token_id": EOT}}),
            ((EOT,), {"generation_config": {"eos_token_id": None}, "config": {"eos_token_id": [EOT]}}),
            ((EOT,), {"generation_config": {"eos_token_id": [], "pad_token_id": -1}, "config": {"eos_token_id": EOT}}),
            # The tokenizer's eos is one of them whatever the model's files say.
            ((EOT,), config(eos_token="<eot>") | {"config": {"eos_token_id": EOS}}),
            ((EOT,), config(eos_token="<eot>") | {"generation_config": {"eos_token_id": [EOS]}}),
            ((EOT,), in_map(eos_token="<eot>") | {"generation_config": {"eos_token_id": EOS}, "config": {"eos_token_id": Q}}),
            # Ids of ordinary tokens.
            ((X,), {"config": {"eos_token_id": X}}),
            ((Q,), {"generation_config": {"eos_token_id": [Q]}}),
        ]
        for number, (ends, files) in enumerate(shapes):
            with self.subTest(files=files):
                row = self.generate(self.model(f"shape{number}", **files))
                self.assertEqual((row["ids"], row["finish_reason"]), self.STOPS[ends])

    def test_a_class_may_name_the_eos(self):
        for tokenizer_class, ends in (("Qwen2Tokenizer", (EOT,)), ("GPT2TokenizerFast", (EOT,)),
                                      ("PreTrainedTokenizerFast", ()), (None, ())):
            with self.subTest(tokenizer_class=tokenizer_class):
                model = self.model(str(tokenizer_class), special=("<eos>", "<|endoftext|>"),
                                   chain=("A", "<x>", "<|endoftext|>", "<y>", "<eos>"),
                                   tokenizer_class=tokenizer_class)
                row = self.generate(model)
                self.assertEqual((row["ids"], row["finish_reason"]), self.STOPS[ends])

    def test_an_exported_folder_ends_where_its_source_does(self):
        shapes = [{"config": {"eos_token_id": [EOS, EOT]}},
                  {"generation_config": {"eos_token_id": EOT}, "config": {"eos_token_id": EOS}},
                  {"generation_config": {}, "config": {"eos_token_id": EOT}},
                  {"files": {"special_tokens_map.json": {"eos_token": "<eot>"}}},
                  {"eos_token": "<eot>", "config": {"eos_token_id": None}}, {}]
        for number, files in enumerate(shapes):
            with self.subTest(files=files):
                model = self.model(f"model{number}", **files)
                checkpoint, out = self.folder / f"checkpoint{number}", self.folder / f"export{number}"
                self.ok("ckpt", "import", model, checkpoint)
                self.ok("ckpt", "export", "--format", "hf", checkpoint, out)
                before, after = self.generate(model), self.generate(out)
                self.assertEqual((after["ids"], after["finish_reason"]),
                                 (before["ids"], before["finish_reason"]))

    def test_bad_ids_are_named(self):
        for name in ("config", "generation_config"):
            for ids in (-1, 9999, "2", True, [257, None], 1.5, {"a": 1}):
                with self.subTest(file=name, ids=ids):
                    model = self.model(f"bad-{name}-{ids}".replace("/", ""),
                                       **{name: {"eos_token_id": ids}})
                    result = run("generate", "--model", model, "--prompt", "A")
                    self.assertIn(result.returncode, (1, 2))
                    self.assertRegex(result.stderr, rf"\A.*{name}.json: eos_token_id.*\n\Z")


class Text(Model):
    def test_named_tokens_are_special_and_a_stop_id_is_no_text(self):
        """</s> ends a response, and is flagged special nowhere in tokenizer.json."""
        decoder = {"257": {"content": "</s>", "special": True, **FLAGS}}
        shapes = [{"eos_token": "</s>"},
                  {"files": {"special_tokens_map.json": {"eos_token": "</s>"}}},
                  {"config": {"eos_token_id": 257}},
                  {"generation_config": {"eos_token_id": [257, 258]}},
                  {"added_tokens_decoder": decoder, "config": {"eos_token_id": 257}}]
        for number, files in enumerate(shapes):
            with self.subTest(files=files):
                model = self.model(f"text{number}", special=(), words=("#### 42", "</s>", "<q>"),
                                   chain=("A", "#### 42", "</s>"), **files)
                self.says(model, [256, 257], "#### 42", "stop")
                samples = self.rollouts(model, answer="42")
                self.assertEqual(
                    {(s["response"], s["reward"], tuple(s["tokens"])) for s in samples},
                    {("#### 42", 1.0, (256, 257))})

    def test_other_named_tokens_leave_the_text(self):
        names = [{name: "<y>"} for name in ("bos_token", "unk_token", "sep_token", "pad_token",
                                            "cls_token", "mask_token", "image_token")]
        names += [{"additional_special_tokens": ["<y>"]}, {"extra_special_tokens": ["<y>"]},
                  {"added_tokens_decoder": {"259": {"content": "<y>", "special": True, **FLAGS}}}]
        for number, name in enumerate(names):
            with self.subTest(name=name):
                self.says(self.model(f"named{number}", tokenizer_config=name),
                          [X, EOT, Y, EOS, Q, Q], "<x><q><q>", "length")

    def test_an_ignored_eos_is_text_unless_it_is_special(self):
        model = self.model(config={"eos_token_id": [X, EOT]})
        self.says(model, [X], "", "stop")
        self.says(model, [X, EOT, Y, EOS, Q, Q], "<x><y><q><q>", "length", "--ignore-eos")


class StopStrings(Model):
    def test_a_special_token_becomes_a_stop_id(self):
        model = self.model()
        self.says(model, [X, EOT], "<x>", "stop", "--stop", "<eot>")
        self.says(model, [X, EOT, Y, EOS], "<x><y>", "stop", "--stop", "<eos>", "--stop", "never")
        self.says(model, [X, EOT], "<x>", "stop", "--stop", "<eot>", "--ignore-eos")
        samples = self.rollouts(model, 'rollout.stop=["<eot>"]')
        self.assertEqual({(s["response"], s["finish_reason"], tuple(s["tokens"])) for s in samples},
                         {("<x>", "stop", (X, EOT))})

    def test_so_does_one_that_only_a_name_makes_special(self):
        model = self.model(pad_token="<y>")
        self.says(model, [X, EOT, Y], "<x>", "stop", "--stop", "<y>")

    def test_a_special_token_among_other_text(self):
        model = self.model(special=("<eos>", "<eot>"),
                           chain=("A", "b", "<eot>", "\n", "<eos>", "<x>"))
        for stop, ids, text in (("<eot>\n", [98, EOT, 10], "b\n"), ("b<eot>", [98, EOT], "b"),
                                ("<eot>\n<eos>", [98, EOT, 10, EOS],
                                 "b\n"), ("\n<eos>", [98, EOT, 10,
                                                      EOS], "b\n"), ("b\n", [98, EOT, 10], "b\n"),
                                ("\n", [98, EOT,
                                        10], "b\n"), (" <eot>", None, None), ("eot>", None, None),
                                ("<eot", None, None), ("<eot><eos>", None, None)):
            with self.subTest(stop=stop):
                if ids:
                    self.says(model, ids, text, "stop", "--stop", stop)
                else:
                    self.says(model, [98, EOT, 10, EOS, X, Q], "b\n<x><q>", "length", "--stop",
                              stop)

    def test_ordinary_tokens_stay_in_the_text(self):
        model = self.model(chain=("A", "<x>", "<eot>", "<y>", "a", "b"),
                           words=("<x>", "<y>", "<q>"))
        self.says(model, [X, EOT, Y], "<x><y>", "stop", "--stop", "<y>")
        self.says(model, [X, EOT, Y], "<x><y>", "stop", "--stop", "y>")
        self.says(model, [X, EOT, Y, 97, 98], "<x><y>ab", "stop", "--stop", ">ab")
        self.says(model, [X, EOT, Y, 97, 98], "<x><y>ab", "stop", "--stop", "ab", "--stop", "abc")

    def test_the_spelling_of_a_special_token_stops_too(self):
        """Made of ordinary bytes."""
        model = self.model(chain=("A", "<", "e", "o", "t", ">", "b"))
        self.says(model, [ord(c) for c in "<eot>"], "<eot>", "stop", "--stop", "<eot>")


class TemplateNames(Model):
    TEMPLATE = "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ unk_token }}|{% for m in messages %}{{ m.content }}{% endfor %}"

    def rendered(self, name, **files):
        tokenizer_config = {"chat_template": self.TEMPLATE, **files.pop("tokenizer_config", {})}
        row = self.generate(self.model(name, tokenizer_config=tokenizer_config, **files), "--chat",
                            tokens=1)
        return "".join(
            chr(i) if i < 256 else {EOS: "<eos>", EOT: "<eot>", X: "<x>", Y: "<y>"}[i]
            for i in row["prompt_ids"])

    def test_ids_of_the_model_are_no_names(self):
        ids = {"bos_token_id": EOS, "eos_token_id": EOT, "pad_token_id": X}
        # The shape of Qwen2.5 and Qwen3: bos_token null, and a bos_token_id.
        qwen = {"bos_token": None, "eos_token": "<eot>", "pad_token": "<eos>"}
        self.assertEqual(self.rendered("a", tokenizer_config=qwen, generation_config=ids),
                         "|<eot>|<eos>||A")
        self.assertEqual(
            self.rendered("b", tokenizer_config=qwen,
                          config={"bos_token_id": EOS, "eos_token_id": EOT}), "|<eot>|<eos>||A")
        self.assertEqual(
            self.rendered("c", generation_config=ids,
                          config={"bos_token_id": EOS, "eos_token_id": EOT}), "||||A")

    def test_names_of_both_files(self):
        in_map = {"special_tokens_map.json": {"bos_token": "<eos>", "pad_token": {"content": "<x>", **FLAGS}, "unk_token": None}}
        self.assertEqual(self.rendered("a", files=in_map), "<eos>||<x>||A")
        self.assertEqual(self.rendered("b", files=in_map, tokenizer_config={"bos_token": "<y>", "unk_token": "<y>", "eos_token": "<eot>"}),
                         "<eos>|<eot>|<x>||A")


class AddedFlags(Model):
    def test_add_bos_and_eos_token_change_nothing(self):
        model = self.model(bos_token="<eos>", eos_token="<eot>", add_bos_token=True,
                           add_eos_token=True)
        self.assertEqual(self.generate(model)["prompt_ids"], [65])


if __name__ == "__main__":
    unittest.main()
