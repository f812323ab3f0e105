"""How a model of many experts is opened and run: 48 layers of 128, as Qwen3-30B-A3B has them, of tiny matrices.

    python benchmarks/many_experts.py [--layers 48] [--experts 128] [--rounds 5]

Random weights, exported to int8 unless they are there; with edgellm's kernels and with ONNX Runtime's alone, each in a
process of its own, on one thread. Prints processor seconds to open it, the memory that it takes then beyond an empty
process, and processor milliseconds for 512 tokens of a prompt and for each of 32 new tokens, the least of all rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import edgellm_export
from decoders import load_decoder
from environments import CACHE
from random_checkpoint import byte_tokenizer, write_tensors

HIDDEN, SIZE, VOCAB, CHOSEN, NEW_TOKENS = 64, 32, 512, 8, 32


def config(layers: int, experts: int) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": HIDDEN,
        "intermediate_size": 64, "moe_intermediate_size": SIZE, "num_hidden_layers": layers, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "num_experts": experts, "num_experts_per_tok": CHOSEN,
        "norm_topk_prob": True, "vocab_size": VOCAB, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6,
        "rope_theta": 1e6, "tie_word_embeddings": False, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip


def tensors(layers: int, experts: int) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes, experts of a layer in one tensor."""
    found: list[tuple[str, tuple[int, ...]]] = [
        ("model.embed_tokens.weight", (VOCAB, HIDDEN)), ("lm_head.weight", (VOCAB, HIDDEN)),
        ("model.norm.weight", (HIDDEN,)),
    ]  # fmt: skip
    for i in range(layers):
        parts: dict[str, tuple[int, ...]] = {
            "self_attn.q_proj.weight": (64, HIDDEN), "self_attn.k_proj.weight": (32, HIDDEN),
            "self_attn.v_proj.weight": (32, HIDDEN), "self_attn.o_proj.weight": (HIDDEN, 64),
            "self_attn.q_norm.weight": (16,), "self_attn.k_norm.weight": (16,), "input_layernorm.weight": (HIDDEN,),
            "post_attention_layernorm.weight": (HIDDEN,), "mlp.gate.weight": (experts, HIDDEN),
            "mlp.experts.gate_up_proj": (experts, 2 * SIZE, HIDDEN), "mlp.experts.down_proj": (experts, HIDDEN, SIZE),
        }  # fmt: skip
        found += [(f"model.layers.{i}.{name}", shape) for name, shape in parts.items()]
    return found


def package(layers: int, experts: int) -> Path:
    home = CACHE / "many-experts" / f"{layers}x{experts}"
    out = home / "package"
    if (out / "edgellm.json").is_file():
        return out
    checkpoint = home / "checkpoint"
    checkpoint.mkdir(parents=True, exist_ok=True)
    write_tensors(checkpoint / "model.safetensors", tensors(layers, experts), seed=0)
    byte_tokenizer().save(str(checkpoint / "tokenizer.json"))
    (checkpoint / "config.json").write_text(json.dumps(config(layers, experts)))
    edgellm_export.export(checkpoint, out, precision="int8", force=True, verify_quality=False)
    return out


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def least_ms(call: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def measure(path: Path, kernels: Any, rounds: int) -> dict[str, float]:
    from edgellm.ort.library import onnxruntime

    onnxruntime()
    before, start = resident(), time.process_time()
    model = load_decoder(path, threads=1, kernels=kernels)
    opened, after = time.process_time() - start, resident()
    ids = np.random.default_rng(0).integers(3, VOCAB, 512)
    options: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}
    return {
        "open_s": opened,
        "mib": (after - before) / 2**20,
        "prompt_ms": least_ms(lambda: model.logits(ids), rounds),
        "token_ms": least_ms(lambda: model.generate(ids[:16].tolist(), **options), rounds) / NEW_TOKENS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--experts", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", nargs=2, metavar=("PKG", "KERNELS"), help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.child:
        print(json.dumps(measure(Path(a.child[0]), a.child[1], a.rounds)))
        return
    path, found = package(a.layers, a.experts), {}
    for kernels in ("auto", "off"):
        command = [sys.executable, __file__, "--rounds", str(a.rounds), "--child", str(path), kernels]
        found[kernels] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print("| kernels | open, s | memory, MiB | 512 tokens of a prompt, ms | a new token, ms |\n|---|---|---|---|---|")
    for name, each in (("edgellm's", found["auto"]), ("ONNX Runtime's", found["off"])):
        print(
            f"| {name} | {each['open_s']:.1f} | {each['mib']:.0f} | {each['prompt_ms']:.0f} | {each['token_ms']:.1f} |"
        )
    print(json.dumps({"layers": a.layers, "experts": a.experts, "found": found}))


if __name__ == "__main__":
    main()
