#!/usr/bin/env python3
"""Goldens of the model's mathematics from Hugging Face transformers, in float32.

    python3 -m venv v && v/bin/pip install torch transformers safetensors numpy
    v/bin/python tests/goldens/make_goldens.py tests/goldens

For a tiny random model of each architecture: a Hugging Face folder, and golden.safetensors with
token ids, logits, and the gradient of a GRPO loss (PPO clip, k3 KL, entropy bonus, token mean,
temperature 0.9) with respect to every parameter. tests/learners/golden_test.cc reads them.
"""
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

COMMON = dict(hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, vocab_size=48, max_position_embeddings=128, rms_norm_eps=1e-5,
              initializer_range=0.2, bos_token_id=1, eos_token_id=2, pad_token_id=None,
              attention_dropout=0.0)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32, "rope_theta": 10000.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0}
LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
MODELS = {
    "llama": ("llama", dict(tie_word_embeddings=False)),
    "llama3_rope": ("llama", dict(tie_word_embeddings=True, rope_scaling=LLAMA3)),
    "linear_rope": ("llama", dict(tie_word_embeddings=True, rope_scaling=LINEAR)),
    "qwen2": ("qwen2", dict(tie_word_embeddings=True)),
    "qwen2_untied": ("qwen2", dict(tie_word_embeddings=False)),
    "qwen3": ("qwen3", dict(tie_word_embeddings=True, head_dim=16)),
    "qwen3_yarn": ("qwen3", dict(tie_word_embeddings=False, head_dim=16, rope_scaling=YARN)),
    "mistral": ("mistral", dict(tie_word_embeddings=False, sliding_window=None)),
}
PROMPT, RESPONSES = 37, (1, 9, 26, 40)
TEMPERATURE, CLIP_LOW, CLIP_HIGH, KL_COEF, ENTROPY_COEF = 0.9, 0.2, 0.28, 0.1, 0.02
ADVANTAGES = (1.2, -0.8, 0.5, -0.9)


def make(name, out):
    kind, options = MODELS[name]
    torch.manual_seed(sum(map(ord, name)))
    config = AutoConfig.for_model(kind, **{**COMMON, **options})
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            if p.ndim == 1:  # norms and biases: no gradient is trivial
                p.add_(0.1 * torch.randn_like(p))
    model.save_pretrained(out, safe_serialization=True)

    generator = torch.Generator().manual_seed(7)
    draw = lambda n: torch.randint(0, COMMON["vocab_size"], (n,), generator=generator)
    prompt, responses = draw(PROMPT), [draw(n) for n in RESPONSES]
    tensors, loss_sum = {"prompt": prompt.float()}, 0
    tokens = sum(RESPONSES)
    for i, response in enumerate(responses):
        ids = torch.cat([prompt, response])
        logits = model(ids[None]).logits[0, PROMPT - 1:-1] / TEMPERATURE
        logp_all = torch.log_softmax(logits, -1)
        logp = logp_all.gather(1, response[:, None])[:, 0]
        entropy = -(logp_all.exp() * logp_all).sum(-1)
        # Ratios on both sides of the clip range, away from its kinks; a reference nearby.
        noise = torch.rand(len(response), generator=generator)
        old = (logp +
               torch.where(noise < 0.25, 0.5, torch.where(noise < 0.5, -0.5, 0.1 *
                                                          (noise - 0.75)))).detach()
        ref = (logp + 0.4 * torch.randn(len(response), generator=generator)).detach()
        ratio = torch.exp(logp - old)
        a = ADVANTAGES[i]
        pg = torch.maximum(-a * ratio, -a * ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH))
        kl = torch.exp(ref - logp) - (ref - logp) - 1
        loss_sum = loss_sum + (pg + KL_COEF * kl - ENTROPY_COEF * entropy).sum() / tokens
        tensors |= {f"response.{i}": response.float(), f"logits.{i}": logits.detach() * TEMPERATURE, f"logprobs.{i}": logp.detach(),
                    f"entropy.{i}": entropy.detach(), f"old_logprobs.{i}": old, f"ref_logprobs.{i}": ref}
    loss_sum.backward()
    tensors["loss"] = loss_sum.detach().reshape(1)
    for key, p in model.named_parameters():
        tensors["grad." + key] = p.grad
    save_file({k: v.contiguous().clone() for k, v in tensors.items()},
              str(out / "golden.safetensors"))
    print(f"{name}: loss {loss_sum.item():.6f}")


if __name__ == "__main__":
    root = pathlib.Path(sys.argv[1])
    for model_name in MODELS:
        folder = root / model_name
        folder.mkdir(parents=True, exist_ok=True)
        make(model_name, folder)
