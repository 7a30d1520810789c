#!/usr/bin/env python3
"""transformers on PyTorch beside Orrery: generate() with 64 sequences, forward + backward over 8 x 256 tokens.

    VENV/bin/python bench/peers/transformers_bench.py --models build/bench_models --case train

Prints one JSON line a figure: {peer, case, setting, role, value, unit}. Attention is SDPA. --precision: f32, autocast (f32
weights, products in bf16) or bf16 (bf16 weights); figures of the latter two have "_bf16" in their case's name, whichever
way they came about.
Cases: generate (64 in + 192 out, end of sequence ignored), train (eager), train_compile (torch.compile; about 80 s to
compile, not counted). --allocator says how glibc treats large blocks (peer_env.py); "shipped" changes nothing.
"""
import argparse
import pathlib
import statistics
import time

import peer_env

PRECISIONS = {"f32": "f32", "bf16": "bf16 weights", "autocast": "f32 weights under bf16 autocast"}


def load(options, torch):
    from transformers import AutoModelForCausalLM
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    return AutoModelForCausalLM.from_pretrained(options.models / "135m", dtype=dtype,
                                                attn_implementation="sdpa")


def autocast(options, torch):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.precision == "autocast")


def generate(options, torch):
    model = load(options, torch).eval()
    batch, prompt, new = (4, 64, 8) if options.quick else (64, 64, 192)
    ids = torch.randint(2, 49152, (batch, prompt))
    rates = []
    for tokens in (8, new):  # warm-up, measurement
        begin = time.perf_counter()
        with torch.inference_mode(), autocast(options, torch):
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens,
                                 min_new_tokens=tokens, do_sample=True, top_k=0, temperature=1.0,
                                 pad_token_id=1)
        seconds = time.perf_counter() - begin
        assert out.shape[1] == prompt + tokens
        rates.append(batch * tokens / seconds)
    return [("sampling, with prefill", rates[-1])]


def train(options, torch):
    model = load(options, torch).train()
    batch, length, vocab = (1, 32, 49152) if options.quick else (8, 256, 49152)
    inputs, targets = (torch.randint(0, vocab, (batch, length)) for _ in range(2))

    def loss_of(inputs, targets):
        with autocast(options, torch):
            logits = model(input_ids=inputs, use_cache=False).logits
        # The loss is f32, as transformers' own.
        return torch.nn.functional.cross_entropy(logits.float().view(-1, vocab), targets.view(-1))

    compiled = options.case == "train_compile"
    run = torch.compile(loss_of) if compiled else loss_of
    seconds = []
    for _ in range(2 + (1 if options.quick else options.repeats)):  # two warm up
        begin = time.perf_counter()
        run(inputs, targets).backward()
        seconds.append(time.perf_counter() - begin)
        model.zero_grad(set_to_none=False)
    return [("torch.compile" if compiled else "eager",
             batch * length / statistics.median(seconds[2:]))]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=pathlib.Path, required=True,
                        help="folder written by make_models.py")
    parser.add_argument("--case", required=True, choices=("generate", "train", "train_compile"))
    parser.add_argument("--precision", choices=PRECISIONS, default="f32")
    parser.add_argument("--allocator", choices=peer_env.ALLOCATORS, default="kept")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true",
                        help="short runs: to see that everything works")
    options = parser.parse_args()
    peer_env.restart_with(options.allocator, options.threads)

    import torch
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    role = "shipped" if options.allocator == "shipped" else "best"
    case = options.case
    if options.precision != "f32":
        case = case.removesuffix("_compile") + "_bf16"
    for setting, value in (generate if options.case == "generate" else train)(options, torch):
        peer_env.emit("transformers", case,
                      f"{PRECISIONS[options.precision]}, {setting}, allocator {options.allocator}",
                      role, value, "tok/s")


if __name__ == "__main__":
    main()
