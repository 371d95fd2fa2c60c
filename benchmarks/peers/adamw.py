"""AdamW over bf16 parameters with moments in f32, which torch.optim keeps in the parameters' dtype."""

from collections.abc import Iterable

import torch
from torch import Tensor

BETA1, BETA2, EPSILON, DECAY = 0.9, 0.999, 1e-8, 0.01


@torch.compile(dynamic=True)
def update(parameter: Tensor, grad: Tensor, mean: Tensor, square: Tensor, rates: Tensor) -> None:
    """One kernel for one flat parameter (n,). rates (3,) f32: learning rate, the same over bias 1, 1 / √(bias 2)."""
    grad = grad.float()
    mean.lerp_(grad, 1 - BETA1)
    square.lerp_(grad * grad, 1 - BETA2)
    parameter.copy_(parameter.float() * (1 - rates[0] * DECAY) - rates[1] * mean / (square.sqrt() * rates[2] + EPSILON))


class AdamWithF32Moments:
    """The part of torch.optim.AdamW's interface that a training step uses."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        self.parameters = list(parameters)
        self.moments = [[torch.zeros_like(p, dtype=torch.float32).view(-1) for _ in range(2)] for p in self.parameters]
        self.lr = lr
        self.steps = 0

    @torch.no_grad()
    def step(self) -> None:
        self.steps += 1
        bias1, bias2 = 1 - BETA1**self.steps, 1 - BETA2**self.steps
        rates = torch.tensor([self.lr, self.lr / bias1, bias2**-0.5], device=self.parameters[0].device)
        for parameter, (mean, square) in zip(self.parameters, self.moments):
            update(parameter.view(-1), parameter.grad.view(-1), mean, square, rates)

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
