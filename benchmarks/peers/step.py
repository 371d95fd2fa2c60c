"""One training step of a Llama-3-8B by HuggingFace transformers: step.py --peer PEER [--T --layers --memory-limit GiB].

Random weights in bf16, one sequence of T tokens, every layer recomputed (non-reentrant, which stops early), gradients clipped to 1.
AdamW keeps f32 moments; where they do not fit, torch's fused AdamW keeps bf16 ones. Memory is all that is allocated, weights included.
"""

import argparse
import gc
import os
from collections.abc import Callable

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # else fragments take what a long sequence needs

import torch

from adamw import AdamWithF32Moments
from measure import DEVICE, main, result, square_product, time_in_turn

LEARNING_RATE = 1e-5


def compile_layers(model: torch.nn.Module) -> None:
    """Compiles each layer inside its recomputation, and the loss, whose f32 copy of the logits then never is in memory."""
    for layer in model.model.layers:
        layer.compile()
    model.loss_function = torch.compile(model.loss_function)


def use_cudnn_attention() -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_math_sdp(False)


def liger() -> None:
    """Liger's RMSNorm, RoPE, SwiGLU and fused head with loss in every Llama made afterwards."""
    from liger_kernel.transformers import apply_liger_kernel_to_llama

    apply_liger_kernel_to_llama()


# Name → before the model is made, after it is made.
PEERS: dict[str, tuple[list[Callable], list[Callable]]] = {
    "eager": ([], []),
    "eager_cudnn": ([use_cudnn_attention], []),
    "compile_cudnn": ([use_cudnn_attention], [compile_layers]),
    "liger": ([liger], []),
    "liger_cudnn": ([liger, use_cudnn_attention], []),
}


def make_model(peer: str, T: int, layers: int) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM, LlamaConfig

    before, after = PEERS[peer]
    for prepare in before:
        prepare()
    config = LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=T,
        rope_theta=500000.0,
        rms_norm_eps=1e-5,
        use_cache=False,
    )
    with DEVICE:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for prepare in after:
        prepare(model)
    return model


def run_steps(args: argparse.Namespace, moments: torch.dtype, product_milliseconds: float, product_operations: int) -> list[dict]:
    """Times `args.repetitions` steps after two of warm-up, with moments of the given dtype."""
    torch.cuda.reset_peak_memory_stats()
    model = make_model(args.peer, args.T, args.layers)
    if moments == torch.float32:
        optimizer = AdamWithF32Moments(model.parameters(), LEARNING_RATE)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    ids = torch.randint(model.config.vocab_size, (1, args.T), device=DEVICE)

    def step(_: Callable[[], None]) -> None:
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    [[times]] = time_in_turn([(step, False)], args.repetitions, warm_up=2)
    config = model.config
    multiplied = model.num_parameters() - config.vocab_size * config.hidden_size
    operations = 6 * multiplied * args.T + 6 * args.layers * args.T**2 * config.hidden_size  # none for recomputation
    bound = product_milliseconds * operations / product_operations
    entry = result("both", operations, times, [bound], torch.cuda.max_memory_allocated())
    return [entry | {"moments": str(moments), "reservedBytes": torch.cuda.max_memory_reserved()}]


def body(args: argparse.Namespace) -> list[dict]:
    product, operations = square_product()
    [[times]] = time_in_turn([(product, False)], 30, warm_up=30)
    milliseconds = sorted(times)[len(times) // 2]
    del product
    try:
        return run_steps(args, torch.float32, milliseconds, operations)
    except torch.OutOfMemoryError:
        pass  # the steps' tensors are freed with the exception
    gc.collect()
    torch.cuda.empty_cache()
    return run_steps(args, torch.bfloat16, milliseconds, operations)


if __name__ == "__main__":
    main("step", PEERS, {"T": 8192, "layers": 32}, body)
