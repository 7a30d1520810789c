#!/usr/bin/env python3
"""What verl's GSPO makes of a small batch: tests/goldens/gspo.json.

    git clone https://github.com/volcengine/verl
    python3 -m venv v && v/bin/pip install torch
    v/bin/python tests/goldens/make_gspo.py verl tests/goldens/gspo.json

Runs verl's own compute_policy_loss_gspo and what it calls, in float64 on values that float32 holds. The functions are taken out of
verl's files one by one, so that nothing else of verl need be installed. tests/learners/losses/gspo_test.cc reads the file.
"""
import json
import pathlib
import sys
import types
import typing

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "peers"))
import peer_functions  # noqa: E402


class ActorConfig:
    clip_ratio = 0.2
    clip_ratio_low, clip_ratio_high = 3e-4, 4e-4
    global_batch_info = {}


def as_float32(values):
    return torch.tensor(values, dtype=torch.float32).double()


def case(gspo, generator, lengths, scale, weighted):
    """Sequences of these lengths, the third token of each longer one an observation. scale: of the log-ratios' means."""
    longest = max(lengths)
    mask = torch.zeros(len(lengths), longest, dtype=torch.float64)
    for i, length in enumerate(lengths):
        mask[i, :length] = 1
        if length > 4:
            mask[i, 2] = 0
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    old = as_float32((-2 + 0.5 * normal(*mask.shape)).tolist())
    shift = scale * normal(len(lengths), 1)  # of a whole sequence, so that some ratios are clipped and some are not
    new = as_float32((old + shift + 0.05 * scale * normal(*mask.shape)).tolist()).requires_grad_()
    advantages = as_float32(normal(len(lengths)).tolist()).unsqueeze(-1).expand_as(mask)
    weights = as_float32((0.5 + 1.5 * torch.rand(mask.shape, generator=generator)).tolist()) if weighted else None
    loss, metrics = gspo(old, new, advantages, mask, "seq-mean-token-mean", ActorConfig(), weights)
    loss.backward()
    return {"clip_ratio_low": ActorConfig.clip_ratio_low, "clip_ratio_high": ActorConfig.clip_ratio_high, "mask": mask.int().tolist(),
            "old_logprobs": old.tolist(), "logprobs": new.detach().tolist(), "advantages": advantages[:, 0].tolist(),
            "is_weights": weights.tolist() if weighted else None, "loss": loss.item(), "dlogprobs": new.grad.tolist(), "metrics": metrics}


def main(verl, out):
    verl_f = {"torch": torch}
    peer_functions.define(verl / "verl/utils/torch_functional.py", ["masked_sum", "masked_mean"], verl_f)
    world = {"torch": torch, "verl_F": types.SimpleNamespace(**verl_f), "ActorConfig": ActorConfig, "Optional": typing.Optional,
             "Any": typing.Any}
    peer_functions.define(verl / "verl/trainer/ppo/core_algos.py", ["agg_loss", "compute_policy_loss_gspo"], world)
    generator = torch.Generator().manual_seed(7)
    lengths = [1, 7, 3, 6, 2, 5, 7]
    cases = [case(world["compute_policy_loss_gspo"], generator, lengths, scale, weighted)
             for scale, weighted in [(5e-4, False), (5e-4, True), (0.0, False), (8.0, False)]]
    out.write_text("[" + ",\n".join(json.dumps(one) for one in cases) + "]\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
