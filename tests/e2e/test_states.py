"""Language models that keep their cache: greedy decoding equal to PyTorch's, wherever the cache is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import gimlet
from gimlet.compiler.frontends.cache import with_cache, with_fixed_cache
from gimlet.runtime.sram.encoding import loads

PROMPT = [[3, 14, 15, 92]]
NEW = 12


@pytest.fixture(scope="module")
def llama() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=97,
    )
    return LlamaForCausalLM(config).eval()


def rack(folder: Path) -> Path:
    path = folder / "rack.toml"
    path.write_text(
        'name = "rack"\n[[device]]\nname = "cpu"\nkind = "host"\n'
        '[[device]]\nname = "sram0"\nkind = "d-matrix/corsair"\n'
        '[[link]]\nbetween = ["cpu", "sram0"]\nkind = "pcie5x16"\n'
    )
    return path


def decoded(state: Any, *, fixed: bool) -> list[int]:
    """The tokens that a program finds one after the other, given nothing but the last of them."""
    tokens, found, position = np.array(PROMPT), [], 0
    for _ in range(NEW):
        logits, kept = state(tokens, np.array(position)) if fixed else state(tokens)
        assert kept is None
        position += tokens.shape[1]
        found.append(int(logits[0, -1].argmax()))
        tokens = np.array([[found[-1]]])
    return found


@pytest.mark.parametrize(
    ("fixed", "where"),
    [
        (True, "cpu"),
        pytest.param(False, "cpu", marks=pytest.mark.full),
        (True, "sram0"),
        pytest.param(False, "sram0", marks=pytest.mark.full),
        pytest.param(True, "both", marks=pytest.mark.full),
        pytest.param(False, "both", marks=pytest.mark.full),
    ],
)
def test_greedy_decoding_is_that_of_pytorch(llama: Any, tmp_path: Path, fixed: bool, where: str):
    module, args, _, shapes = with_fixed_cache(llama, 24) if fixed else with_cache(llama, past=(0, 12, 24))
    cut = {".*": "cpu", "Attention|ScatterND|Concat|Transpose|Shape": "sram0"}
    pins = cut if where == "both" else {".*": where}
    gimlet.compile(
        module,
        args,
        dynamic_shapes=shapes,
        states=module.states,
        topology=rack(tmp_path),
        pins=pins,
        output=tmp_path / "m.gimlet",
    )
    prompt = torch.tensor(PROMPT)
    wanted = llama.generate(prompt, max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=0)
    expected = wanted[0, prompt.shape[1] :].tolist()
    with gimlet.load(tmp_path / "m.gimlet") as program, program.state() as other:
        values = {value.id: value for value in program.manifest.values}
        kept = {state.read for state in program.manifest.states} | {state.written for state in program.manifest.states}
        assert len(program.manifest.states) == 4
        assert {values[name].device for name in kept} == {"cpu" if where == "cpu" else "sram0"}
        assert not kept & {step.source for step in program.manifest.transfers}
        if where == "sram0":
            (path,) = tmp_path.glob("m.gimlet/segments/*/program.sram")
            held = [tensor for tensor in loads(path.read_text()).tensors if tensor.role == "state"]
            assert [tensor.growth is None for tensor in held] == [fixed] * 4, "changed where they are"
        assert decoded(program, fixed=fixed) == expected
        assert decoded(other, fixed=fixed) == expected
        program.reset()
        assert decoded(program, fixed=fixed) == expected
