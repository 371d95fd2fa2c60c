"""LM head and cross-entropy, forward and backward: head.py --peer PEER [--N --C --V]. Gradients are in bf16 unless the peer says otherwise."""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, log_softmax

from measure import DEVICE, forward_backward, main, measure, products_of_linear, random, run_products

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # hidden (N,C), weight (V,C), targets (N,) i64 → mean loss


def eager(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """As transformers does: logits in bf16, the loss from an f32 copy."""
    return cross_entropy(linear(hidden, weight).float(), targets)


def eager_bf16(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Without the f32 copy: less memory, the loss rounded to bf16."""
    return cross_entropy(linear(hidden, weight), targets)


SOFTCAP = 30.0  # Gemma-2's


def eager_softcap(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """As transformers does for Gemma-2: capped in bf16."""
    logits = torch.tanh(linear(hidden, weight) / SOFTCAP) * SOFTCAP
    return cross_entropy(logits.float(), targets)


def torch_chunked() -> Loss:
    from torch.nn import LinearCrossEntropyOptions
    from torch.nn.functional import linear_cross_entropy

    return lambda hidden, weight, targets: linear_cross_entropy(hidden, weight, targets, options=LinearCrossEntropyOptions())


def liger(**options: torch.dtype | float) -> Loss:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss(**options)
    return lambda hidden, weight, targets: loss(weight, hidden, targets)


def liger_cute() -> Loss:
    """Liger's Hopper kernels, which keep the whole logits."""
    from liger_kernel.ops.cutedsl.ops.fused_linear_cross_entropy_sm90 import LigerFusedLinearCrossEntropySM90Function

    return LigerFusedLinearCrossEntropySM90Function.apply


def quack() -> Loss:
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    return chunked_linear_cross_entropy


def cce(impl: str, **options: float) -> Loss:
    from cut_cross_entropy import linear_cross_entropy

    return lambda hidden, weight, targets: linear_cross_entropy(hidden, weight, targets, impl=impl, **options)


def per_token(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Losses (N,) and, without a gradient, entropies (N,)."""
    logits = linear(hidden, weight).float()
    log_probabilities = log_softmax(logits.detach(), -1)
    return cross_entropy(logits, targets, reduction="none"), -(log_probabilities.exp() * log_probabilities).sum(-1)


def liger_per_token(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    from liger_kernel.ops import LigerFusedLinearScaledCrossEntropyFunction

    return LigerFusedLinearScaledCrossEntropyFunction.apply(hidden, weight, targets, 1.0, -100, 1, True)


def mean_of(outputs: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> Loss:
    return lambda hidden, weight, targets: outputs(hidden, weight, targets)[0].mean()


PEERS: dict[str, Callable[[], Loss]] = {
    "eager": lambda: eager,
    "eager_bf16": lambda: eager_bf16,
    "compile": lambda: torch.compile(eager),
    "torch_chunked": torch_chunked,
    "liger": liger,
    "liger_f32": lambda: liger(accum_dtype=torch.float32),  # the weight's gradient is summed in f32
    "liger_cute": liger_cute,
    "quack": quack,
    "cce": lambda: cce("cce"),  # leaves out small gradients
    "cce_exact": lambda: cce("cce_exact"),
    # With a soft-cap.
    "eager_softcap": lambda: eager_softcap,
    "compile_softcap": lambda: torch.compile(eager_softcap),
    "liger_softcap": lambda: liger(softcap=SOFTCAP),
    "cce_softcap": lambda: cce("cce", softcap=SOFTCAP),
    # With the loss and the entropy of every token.
    "eager_per_token": lambda: mean_of(per_token),
    "compile_per_token": lambda: mean_of(torch.compile(per_token)),
    "liger_per_token": lambda: mean_of(liger_per_token),
}


def body(args: argparse.Namespace) -> list[dict]:
    N, C, V = args.N, args.C, args.V
    loss = PEERS[args.peer]()
    hidden, weight = random(N, C), random(V, C, deviation=0.02)
    targets = torch.randint(V, (N,), device=DEVICE)
    run = forward_backward(lambda: loss(hidden, weight, targets), None, [hidden, weight])
    bound = run_products(products_of_linear(N, C, V, forward=1, backward=1))
    return measure(run, bound, 3 * 2 * N * C * V, [weight], args)


if __name__ == "__main__":
    main("head", PEERS, {"N": 8192, "C": 4096, "V": 128256}, body)
