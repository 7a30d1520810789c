#!/usr/bin/env python3
"""How far torch's bf16 autocast takes a gradient from the float32 one, on the golden models.

    python3 -m venv v && v/bin/pip install torch==2.15.0 transformers==5.23.0 safetensors numpy
    v/bin/python tests/goldens/make_bf16_gradients.py tests/goldens

Reads the folders that make_goldens.py wrote and writes bf16_gradients.json: for each model and case
the distance |g_autocast - g| / |g| in the 2-norm over all parameters. Both gradients are of float32
weights and of the same loss in float32; under autocast the forward pass, and with it the backward
pass of its products, is bf16. tests/learners/bf16_gradient_test.cc holds ours against it.

Cases: `golden`, the GRPO loss of golden.safetensors; `long`, the mean cross entropy of the
responses of SEQUENCES random sequences of LENGTH tokens, of which the first PROMPT are the prompt.
autocast rounds the logits to bf16; the loss takes them to float32 before anything else, so that
what is measured is the model and not a loss in bf16, which would be further off.
"""
import importlib.metadata
import json
import pathlib
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import make_goldens as goldens

SEQUENCES, LENGTH, PROMPT, SEED = 4, 64, 4, 11
ATTENTION = ("eager", "sdpa")


def logits_of(model, ids, autocast):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        return model(ids, use_cache=False).logits.float()


def golden_loss(model, golden, autocast):
    """make_goldens.make's loss, with the old and reference log-probs that it stored."""
    prompt, loss, tokens = golden["prompt"].long(), 0, sum(goldens.RESPONSES)
    for i, advantage in enumerate(goldens.ADVANTAGES):
        response = golden[f"response.{i}"].long()
        logits = logits_of(model, torch.cat([prompt, response])[None], autocast)
        logp_all = torch.log_softmax(logits[0, len(prompt) - 1:-1] / goldens.TEMPERATURE, -1)
        logp = logp_all.gather(1, response[:, None])[:, 0]
        entropy = -(logp_all.exp() * logp_all).sum(-1)
        old, ref = golden[f"old_logprobs.{i}"], golden[f"ref_logprobs.{i}"]
        ratio = torch.exp(logp - old)
        clipped = ratio.clamp(1 - goldens.CLIP_LOW, 1 + goldens.CLIP_HIGH)
        pg = torch.maximum(-advantage * ratio, -advantage * clipped)
        kl = torch.exp(ref - logp) - (ref - logp) - 1
        terms = pg + goldens.KL_COEF * kl - goldens.ENTROPY_COEF * entropy
        loss = loss + terms.sum() / tokens
    return loss


def long_loss(model, ids, autocast):
    logits = logits_of(model, ids, autocast)[:, PROMPT - 1:-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, PROMPT:].flatten())


def gradient(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.double() for name, p in model.named_parameters()}


def distance(values, exact):
    """|values - exact| / |exact| over all tensors, and of the worst one."""
    differences = {name: (values[name] - g).square().sum() for name, g in exact.items()}
    norms = {name: g.square().sum() for name, g in exact.items()}
    whole = (sum(differences.values()) / sum(norms.values())).sqrt().item()
    worst = max(exact, key=lambda name: differences[name] / norms[name])
    return {"distance": float(f"{whole:.6g}"), "worst_tensor": worst,
            "worst_distance": float(f"{(differences[worst] / norms[worst]).sqrt().item():.6g}")}


def measure(folder, ids):
    golden = load_file(str(folder / "golden.safetensors"))
    cases = {"golden": lambda model, autocast: golden_loss(model, golden, autocast),
             "long": lambda model, autocast: long_loss(model, ids, autocast)}
    rows = {case: {} for case in cases}
    for attention in ATTENTION:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32,
                                                     attn_implementation=attention).eval()
        for case, loss_of in cases.items():
            loss = loss_of(model, False)
            exact = gradient(model, loss)
            rows[case]["loss"] = float(f"{loss.item():.9g}")
            rows[case][attention] = distance(gradient(model, loss_of(model, True)), exact)
            if case == "golden":  # the goldens' own gradients, or the loss above is another one
                stored = {name: golden["grad." + name].double() for name in exact}
                assert distance(exact, stored)["distance"] < 1e-5, folder
    return rows


def lines(brackets, parts):
    return brackets[0] + "\n" + ",\n".join(parts) + "\n" + brackets[1]


def main():
    root = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)  # sums in one order, whatever the machine
    generator = torch.Generator().manual_seed(SEED)
    vocabulary = goldens.COMMON["vocab_size"]
    ids = torch.randint(0, vocabulary, (SEQUENCES, LENGTH), generator=generator)
    models = {}
    for name in goldens.MODELS:
        models[name] = measure(root / name, ids)
        print(name, *(f"{case} {attention} {row[attention]['distance']:.4g}"
                      for case, row in models[name].items() for attention in ATTENTION))
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    head = {"versions": versions, "seed": SEED, "prompt_length": PROMPT}
    sections = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    sections.append('"tokens": ' + lines("[]", map(json.dumps, ids.tolist())))
    rows = (f"{json.dumps(name)}: {json.dumps(row)}" for name, row in models.items())
    sections.append('"models": ' + lines("{}", rows))
    (root / "bf16_gradients.json").write_text(lines("{}", sections) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
