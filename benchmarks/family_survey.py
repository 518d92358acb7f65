"""Every model type of transformers, made small without knowing it, against PyTorch in float32.

    python benchmarks/family_survey.py [TYPE…]

A configuration has its own defaults but for what the table below names. The base model of a type is traced with two
sequences of nine tokens (or images, features, waves), where PyTorch can with dynamic batch and length, and run at that
size and at another. A row is good where the largest difference, relative to the largest value, is at most 1e-4. A type
whose defaults do not go together, or that is too large, says so: it is not a failure of the compiler.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from family_types import largest_error, numbers_of
from torch.export import Dim
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

import gimlet
from gimlet.runtime.errors import GimletError

MOST_PARAMETERS: Final = 60_000_000
TOLERANCE: Final = 1e-4
SIZES: Final = ((2, 9), (3, 14))
_DYNAMIC: Final = (("batch", "length"), ("length",), ("batch",), ())
_WIDTHS: Final = "hidden_size d_model n_embd embedding_size word_embed_proj_dim hidden_dim dim embed_dim projection_dim"
_INNER: Final = "intermediate_size encoder_ffn_dim decoder_ffn_dim d_ff ffn_dim n_inner shared_expert_intermediate_size"
_DEPTHS: Final = "num_hidden_layers n_layer encoder_layers decoder_layers num_layers n_layers num_decoder_layers depth"
_FOURS: Final = "num_attention_heads n_head num_heads n_heads num_experts num_local_experts n_routed_experts"
_TWOS: Final = "num_key_value_heads num_experts_per_tok linear_num_key_heads moe_topk encoder_num_key_value_heads"
_PLACES: Final = "max_position_embeddings max_source_positions max_target_positions n_positions n_ctx"
_SMALL: Final[dict[str, Any]] = {
    **dict.fromkeys(_WIDTHS.split(), 64),
    **dict.fromkeys(_INNER.split(), 96),
    **dict.fromkeys(_DEPTHS.split(), 2),
    **dict.fromkeys([*_FOURS.split(), "encoder_attention_heads", "decoder_attention_heads"], 4),
    **dict.fromkeys(_TWOS.split(), 2),
    **dict.fromkeys(["head_dim", "d_kv", "v_head_dim", "qk_nope_head_dim", "kv_lora_rank", "num_mel_bins"], 16),
    **dict.fromkeys(["qk_rope_head_dim", "sliding_window", "state_size", "patch_size", "local_attention"], 8),
    **dict.fromkeys(_PLACES.split(), 64),
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "q_lora_rank": 24,
    "moe_intermediate_size": 48,
    "vocab_size": 128,
    "image_size": 32,
    "num_channels": 3,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "linear_num_value_heads": 4,
    "first_k_dense_replace": 1,
    "num_queries": 5,
}
_SPECIAL: Final = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def small(config: type[Any]) -> dict[str, Any]:
    """What of a configuration is made small, its parts too."""
    known = config()
    settings = {
        name: value
        for name, value in _SMALL.items()
        if isinstance(getattr(known, name, None), int) and not isinstance(getattr(config, name, None), property)
    }
    settings |= {name: token for name, token in _SPECIAL.items() if hasattr(known, name)}
    for name, part in (getattr(config, "sub_configs", None) or {}).items():
        own = getattr(known, name, None)
        if part.__name__ != "AutoConfig":
            settings[name] = small(part)
        elif own is not None and not isinstance(own, dict):
            settings[name] = {**small(type(own)), "model_type": own.model_type}
    return settings


def model_of(kind: str) -> torch.nn.Module:
    """The base model of a type, with the same weights every time and without a cache."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**small(CONFIG_MAPPING[kind]))
    for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        if hasattr(part, "use_cache"):
            part.use_cache = False
    name = MODEL_MAPPING_NAMES[kind]
    return getattr(transformers, name if isinstance(name, str) else name[0])(config).eval()


def inputs_of(module: Any, batch: int, length: int) -> tuple[dict[str, torch.Tensor], dict[str, dict[int, str]]]:
    """Inputs for what the model's `forward` takes, and their dynamic axes by name."""
    torch.manual_seed(batch)
    size = getattr(module.config, "image_size", 32)
    tokens, batched = {0: "batch", 1: "length"}, {0: "batch"}
    ids = torch.randint(3, 99, (batch, length))
    known: dict[str, tuple[torch.Tensor, dict[int, str]]] = {
        "input_ids": (ids, tokens),
        "attention_mask": (torch.ones_like(ids), tokens),
        "pixel_values": (torch.randn(batch, 3, size, size) if isinstance(size, int) else ids, batched),
        "decoder_input_ids": (torch.randint(3, 99, (batch, 7)), batched),
        "input_features": (torch.randn(batch, getattr(module.config, "num_mel_bins", 16), 64), batched),
        "input_values": (torch.randn(batch, 800), batched),
    }
    taken = set(inspect.signature(module.forward).parameters)
    if "input_ids" not in taken:
        taken.discard("attention_mask")
    given = {name: each for name, each in known.items() if name in taken}
    return {name: value for name, (value, _) in given.items()}, {name: axes for name, (_, axes) in given.items()}


def measure(kind: str) -> str:
    """The columns behind the type: result, dynamic dimensions, ops, and the largest error."""
    try:
        module = model_of(kind)
        if sum(each.numel() for each in module.parameters()) > MOST_PARAMETERS:
            return "its defaults are too large | | | "
        with torch.no_grad():
            module(**inputs_of(module, *SIZES[0])[0])
    except Exception as error:
        return f"its defaults do not go together: {_line(error)} | | | "
    refused = ""
    for dims in _DYNAMIC:
        try:
            ops, error = _compiled(module, dims)
        except GimletError as said:
            refused = refused or _line(said)
            continue
        good = "yes" if error <= TOLERANCE else "NOT THE SAME"
        return f"{good}{f', {refused}' if refused else ''} | {' '.join(dims)} | {ops} | {error:.1e}"
    return f"no: {refused} | | | "


def _compiled(module: torch.nn.Module, dims: tuple[str, ...]) -> tuple[int, float]:
    """The ops of a program with these dynamic dimensions, and its largest error at both sizes."""
    made = {"batch": Dim("batch", min=1, max=8), "length": Dim("length", min=2, max=40)}
    (batch, length), other = SIZES
    sizes = [SIZES[0], (other[0] if "batch" in dims else batch, other[1] if "length" in dims else length)]
    runs = [inputs_of(module, *size)[0] for size in sizes]
    axes = inputs_of(module, batch, length)[1]
    shapes = {name: {axis: made[dim] for axis, dim in each.items() if dim in dims} for name, each in axes.items()}
    with tempfile.TemporaryDirectory() as folder:
        bundle = gimlet.compile(
            module,
            kwargs=copy.deepcopy(runs[0]),
            dynamic_shapes=shapes if dims else None,
            output=Path(folder) / "m.gimlet",
        )
        with gimlet.load(bundle.path) as program, torch.no_grad():
            errors = [
                largest_error(numbers_of(module(**copy.deepcopy(each))), numbers_of(program(**copy.deepcopy(each))))
                for each in runs
            ]
    return sum(segment.ops for segment in bundle.manifest.segments), max(errors)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:240] or type(error).__name__


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", metavar="TYPE", help="as transformers names them; all if none is given")
    print("| type | same | dynamic | ops | error | s |\n|---|---|---|---|---|---|")
    for kind in parser.parse_args().types or MODEL_MAPPING_NAMES:
        start = time.perf_counter()
        print(f"| {kind} | {measure(kind)} | {time.perf_counter() - start:.0f} |", flush=True)


if __name__ == "__main__":
    main()
