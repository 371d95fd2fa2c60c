"""A SwiGLU MLP, forward and backward: mlp.py --peer PEER [--N --C --F]. Gradients of the weights are in bf16, as autograd makes them."""

import argparse
import math
from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu
from torch.utils.checkpoint import checkpoint

from measure import forward_backward, main, measure, products_of_linear, random, run_products

Weights = tuple[nn.Parameter, nn.Parameter, nn.Parameter]  # gate (F,C), up (F,C), down (C,F)


def whole(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """x (N,C) → (N,C), everything saved."""
    return linear(silu(linear(x, gate)) * linear(x, up), down)


def compiled(x: Tensor, weights: Weights) -> Callable[[], Tensor]:
    fn = torch.compile(whole)
    return lambda: fn(x, *weights)


def module(kind: type[nn.Module], weights: Weights) -> nn.Module:
    """One of Liger's modules around the weights."""
    gate, up, down = weights
    with torch.device("meta"):
        result = kind(SimpleNamespace(hidden_size=gate.shape[1], intermediate_size=gate.shape[0], hidden_act="silu"))
    result.gate_proj.weight, result.up_proj.weight, result.down_proj.weight = gate, up, down
    return result


def liger(x: Tensor, weights: Weights) -> Callable[[], Tensor]:
    from liger_kernel.transformers import LigerSwiGLUMLP

    mlp = module(LigerSwiGLUMLP, weights)
    return lambda: mlp(x)


def liger_tiled(x: Tensor, weights: Weights) -> Callable[[], Tensor]:
    from liger_kernel.transformers.tiled_mlp import LigerTiledSwiGLUMLP

    mlp = module(LigerTiledSwiGLUMLP, weights)
    return lambda: mlp(x)


def deepspeed_tiled(x: Tensor, weights: Weights) -> Callable[[], Tensor]:
    from deepspeed.runtime.sequence_parallel.ulysses_sp import TiledMLP

    shards = math.ceil(x.shape[0] / x.shape[1])  # its documentation's choice
    return lambda: TiledMLP.apply(lambda _, part: whole(part, *weights), None, x[None], shards, list(weights))[0]


PEERS: dict[str, Callable[[Tensor, Weights], Callable[[], Tensor]]] = {
    "eager": lambda x, weights: lambda: whole(x, *weights),
    "compile": compiled,
    "checkpoint": lambda x, weights: lambda: checkpoint(whole, x, *weights, use_reentrant=False),
    "liger": liger,
    "liger_tiled": liger_tiled,
    "deepspeed_tiled": deepspeed_tiled,
}


def body(args: argparse.Namespace) -> list[dict]:
    N, C, F = args.N, args.C, args.F
    x, dy = random(N, C), random(N, C).detach()
    weights: Weights = tuple(nn.Parameter(random(*shape, deviation=0.02).detach()) for shape in [(F, C), (F, C), (C, F)])
    run = forward_backward(PEERS[args.peer](x, weights), dy, [x, *weights])
    # 11 products: 3 forward, 6 backward, gate and up a second time for the backward.
    bound = run_products(products_of_linear(N, C, F, forward=4, backward=2) + products_of_linear(N, F, C, forward=1, backward=1))
    return measure(run, bound, 9 * 2 * N * C * F, weights, args)


if __name__ == "__main__":
    main("mlp", PEERS, {"N": 16384, "C": 4096, "F": 14336}, body)
