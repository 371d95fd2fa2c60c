"""What the peers' programs share: CUDA events, memory, the bound by products, the machine, and the line of JSON each prints.

Letters: N tokens, C hidden size, F intermediate size, V vocabulary; T sequence length, H query heads, G key/value heads, D head size.
"""

import argparse
import json
import subprocess
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from threading import Event, Thread

import torch
from torch import Tensor

DEVICE = torch.device("cuda")
FLUSH_BYTES = 256 << 20  # more than any L2
PACKAGES = ("torch", "triton", "transformers", "liger-kernel", "quack-kernels", "cut-cross-entropy", "deepspeed")

# Does the work once. Calling the argument ends one part (forward, say) and begins the next.
Run = Callable[[Callable[[], None]], None]


def random(*shape: int, deviation: float = 1.0) -> Tensor:
    """Normal numbers in bf16; a leaf that asks for a gradient."""
    return (torch.randn(shape, device=DEVICE, dtype=torch.bfloat16) * deviation).requires_grad_()


def forward_backward(fn: Callable[[], Tensor], dy: Tensor | None, leaves: Iterable[Tensor]) -> Run:
    """Forward and backward of `fn`, as one part; the leaves' gradients are freed."""

    def run(_: Callable[[], None]) -> None:
        fn().backward(dy)
        for leaf in leaves:
            leaf.grad = None

    return run


def peak_bytes(run: Run) -> int:
    """Most bytes allocated above what is there before, gradients included. Expects a run of warm-up before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run(lambda: None)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def time_in_turn(runs: list[tuple[Run, bool]], repetitions: int, warm_up: int) -> list[list[list[float]]]:
    """Milliseconds [run][part][repetition] of runs that take turns. A run with True starts with a cold L2, written over before."""
    flush = torch.empty(FLUSH_BYTES if any(cold for _, cold in runs) else 0, device=DEVICE, dtype=torch.int8)
    events: list[list[list[torch.cuda.Event]]] = [[] for _ in runs]
    for repetition in range(-warm_up, repetitions):
        for (run, cold), of_run in zip(runs, events):
            if cold:
                flush.zero_()
            marks: list[torch.cuda.Event] = []

            def mark() -> None:
                marks.append(torch.cuda.Event(enable_timing=True))
                marks[-1].record()

            mark()
            run(mark)
            mark()
            if repetition >= 0:
                of_run.append(marks)
    torch.cuda.synchronize()
    return [
        [[marks[part].elapsed_time(marks[part + 1]) for marks in of_run] for part in range(len(of_run[0]) - 1)]
        for of_run in events
    ]


def products_of_linear(N: int, inputs: int, outputs: int, forward: int, backward: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The products (a, b, result) in bf16 of y (N,outputs) = x (N,inputs) · weightᵀ: `forward` times y, `backward` times dx and dweight."""
    x, weight = random(N, inputs).detach(), random(outputs, inputs, deviation=0.02).detach()
    dx, dweight, y = torch.empty_like(x), torch.empty_like(weight), torch.empty(N, outputs, device=DEVICE, dtype=x.dtype)
    return [(x, weight.t(), y)] * forward + [(y, weight, dx), (y.t(), x, dweight)] * backward


def run_products(products: list[tuple[Tensor, Tensor, Tensor]]) -> Run:
    """The products alone: the bound that an op with the same products is compared with."""

    def run(_: Callable[[], None]) -> None:
        for a, b, result in products:
            torch.mm(a, b, out=result)

    return run


def square_product(size: int = 8192) -> tuple[Run, int]:
    """A product whose rate bounds ops that are no products of matrices, and its operations."""
    return run_products(products_of_linear(size, size, size, 1, 0)), 2 * size**3


def result(
    part: str, operations: int, milliseconds: list[float], bound: list[float], peak: int, cold: list[float] | None = None
) -> dict:
    """One entry of a report. `operations` are those of the result: none for recomputation."""
    middle = median(milliseconds)
    return {
        "part": part,
        "milliseconds": middle,
        "minMilliseconds": min(milliseconds),
        "coldMilliseconds": median(cold) if cold else None,
        "boundMilliseconds": median(bound),
        "shareOfBound": median(bound) / middle,
        "operations": operations,
        "teraflops": operations / middle / 1e9,
        "peakBytes": peak,
    }


def measure(run: Run, bound: Run, operations: int, weights: Iterable[Tensor], args: argparse.Namespace) -> list[dict]:
    """Memory, then time with a cold and a hot L2, the bound in between; of a run of one part that makes the weights' gradients."""
    for _ in range(3):
        run(lambda: None)
    peak = peak_bytes(run)
    [cold], [hot], [products] = time_in_turn([(run, True), (run, False), (bound, False)], args.repetitions, warm_up=3)
    gradient_bytes = sum(weight.numel() * weight.element_size() for weight in weights)
    return [result("both", operations, hot, products, peak, cold) | {"weightGradientBytes": gradient_bytes}]


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            pass
    return found


def main(case: str, peers: Iterable[str], sizes: dict[str, int], body: Callable[[argparse.Namespace], list[dict]]) -> None:
    """Parses --peer and the sizes, runs `body`, prints one line of JSON: its results, or why there are none."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", required=True, choices=list(peers))
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--memory-limit", type=float, help="GiB; default: the whole device")
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    report: dict = {"case": case, "peer": args.peer, "sizes": {name: getattr(args, name) for name in sizes}}
    if args.memory_limit:
        total = torch.cuda.get_device_properties(DEVICE).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, args.memory_limit * 2**30 / total))
    torch.manual_seed(1)
    with Clocks() as clocks:
        try:
            report["results"] = body(args)
        except ImportError as error:
            report["skipped"] = f"not importable: {error}"
        except torch.OutOfMemoryError:
            report["skipped"] = "out of memory"
    report |= {
        "versions": installed(PACKAGES) | {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()},
        "device": torch.cuda.get_device_name(),
        "clocks": clocks.busiest,
    }
    print(json.dumps(report))


class Clocks:
    """Samples nvidia-smi once a second while the body runs; `busiest` is the sample with the most power drawn."""

    COMMAND = ["nvidia-smi", "--query-gpu=power.draw,clocks.sm,clocks.mem,temperature.gpu", "--format=csv,noheader,nounits"]

    def __init__(self) -> None:
        self.samples: list[list[float]] = []
        self.stopped = Event()
        self.thread = Thread(target=self.sample, daemon=True)

    def sample(self) -> None:
        while not self.stopped.wait(1):
            try:
                line = subprocess.run(self.COMMAND, capture_output=True, text=True, check=True).stdout.splitlines()[0]
                self.samples.append([float(field) for field in line.split(",")])
            except (OSError, subprocess.CalledProcessError, IndexError, ValueError):
                return  # no nvidia-smi, or one that does not know: the report says null

    def __enter__(self) -> "Clocks":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()

    @property
    def busiest(self) -> dict[str, float] | None:
        names = ("watts", "smMHz", "memoryMHz", "celsius")
        return dict(zip(names, max(self.samples))) if self.samples else None
