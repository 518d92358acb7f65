"""The named phases, and the passes of each.

    import → normalize → quantize → annotate → place → split → lower → emit

A module says in `gimlet.phase` which phase it has been through, so that IR read from a file goes on from there. The
phases from `normalize` to `split` are passes over IR; `lower` and `emit` are the targets' and are in `lowering.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import DiagnosticException, PassFailedException

from gimlet.compiler.diagnostics import BUGS, bug_of
from gimlet.compiler.instruments import Instrument, observe
from gimlet.compiler.options import PHASES
from gimlet.dialects.context import GimletContext
from gimlet.passes import registry
from gimlet.passes.fuse_activations import FuseActivationsPass
from gimlet.passes.fuse_attention import FuseAttentionPass
from gimlet.passes.fuse_normalization import FuseNormalizationPass
from gimlet.passes.fuse_rotary import FuseRotaryPass
from gimlet.passes.write_out_experts import WriteOutExpertsPass
from gimlet.passes.write_out_operators import WriteOutOperatorsPass
from gimlet.runtime.errors import GimletError, InputError

_PHASE_ATTR: Final = "gimlet.phase"

NORMALIZE: Final = (
    "inline-functions",
    # Before shapes: equal operations would get symbols of their own for what depends on data, and not be equal then.
    "cse",
    "infer-shapes",
    "fold-constants",
    "unroll-loops",
    "canonicalize-onnx",
    "cse",
    "dce",
    "infer-shapes",
)
FUSE: Final[tuple[str | ModulePass, ...]] = (
    FuseNormalizationPass(keep_parts=True),
    FuseActivationsPass(keep_parts=True),
    FuseRotaryPass(keep_parts=True),
    FuseAttentionPass(keep_parts=True),
    WriteOutExpertsPass(keep_parts=True),
    WriteOutOperatorsPass(keep_parts=True),
    "dce",
)
"""Large operators in the place of what they are written out as: behind NORMALIZE, unless the options say no."""
SPLIT: Final = ("outline-segments", "keep-states", "insert-transfers", "assign-buffers")


def phase_of(module: ModuleOp) -> str:
    """The last phase that the module has been through. InputError where it names one that does not exist."""
    attribute = module.attributes.get(_PHASE_ATTR)
    phase = attribute.data if isinstance(attribute, StringAttr) else "import"
    if phase not in PHASES:
        raise InputError(f"the module is in an unknown phase {phase!r}", hint=f"the phases are: {', '.join(PHASES)}")
    return phase


def set_phase(module: ModuleOp, phase: str) -> None:
    """Records that the module has been through `phase`."""
    module.attributes[_PHASE_ATTR] = StringAttr(phase)


def load_pass(name: str) -> type[ModulePass]:
    """The pass called `name`: ours, else one of xDSL's."""
    if name in registry.PASSES:
        return registry.load(name)
    from xdsl.transforms import get_all_passes

    return get_all_passes()[name]()


def run_passes(
    module: ModuleOp,
    ctx: GimletContext,
    passes: Sequence[str | ModulePass],
    instruments: Sequence[Instrument] = (),
) -> None:
    """Runs passes in order, verifies the module after each, and tells the instruments.

    A user's mistake is raised as a GimletError; anything else that a pass raises is a bug of ours, and is raised as
    CompilerBug with a file that reproduces it.
    """
    items = [load_pass(item)() if isinstance(item, str) else item for item in passes]
    start = module.clone()
    for index, item in enumerate(items):
        try:
            observe(item.name, module, partial(item.apply, ctx, module), module.verify, instruments)
        except GimletError:
            raise
        except PassFailedException as error:
            raise InputError(str(error), where=f"pass {item.name}") from error
        except (DiagnosticException, *BUGS) as error:
            raise bug_of(start, ctx, items[: index + 1], error) from error
