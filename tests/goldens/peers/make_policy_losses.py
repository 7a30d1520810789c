#!/usr/bin/env python3
"""What other programs make of small batches: tests/goldens/peers/policy_losses.json.

    python3 -m venv v && v/bin/pip install torch trl==1.16.0
    v/bin/pip download verl==0.9.1 --no-deps && unzip verl-0.9.1-py3-none-any.whl -d verl
    git clone https://github.com/alibaba/ROLL            # 8eb27cc
    v/bin/python tests/goldens/peers/make_policy_losses.py verl ROLL tests/goldens/peers/policy_losses.json

Runs their own functions in float64, on values that float32 holds: verl's policy losses and KL estimates, the loss of TRL's GRPOTrainer,
TOPR of ROLL. verl's and ROLL's functions are taken out of their files one by one, so that nothing else of them need be installed.
tests/learners/losses/peers_test.cc reads the file, and says where a peer is not followed.
"""
import collections
import json
import pathlib
import sys
import types
import typing

import torch
from trl import GRPOTrainer

import peer_functions

NEAR, FAR, EXTREME = range(3)  # batches


class ActorConfig:
    """verl's, of which its losses read these."""
    clip_ratio = 0.2

    def __init__(self, settings):
        self.global_batch_info = {}
        self.policy_loss = types.SimpleNamespace(dro_beta=settings.get("dro_beta"))
        self.__dict__.update(settings)

    def get(self, name, default):
        return getattr(self, name, default)


class Other:
    """Stands for classes that annotations name."""


def as_float32(values):
    return values.float().double()


class Batch:
    """Ragged sequences with observations. Their first tokens' log-ratios reach `most`, advantages are 0 now and then."""

    def __init__(self, generator, lengths, scale, most):
        rows, longest = len(lengths), max(lengths)
        normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
        uniform = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
        self.mask = torch.zeros(rows, longest, dtype=torch.float64)
        for i, length in enumerate(lengths):
            self.mask[i, :length] = 1
            if length > 4:
                self.mask[i, 2] = 0
        log_ratio = scale * (0.5 * normal(rows, 1) + normal(rows, longest))
        log_ratio[:, 0] = most * (2 * uniform(rows) - 1)
        log_ratio[1, 0], log_ratio[2, 0] = most, -most
        # The likelier of the two is near 1, or of any size.
        upper = -torch.where(uniform(rows, longest) < 0.3, 0.001, 3.0) * uniform(rows, longest)
        self.old = as_float32(upper - log_ratio.clamp(min=0))
        self.new = as_float32(upper + log_ratio.clamp(max=0))
        self.advantages = as_float32(normal(rows))
        self.advantages[1], self.advantages[2], self.advantages[3] = -1.5, 0.75, 0
        self.weights = as_float32(0.5 + 1.5 * uniform(rows, longest))

    def json(self):
        return {"mask": self.mask.int().tolist(), "logprobs": self.new.tolist(), "old_logprobs": self.old.tolist(),
                "advantages": self.advantages.tolist(), "is_weights": self.weights.tolist()}


def digits(value):
    return float(f"{value:.10g}")


def outcome(peer, loss, batch, settings, mode, weighted, value, gradient, metrics):
    gradient = torch.zeros_like(batch[1].new) if gradient is None else gradient
    return {"peer": peer, "loss": loss, "batch": batch[0], "settings": settings, "loss_agg_mode": mode, "weighted": weighted,
            "value": digits(value.item()), "dlogprobs": [[digits(one) for one in row] for row in gradient.tolist()],
            "metrics": {name.removeprefix("actor/"): digits(one) for name, one in metrics.items()}}


def of_verl(world, loss, batch, settings, mode, weighted=False):
    new = batch[1].new.clone().requires_grad_()
    advantages = batch[1].advantages.unsqueeze(-1).expand_as(new)
    function = world[f"compute_policy_loss_{loss.replace('-', '_')}"]
    value, metrics = function(batch[1].old, new, advantages, batch[1].mask, mode, ActorConfig(settings),
                              batch[1].weights if weighted else None)
    value.backward()
    return outcome("verl", loss, batch, settings, mode, weighted, value, new.grad, metrics)


def of_trl(loss, batch, settings, mode, kind, **arguments):
    """kind: TRL's loss_type. Its trainer is asked for its loss alone, of log-probs that are given."""
    new = batch[1].new.clone().requires_grad_()
    args = types.SimpleNamespace(delta=None, sapo_temperature_pos=settings.get("tau_pos"), sapo_temperature_neg=settings.get("tau_neg"))
    one_process = types.SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x)
    metrics = {"eval": collections.defaultdict(list)}
    trainer = types.SimpleNamespace(
        args=args, accelerator=one_process, model=types.SimpleNamespace(training=False), loss_type=kind, beta=0.0, _metrics=metrics,
        aux_loss_enabled=False, top_entropy_quantile=1.0, use_vllm=False, vllm_importance_sampling_correction=False,
        _entropy_bonus_enabled=False, epsilon_low=settings.get("clip_ratio_low"), epsilon_high=settings.get("clip_ratio_high"),
        importance_sampling_level=arguments.get("level", "token"), off_policy_mask_threshold=settings.get("off_policy_mask_threshold"),
        get_off_policy_mask=GRPOTrainer.get_off_policy_mask,
        _get_per_token_logps_and_entropies=lambda *_, **__: (new, torch.zeros_like(new), None))
    ids = torch.zeros_like(batch[1].mask, dtype=torch.long)
    value = GRPOTrainer._compute_loss(trainer, None, {
        "prompt_ids": ids, "prompt_mask": ids, "completion_ids": ids, "completion_mask": batch[1].mask,
        "advantages": batch[1].advantages, "old_per_token_logps": batch[1].old, "num_items_in_batch": batch[1].mask.sum()})
    value.backward()
    return outcome("TRL", loss, batch, settings, mode, False, value, new.grad, {})


def of_roll(world, batch, mode):
    """Equation 8 of the paper, as ROLL has it, of the sequences' ratios."""
    new = batch[1].new.clone().requires_grad_()
    ratio = ((new - batch[1].old) * batch[1].mask).sum(-1, keepdim=True).exp().expand_as(new)
    worker = types.SimpleNamespace(_get_or_cache_config=lambda name, default: default, _topr_sample_logged=True, _cached_metrics={})
    tokens = world["_compute_topr_loss"](worker, ratio, new, batch[1].old, batch[1].advantages.unsqueeze(-1).expand_as(new),
                                         types.SimpleNamespace(batch={"scores": batch[1].advantages}))
    value = world["agg_loss"](tokens, batch[1].mask, mode)
    value.backward()
    return outcome("ROLL", "topr", batch, {}, mode, False, value, new.grad, {})


def estimates(world, kind):
    logprobs = as_float32(torch.tensor([-1.0, -0.2, -3.0, -25.0, -0.1, -1.0, -2.0, -4.5, -1.5, -24.0], dtype=torch.float64))
    reference = as_float32(torch.tensor([-1.0, -0.7, -2.5, -0.1, -25.5, -1.001, -1.99, -1.5, -4.0, -0.5], dtype=torch.float64))
    new = logprobs.clone().requires_grad_()
    value = world["kl_penalty"](new, reference, kind)
    value.sum().backward()
    return {"kind": kind, "logprobs": logprobs.tolist(), "ref_logprobs": reference.tolist(), "values": value.tolist(),
            "dlogprobs": new.grad.tolist()}


def main(verl, roll, out):
    verl_f = {"torch": torch}
    peer_functions.define(verl / "verl/utils/torch_functional.py", ["masked_sum", "masked_mean"], verl_f)
    world = {"torch": torch, "verl_F": types.SimpleNamespace(**verl_f), "ActorConfig": ActorConfig, "AlgoConfig": Other, "DictConfig": Other,
             "DataProto": Other, "Optional": typing.Optional, "Any": typing.Any}
    names = ["vanilla", "gspo", "geo_mean", "cispo", "sapo", "dppo_tv", "dppo_kl", "reinforce", "dro"]
    peer_functions.define(verl / "verl/trainer/ppo/core_algos.py",
                          ["agg_loss", "kl_penalty", "kl_penalty_forward"] + [f"compute_policy_loss_{name}" for name in names], world)
    peer_functions.define(roll / "roll/pipeline/rlvr/actor_pg_worker.py", ["_compute_topr_loss"], world)

    generator = torch.Generator().manual_seed(11)
    lengths = [1, 8, 5, 6, 2, 7, 8, 1, 4]
    # The first batch has a sequence without a loss token.
    batches = [Batch(generator, [*lengths, 0], 0.2, 0.5), Batch(generator, lengths, 1.0, 3.0), Batch(generator, lengths, 8.0, 25.0)]
    numbered = list(enumerate(batches))
    clip, sequence = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}, "seq-mean-token-mean"
    plans = [("vanilla", {**clip, "clip_ratio_c": 3.0}, "token-mean"), ("gspo", {"clip_ratio_low": 0.1, "clip_ratio_high": 0.15}, sequence),
             ("geo-mean", {"clip_ratio_low": 0.2, "clip_ratio_high": 0.3}, sequence), ("cispo", clip, "token-mean"),
             ("sapo", {"tau_pos": 1.0, "tau_neg": 1.05}, sequence),
             ("dppo-tv", {"clip_ratio_low": 0.05, "clip_ratio_high": 0.1, "clip_ratio_c": 1.2}, "token-mean"),
             ("dppo-kl", {"clip_ratio_low": 0.005, "clip_ratio_high": 0.01, "clip_ratio_c": 1.2}, "token-mean"),
             ("reinforce", {}, "seq-mean-token-sum"), ("dro", {"dro_beta": 0.3}, "token-mean")]
    cases = []
    for loss, settings, mode in plans:
        cases += [of_verl(world, loss, batch, settings, mode) for batch in numbered]
        cases.append(of_verl(world, loss, numbered[NEAR], settings, mode, weighted=True))
    for batch in numbered[FAR:]:
        cases += [of_roll(world, batch, "seq-mean-token-sum"),
                  of_trl("gspo", batch, {"clip_ratio_low": 0.1, "clip_ratio_high": 0.15}, "seq-mean-token-sum", "luspo", level="sequence"),
                  of_trl("sapo", batch, {"tau_pos": 0.7, "tau_neg": 2.0}, sequence, "sapo")]
    cases.append(of_roll(world, numbered[NEAR], "seq-mean-token-sum"))
    masked = {**clip, "clip_ratio_c": 0.0, "off_policy_mask_threshold": 0.02}
    cases += [of_trl("vanilla", batch, masked, "token-mean", "dapo") for batch in numbered]
    kl = [estimates(world, kind) for kind in ("k1", "k2", "k3", "abs", "k1+", "k3+")]
    lines = ["{\"batches\": [", ",\n".join(json.dumps(batch.json()) for batch in batches), "],\n\"cases\": [",
             ",\n".join(json.dumps(case) for case in cases), "],\n\"kl\": [", ",\n".join(json.dumps(one) for one in kl), "]}\n"]
    out.write_text("".join(lines))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
