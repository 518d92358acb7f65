"""Why a row of gpt-oss in bf16 is far from PyTorch: its router chooses another expert.

    python benchmarks/router_flips.py [--inputs 40] [--no-fuse]

gpt-oss of `families.py` (two layers, random weights) in bf16, once in PyTorch and once as the host's bundle, with the
routers' logits as further outputs. First the input that `large_operators.py --run` takes: for each token whose two
experts differ, the logits on both sides and in float32, then how far the furthest token is, and how far when PyTorch
is made to take the bundle's experts. An expert that ties with the next says nothing of a choice and is left alone.
Then random inputs: tokens that are further than 3% of the largest logit from float32, in PyTorch and in the bundle,
from one another, and those of the last that neither another choice nor a tie explains: of the token itself, or in a
layer before the last one of a token that it attends to.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from families import FAMILIES, VOCABULARY
from numpy.typing import NDArray
from torch.utils import _pytree
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssTopKRouter

import gimlet

FAR = 0.03
"""Of the largest logit of a model; what rounding alone does is below it."""
LENGTH = 12
Array = NDArray[np.float64]


class WithRouters(torch.nn.Module):
    """A model's logits, and those of each router: (tokens, experts)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def routers(self) -> list[Any]:
        """In the order of the layers."""
        return [part for part in self.model.modules() if isinstance(part, GptOssTopKRouter)]

    def forward(self, input_ids: Any) -> Any:
        seen: list[Any] = []

        def keep(_: Any, __: Any, out: Any) -> None:
            seen.append(out[0])

        hooks = [router.register_forward_hook(keep) for router in self.routers()]
        logits = self.model(input_ids=input_ids, use_cache=False).logits
        for hook in hooks:
            hook.remove()
        return (logits, *seen)


@contextmanager
def choosing(model: WithRouters, experts: Mapping[tuple[int, int], list[int]]) -> Generator[None]:
    """Within it the tokens at (layer, token) go to these experts, weighed by their own logits."""

    def hook_of(layer: int) -> Any:
        def hook(_: Any, __: Any, out: Any) -> Any:
            logits, scores, chosen = out[0], out[1].clone(), out[2].clone()
            for (where, token), other in experts.items():
                if where == layer:
                    chosen[token] = torch.tensor(other)
                    scores[token] = torch.softmax(logits[token, chosen[token]], 0)
            return logits, scores, chosen

        return hook

    hooks = [router.register_forward_hook(hook_of(layer)) for layer, router in enumerate(model.routers())]
    yield
    for hook in hooks:
        hook.remove()


def outputs(model: Any, tokens: Any) -> list[Array]:
    """Of a module or a program, a row for each token."""
    with torch.no_grad():
        leaves: list[Any] = _pytree.tree_leaves(model(input_ids=tokens))
    found = [leaf.double().numpy() if isinstance(leaf, torch.Tensor) else leaf.astype(np.float64) for leaf in leaves]
    return [leaf.reshape(-1, leaf.shape[-1]) for leaf in found]


def off(a: list[Array], b: list[Array]) -> Array:
    """For each token its largest difference, relative to the largest logit."""
    return abs(a[0] - b[0]).max(-1) / abs(b[0]).max()


def top_two(logits: Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The two experts of each token, and whether the second ties with the third."""
    ordered = -np.sort(-logits, -1)
    return np.argsort(-logits, -1, kind="stable")[:, :2].astype(np.int64), ordered[:, 1] == ordered[:, 2]


def changed(a: list[Array], b: list[Array]) -> Generator[tuple[int, int, bool]]:
    """Layer and token of each choice that differs between two runs or is a tie in one, and whether it is a tie."""
    for layer, (ours, theirs) in enumerate(zip(a[1:], b[1:], strict=True)):
        (one, tie), (other, other_tie) = top_two(ours), top_two(theirs)
        differs = (np.sort(one) != np.sort(other)).any(-1)
        for token in np.flatnonzero(differs | tie | other_tie):
            yield layer, int(token), bool(tie[token] or other_tie[token])


def the_row(model: WithRouters, exact: WithRouters, program: gimlet.Program, tokens: Any) -> None:
    """Prints what the table's own input shows."""
    theirs, ours, best = outputs(model, tokens), outputs(program, tokens), outputs(exact, tokens)
    experts: dict[tuple[int, int], list[int]] = {}
    for layer, token, tie in changed(theirs, ours):
        if tie:
            continue
        experts[layer, token] = top_two(ours[1 + layer])[0][token].tolist()
        for name, run in (("PyTorch", theirs), ("bundle", ours), ("float32", best)):
            logits = run[1 + layer][token]
            named = ", ".join(f"{expert}: {logits[expert]:.5f}" for expert in np.argsort(-logits)[:3])
            print(f"layer {layer}, token {token}, {name}: {named}")
    before = off(ours, theirs)
    with choosing(model, experts):
        after = off(ours, outputs(model, tokens))
    print(f"{before.size} tokens: furthest {before.max():.4f}, next {np.sort(before)[-2]:.4f}")
    print(f"with the bundle's experts in PyTorch: furthest {after.max():.4f}")


def many(model: WithRouters, exact: WithRouters, program: gimlet.Program, inputs: int) -> None:
    """Prints how often rows are far off."""
    far, alone, unexplained, count = {"PyTorch": 0, "bundle": 0, "one another": 0}, 0, 0, 0
    for seed in range(inputs):
        tokens = torch.randint(2, VOCABULARY, (5, LENGTH), generator=torch.Generator().manual_seed(1000 + seed))
        theirs, ours, best = outputs(model, tokens), outputs(program, tokens), outputs(exact, tokens)
        far["PyTorch"] += int((off(theirs, best) > FAR).sum())
        far["bundle"] += int((off(ours, best) > FAR).sum())
        apart = off(ours, theirs) > FAR
        far["one another"] += int(apart.sum())
        own = [token for _, token, _ in changed(theirs, ours)]
        apart[own] = False
        alone += int(apart.sum())
        for token in (token for layer, token, _ in changed(theirs, ours) if layer < len(ours) - 2):
            apart[token : (token // LENGTH + 1) * LENGTH] = False
        unexplained += int(apart.sum())
        count += apart.size
    print(f"{count} random tokens, further than {FAR} from float32: {far}")
    print(f"of the last, not by a choice of their own: {alone}, nor by one that they attend to: {unexplained}")


def main() -> None:
    """Prints the row, and how often there are such."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=40)
    parser.add_argument("--no-fuse", action="store_true")
    arguments = parser.parse_args()
    family = FAMILIES["gpt-oss"]()
    model = WithRouters(family.module().to(torch.bfloat16))
    exact = WithRouters(family.module().to(torch.bfloat16).float())
    traced, other = (family.inputs(family.sizes(which)) for which in (1, 2))
    with tempfile.TemporaryDirectory() as folder:
        bundle = gimlet.compile(
            model,
            kwargs={"input_ids": traced["input_ids"]},
            dynamic_shapes={"input_ids": family.dynamic_shapes(traced)["input_ids"]},
            fuse=not arguments.no_fuse,
            output=Path(folder) / "m.gimlet",
        )
        with gimlet.load(bundle.path) as program:
            the_row(model, exact, program, other["input_ids"])
            many(model, exact, program, arguments.inputs)


if __name__ == "__main__":
    main()
