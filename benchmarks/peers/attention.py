"""Causal attention, forward and backward apart: attention.py --peer PEER [--B --T --H --G --D].

The bound is the time of the causal half's operations (2 products forward, 5 backward) at the rate of one large product.
"""

import argparse
from collections.abc import Callable

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from measure import main, peak_bytes, random, result, square_product, time_in_turn

PEERS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def body(args: argparse.Namespace) -> list[dict]:
    B, T, H, G, D = args.B, args.T, args.H, args.G, args.D
    q, k, v = (random(B, T, heads, D) for heads in (H, G, G))
    dout = random(B, T, H, D).detach().transpose(1, 2)

    def run(mark: Callable[[], None]) -> None:
        # What a projection leaves is (B,T,heads,D): the backends get it as (B,heads,T,D) by strides.
        with sdpa_kernel(PEERS[args.peer]):
            q_BHTD, k_BGTD, v_BGTD = (tensor.transpose(1, 2) for tensor in (q, k, v))
            out = scaled_dot_product_attention(q_BHTD, k_BGTD, v_BGTD, is_causal=True, enable_gqa=H != G)
        mark()
        out.backward(dout)
        for leaf in (q, k, v):
            leaf.grad = None

    product, product_operations = square_product()
    for _ in range(3):
        run(lambda: None)
    peak = peak_bytes(run)
    cold, hot, [products] = time_in_turn([(run, True), (run, False), (product, False)], args.repetitions, warm_up=3)
    results = []
    for part, count in enumerate((2, 5)):
        operations = count * B * H * D * T * T  # 2·T·T·D a product and head, of which the causal half
        bound = [time * operations / product_operations for time in products]
        results.append(result(("forward", "backward")[part], operations, hot[part], bound, peak, cold[part]))
    return results


if __name__ == "__main__":
    main("attention", PEERS, {"B": 1, "T": 16384, "H": 32, "G": 8, "D": 128}, body)
