"""SmolLM2-135M, a decode step at a time, on the SRAM machine: python benchmarks/sram_smollm2.py [--tokens N]

Compiles examples.smollm2:decode for one card, in fp32 and in MXINT8, and feeds each bundle the tokens of `TEXT` one by
one, its own new keys and values put into the cache for the next step. Against transformers in float32 on the whole
text: the largest difference of a logit, relative to the largest logit of its step; the perplexity of the text; how
often the most likely next token is the same. Then what the cycle model says of one step. `--bundles DIR` keeps the
bundles, and uses those that are there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import gimlet.runtime
from gimlet.runtime.bundle import open_bundle

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from examples.smollm2 import language_model, tokenizer

TEXT = (
    "The compiler reads a program in one language and writes it in another. A model of the machine tells it what each "
    "instruction costs, and a search decides where the work is done. When the two disagree with a measurement, one of "
    "them is wrong, and the measurement says which. Every figure in this report comes from a command that prints it."
)
TOPOLOGY = """schema = 1
[[device]]
name = "cpu"
kind = "host"
[[device]]
name = "sram0"
kind = "d-matrix/corsair"
[[link]]
between = ["cpu", "sram0"]
kind = "pcie5x16"
"""
CAPACITY = 127


def compiled(folder: Path, fmt: str) -> Path:
    """The bundle of the decode step in a format, made if it is not there."""
    bundle, topology = folder / f"decode-{fmt}.gimlet", folder / "card.toml"
    if bundle.exists():
        return bundle
    topology.write_text(TOPOLOGY, encoding="utf-8")
    command = [sys.executable, "-m", "gimlet.tools.gimlet_compile", "examples.smollm2:decode", "--pin", ".*=sram0"]
    command += ["--topology", str(topology), "--format", f"sram0={fmt}", "-o", str(bundle)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return bundle


def stepped(bundle: Path, tokens: np.ndarray) -> tuple[np.ndarray, float]:
    """The logits after each token [tokens, vocabulary], and the seconds of a step on the emulator."""
    program = gimlet.runtime.load(str(bundle))
    names = [spec.name for spec in program.outputs]
    shape = next(spec.shape for spec in program.inputs if spec.name == "keys")
    keys = np.zeros([int(str(dim)) for dim in shape or ()], np.float32)
    values, logits = keys.copy(), []
    begin = time.perf_counter()
    for position, token in enumerate(tokens):
        found = program(input_ids=np.array([[token]]), length=np.array([position]), keys=keys, values=values)
        step, new_keys, new_values = (found[name] for name in names)
        keys[:, :, :, position], values[:, :, :, position] = new_keys[:, :, :, 0], new_values[:, :, :, 0]
        logits.append(step[0, 0])
    return np.stack(logits), (time.perf_counter() - begin) / len(tokens)


def perplexity(logits: np.ndarray, tokens: np.ndarray) -> float:
    """Of every token after the first, each from the logits of the one before."""
    scores = torch.log_softmax(torch.from_numpy(logits[:-1]).double(), -1)
    return float(torch.exp(-scores[torch.arange(len(tokens) - 1), torch.from_numpy(tokens[1:])].mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=CAPACITY, help="how many tokens of the text")
    parser.add_argument("--bundles", type=Path, help="a folder for the bundles")
    arguments = parser.parse_args()
    tokens = np.array(tokenizer()(TEXT)["input_ids"][: min(CAPACITY, arguments.tokens)])
    with torch.no_grad():
        expected = language_model()(torch.from_numpy(tokens)[None]).logits[0].float().numpy()
    print(f"{len(tokens)} tokens; transformers, float32: perplexity {perplexity(expected, tokens):.3f}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.bundles or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for fmt in ("fp32", "mxint8"):
            bundle = compiled(folder, fmt)
            logits, seconds = stepped(bundle, tokens)
            worst = (np.abs(logits - expected).max(-1) / np.abs(expected).max(-1)).max()
            same = (logits.argmax(-1) == expected.argmax(-1)).mean()
            facts = open_bundle(bundle).manifest.segments[0].variants[0].facts
            print(
                f"{fmt:7} logits within {worst:.1e}, perplexity {perplexity(logits, tokens):.3f}, same first choice "
                f"{same:.1%}, {facts['cycles']} cycles ({float(facts['seconds']) * 1e6:.0f} µs) a step, "
                f"emulated in {seconds:.1f} s, products {facts['products']}"
            )


if __name__ == "__main__":
    main()
