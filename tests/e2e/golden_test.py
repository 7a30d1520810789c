"""Real tiny models: greedy ids and log-probs against an independent float64 forward."""
import json
import unittest

from harness import Case


class Greedy(Case):
    def check(self, model, prompt, new):
        folder = self.needs_asset(f"models/{model}")
        golden = json.loads((folder / "golden_greedy.json").read_text())
        result = json.loads(
            self.ok("generate", "--model", folder, "--prompt", prompt, "--max-new-tokens", new,
                    "--temperature", 0, "--json").stdout)
        self.assertEqual(result["prompt_ids"] + result["ids"], golden["ids"])
        self.assertEqual(len(result["ids"]), new)
        begin = len(result["prompt_ids"]) - 1
        for ours, theirs in zip(result["logprobs"], golden["logprobs"][begin:]):
            self.assertAlmostEqual(ours, theirs, delta=1e-4)

        ids = self.folder / "ids.json"
        ids.write_text(json.dumps(golden["ids"]))
        forced = json.loads(self.ok("logprobs", "--model", folder, "--ids", ids,
                                    "--json").stdout)["logprobs"]
        for ours, theirs in zip(forced, golden["logprobs"]):
            self.assertAlmostEqual(ours, theirs, delta=1e-4)
        self.assertEqual(forced[begin:], result["logprobs"], "learner and engine agree bit for bit")

    def test_tinystories(self):
        self.check("tinystories-656k", "Once upon a time", 122)

    def test_stories260k(self):
        self.check("stories260K-hf", "", 199)


if __name__ == "__main__":
    unittest.main()
