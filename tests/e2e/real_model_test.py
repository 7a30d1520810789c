"""SmolLM2-135M-Instruct's chat answers against Hugging Face transformers: the same greedy ids,
token by token.

    ORRERY_SMOLLM2=DIR v/bin/python tests/e2e/real_model_test.py

DIR: the model as a Hugging Face folder. Needs torch and transformers in the interpreter that runs
this; without them or the folder it is skipped. About a minute on one core.
"""
import json
import os
import pathlib
import unittest

from harness import Case

NEW = 200
PROMPTS = [
    "What is the capital of France, and what is it known for?",
    "Write a short story about a lighthouse keeper and a whale.",
    "Explain to a child why the sky is blue.",
    "Tom has 12 apples, gives 5 away and buys 9 more. How many has he? Think step by step.",
    "Name three uses of a paper clip: one usual, one unusual — and one in French, s'il vous plaît.",
]


class RealModel(Case):
    def setUp(self):
        super().setUp()
        folder = os.environ.get("ORRERY_SMOLLM2")
        if not folder:
            self.skipTest("set ORRERY_SMOLLM2 to a Hugging Face folder of SmolLM2-135M-Instruct")
        self.model = pathlib.Path(folder)
        try:
            import torch
            import transformers
        except ImportError as error:
            self.skipTest(f"needs torch and transformers: {error}")
        torch.set_num_threads(1)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.model)
        self.reference = transformers.AutoModelForCausalLM.from_pretrained(
            self.model, dtype=torch.float32)
        # Both go on after an end-of-sequence token, so that every prompt has NEW tokens to compare.
        self.reference.generation_config.eos_token_id = None

    def theirs(self, prompt):
        inputs = self.tokenizer.apply_chat_template([{"role": "user", "content": prompt}],
                                                    add_generation_prompt=True, return_tensors="pt",
                                                    return_dict=True)
        ids = self.reference.generate(**inputs, max_new_tokens=NEW, do_sample=False)[0].tolist()
        begin = inputs["input_ids"].shape[1]
        return ids[:begin], ids[begin:]

    def test_greedy_chat(self):
        arguments = [item for prompt in PROMPTS for item in ("--prompt", prompt)]
        lines = self.ok("generate", "--model", self.model, "--chat", *arguments, "--max-new-tokens",
                        NEW, "--temperature", 0, "--ignore-eos", "--threads", 1,
                        "--json").stdout.splitlines()
        self.assertEqual(len(lines), len(PROMPTS))
        for prompt, line in zip(PROMPTS, lines):
            with self.subTest(prompt=prompt):
                ours = json.loads(line)
                prompt_ids, ids = self.theirs(prompt)
                self.assertEqual(ours["prompt_ids"], prompt_ids)
                self.assertEqual(len(ids), NEW)
                self.assertEqual(ours["ids"], ids)


if __name__ == "__main__":
    unittest.main()
