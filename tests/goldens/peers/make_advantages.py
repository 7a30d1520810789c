#!/usr/bin/env python3
"""What other programs' advantage estimators make of small batches: tests/goldens/peers/advantages.json.

    git clone https://github.com/volcengine/verl                  # 0.9.1
    git clone https://github.com/tajwarfahim/maxrl                # MaxRL's authors
    git clone https://github.com/RUCAIBox/Passk_Training passk    # Pass@k training's authors
    python3 -m venv v && v/bin/pip install torch numpy
    v/bin/python tests/goldens/peers/make_advantages.py verl maxrl passk tests/goldens/peers/advantages.json

Runs the programs' own functions in float64 on values that float32 holds. They are taken out of the files one by one, so that nothing
else need be installed. tests/learners/advantage_golden_test.cc reads the file, and says where we differ and why.

Every reward stands on the last token of its response, as verl puts it. Where a group has one sample, verl's answer for it is kept.
"""
import json
import math
import pathlib
import sys
import types
import typing
from collections import defaultdict

import numpy as np
import torch

import peer_functions


class InFloat64:
    """torch or numpy to a function that asks for float32 by name."""

    def __init__(self, module):
        self._module, self.float32 = module, module.float64

    def __getattr__(self, name):
        return getattr(self._module, name)


def world_of_verl():
    return {"torch": InFloat64(torch), "np": InFloat64(np), "defaultdict": defaultdict, "Optional": typing.Optional, "AlgoConfig": dict}


VERL = ["compute_grpo_outcome_advantage", "compute_rloo_outcome_advantage", "compute_reinforce_plus_plus_baseline_outcome_advantage",
        "compute_reinforce_plus_plus_outcome_advantage", "compute_opo_outcome_advantage", "compute_gpg_outcome_advantage",
        "compute_grpo_passk_outcome_advantage", "compute_gdpo_outcome_advantage", "compute_remax_outcome_advantage",
        "compute_gae_advantage_return"]


def load(verl, maxrl, passk):
    verl_f = {"torch": torch}
    peer_functions.define(verl / "verl/utils/torch_functional.py", ["masked_sum", "masked_mean", "masked_var", "masked_whiten"], verl_f)
    world = world_of_verl() | {"verl_F": types.SimpleNamespace(**verl_f)}
    peer_functions.define(verl / "verl/trainer/ppo/core_algos.py", VERL, world)
    authors = world_of_verl()
    peer_functions.define(maxrl / "verl/trainer/ppo/core_algos.py", ["compute_maxrl_outcome_advantage"], authors)
    # scipy's comb, which is 0 where there are no sets.
    sets = {"np": np, "comb": lambda n, k: math.comb(int(n), int(k)) if n >= 0 else 0}
    peer_functions.define(passk / "code/passk_adv.py", ["calc_adv"], sets)
    return types.SimpleNamespace(**{name: world[name] for name in VERL}, maxrl=authors["compute_maxrl_outcome_advantage"],
                                 passk=sets["calc_adv"])


def as_float32(values):
    return torch.tensor(values, dtype=torch.float32).double()


class Batch:
    """Groups of samples as verl has them: padded, with an observation inside of longer responses."""

    def __init__(self, generator, groups, lengths):
        self.groups = groups  # the rewards of each
        self.longest = max(max(row) for row in lengths)
        flat = [length for row in lengths for length in row]
        self.mask = torch.zeros(len(flat), self.longest, dtype=torch.float64)
        self.attention = torch.zeros_like(self.mask)
        for i, length in enumerate(flat):
            self.attention[i, :length] = self.mask[i, :length] = 1
            if length > 4:
                self.mask[i, 1 + int(torch.randint(length - 3, (1,), generator=generator))] = 0
        self.last = [max(length - 1, 0) for length in flat]
        self.index = np.array([g for g, row in enumerate(groups) for _ in row])
        self.generator = generator

    def on_last_token(self, rewards):
        tokens = torch.zeros_like(self.mask)
        tokens[range(len(self.last)), self.last] = as_float32(rewards)
        return tokens

    def rewards(self):
        return self.on_last_token([r for row in self.groups for r in row])

    def rows(self, tokens):
        """Of each sample the value at its loss tokens, which all have; 0 without one."""
        result = [[] for _ in self.groups]
        for i, g in enumerate(self.index):
            values = tokens[i][self.mask[i] > 0]
            assert len(values) == 0 or (values == values[0]).all() or values.isnan().all()
            result[g].append(values[0].item() if len(values) else 0.0)
        return result

    def parts(self, names):
        return {name: as_float32(torch.randn(len(self.index), generator=self.generator, dtype=torch.float64).tolist()).round(decimals=2)
                .float().double() for name in names}


def estimates(peers, batch, kinds):
    rewards, mask, index = batch.rewards(), batch.mask, batch.index
    common = {"token_level_rewards": rewards, "response_mask": mask, "index": index}
    run = {
        "grpo": lambda: peers.compute_grpo_outcome_advantage(**common),
        "dr-grpo": lambda: peers.compute_grpo_outcome_advantage(**common, norm_adv_by_std_in_grpo=False),
        "rloo": lambda: peers.compute_rloo_outcome_advantage(**common),
        "reinforce-plus-plus-baseline": lambda: peers.compute_reinforce_plus_plus_baseline_outcome_advantage(**common),
        "reinforce-plus-plus": lambda: peers.compute_reinforce_plus_plus_outcome_advantage(
            rewards, mask, config=types.SimpleNamespace(gamma=1.0)),
        "opo": lambda: peers.compute_opo_outcome_advantage(**common),
        "gpg": lambda: peers.compute_gpg_outcome_advantage(**common),
        "grpo-passk": lambda: peers.compute_grpo_passk_outcome_advantage(**common, config={}),
        # Without the 1e-6 that it adds to the mean.
        "maxrl": lambda: peers.maxrl(**common, epsilon=0.0),
    }
    return {kind: batch.rows(run[kind]()[0]) for kind in kinds}


def outcome_batch(peers, name, batch, kinds, k=None):
    result = {"name": name, "rewards": [as_float32(row).tolist() for row in batch.groups],
              "loss_tokens": [[int(batch.mask[i].sum()) for i in np.flatnonzero(batch.index == g)] for g in range(len(batch.groups))],
              "advantages": estimates(peers, batch, kinds)}
    if k is not None:
        result["passk_k"] = k
        result["advantages"]["passk"] = [peers.passk(np.array(row), k).tolist() for row in batch.groups]
    return result


def with_parts(peers, result, batch, names, weights):
    parts = batch.parts(names)
    columns = {"prompts": torch.zeros(len(batch.index), 3),
               "attention_mask": torch.cat([torch.ones(len(batch.index), 3), batch.attention], dim=1).long()}
    config = {"gdpo_reward_keys": names, "gdpo_reward_weights": weights}
    advantages, _ = peers.compute_gdpo_outcome_advantage(batch.rewards(), batch.mask, batch.index, config=config,
                                                         non_tensor_batch={n: v.numpy() for n, v in parts.items()}, batch=columns)
    split = lambda flat: [[flat[i].item() for i in np.flatnonzero(batch.index == g)] for g in range(len(batch.groups))]  # noqa: E731
    result["parts"] = {name: split(values) for name, values in parts.items()}
    result["weights"] = weights
    result["advantages"]["gdpo"] = batch.rows(advantages)


def with_greedy(peers, result, batch):
    greedy = as_float32(torch.randn(len(batch.groups), generator=batch.generator).tolist())
    advantages, _ = peers.compute_remax_outcome_advantage(batch.rewards(), greedy[batch.index], batch.mask)
    result["greedy"] = greedy.tolist()
    # verl's return is a cumulative sum over loss tokens: the reward, on each of them.
    result["advantages"]["remax"] = batch.rows(advantages)


def gae_case(peers, batch, gamma, lam):
    normal = lambda: torch.randn(batch.mask.shape, generator=batch.generator, dtype=torch.float64)  # noqa: E731
    rewards = as_float32((0.1 * normal()).tolist()) * batch.mask + batch.rewards()
    values = as_float32(normal().tolist())
    advantages, returns = peers.compute_gae_advantage_return(rewards, values, batch.mask, gamma, lam)
    cut = lambda tokens: [row[:int(n)].tolist() for row, n in zip(tokens, batch.attention.sum(1))]  # noqa: E731
    return {"gamma": gamma, "lambda": lam, "rewards": cut(rewards), "values": cut(values), "loss_mask": cut(batch.mask.int()),
            "advantages": cut(advantages * batch.mask), "returns": cut(returns * batch.mask)}


def main(verl, maxrl, passk, out):
    peers = load(verl, maxrl, passk)
    generator = torch.Generator().manual_seed(11)
    integers = lambda low, high, n: torch.randint(low, high, (n,), generator=generator).tolist()  # noqa: E731
    normal = lambda n: torch.randn(n, generator=generator).tolist()  # noqa: E731
    every = ["grpo", "dr-grpo", "rloo", "reinforce-plus-plus-baseline", "reinforce-plus-plus", "opo", "gpg"]
    batches = []

    # Any rewards, groups of 2 to 8, one-token responses and full ones of 12.
    sizes = [2, 5, 8, 3]
    lengths = [integers(1, 13, n) for n in sizes]
    lengths[1][0], lengths[2][3] = 1, 12
    ragged = Batch(generator, [normal(n) for n in sizes], lengths)
    batches.append(outcome_batch(peers, "ragged", ragged, every + ["grpo-passk"]))
    with_parts(peers, batches[-1], ragged, ["accuracy", "format", "length"], [1.0, 0.25, -2.0])
    with_greedy(peers, batches[-1], ragged)

    # Right or wrong: of all groups some teach nothing.
    rights = [0, 1, 2, 4, 7, 8]
    rows = [[float(i < right) for i in torch.randperm(8, generator=generator).tolist()] for right in rights]
    binary = Batch(generator, rows, [integers(1, 13, 8) for _ in rows])
    batches.append(outcome_batch(peers, "binary", binary, every + ["grpo-passk"], k=3))
    # A group without a success is 0 / 0 but for the 1e-6, and 0 with it.
    batches[-1]["advantages"]["maxrl"] = [[0.0 if math.isnan(a) else a for a in row] for row in estimates(peers, binary, ["maxrl"])["maxrl"]]

    # Some shares of right, with other rewards than 0 and 1 of all.
    shares = Batch(generator, [[abs(x) for x in normal(n)] for n in (4, 7)], [integers(1, 9, 4), integers(1, 9, 7)])
    batches.append(outcome_batch(peers, "shares", shares, every + ["grpo-passk", "maxrl"]))

    # Single samples, of which verl keeps the reward, and a response without a token.
    single = Batch(generator, [normal(1), normal(3), [0.5], [1.0, 1.0]], [[4], [0, 7, 1], [1], [3, 12]])
    batches.append(outcome_batch(peers, "single", single, every))

    # Rewards that nearly agree: 1 and what float32 has above it.
    step = 2.0**-23
    close = Batch(generator, [[1 + step * i for i in integers(0, 6, 5)] for _ in range(3)], [integers(1, 9, 5) for _ in range(3)])
    batches.append(outcome_batch(peers, "close", close, ["grpo", "dr-grpo", "rloo", "opo", "gpg", "grpo-passk", "maxrl"]))

    gae = [gae_case(peers, Batch(generator, [normal(5)], [[1, 9, 6, 12, 2]]), *settings) for settings in [(1.0, 1.0), (0.97, 0.9), (1.0, 0.0)]]
    text = json.dumps({"batches": batches, "gae": gae}, indent=None, separators=(",", ":"))
    out.write_text(text.replace('{"name"', '\n{"name"').replace('{"gamma"', '\n{"gamma"') + "\n")


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:5]))
