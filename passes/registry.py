"""Every pass by its name. A line names the pass's class and costs nothing until it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module

from xdsl.passes import ModulePass

PASSES: dict[str, str] = {
    "inline-functions": "gimlet.passes.inline_functions:InlineFunctionsPass",
    "infer-shapes": "gimlet.passes.infer_shapes:InferShapesPass",
    "fold-constants": "gimlet.passes.fold_constants:FoldConstantsPass",
    "canonicalize-onnx": "gimlet.passes.canonicalize_onnx:CanonicalizeOnnxPass",
    "unroll-loops": "gimlet.passes.unroll_loops:UnrollLoopsPass",
    "upgrade-opset": "gimlet.passes.upgrade_opset:UpgradeOpsetPass",
    "decompose-functions": "gimlet.passes.decompose_functions:DecomposeFunctionsPass",
    "fuse-activations": "gimlet.passes.fuse_activations:FuseActivationsPass",
    "fuse-normalization": "gimlet.passes.fuse_normalization:FuseNormalizationPass",
    "fuse-rotary": "gimlet.passes.fuse_rotary:FuseRotaryPass",
    "fuse-attention": "gimlet.passes.fuse_attention:FuseAttentionPass",
    "write-out-experts": "gimlet.passes.write_out_experts:WriteOutExpertsPass",
    "write-out-operators": "gimlet.passes.write_out_operators:WriteOutOperatorsPass",
    "restore-parts": "gimlet.passes.restore_parts:RestorePartsPass",
    "bind-dims": "gimlet.passes.bind_dims:BindDimsPass",
    "scatter-states": "gimlet.passes.scatter_states:ScatterStatesPass",
    "mark-in-place": "gimlet.passes.mark_in_place:MarkInPlacePass",
    "annotate-costs": "gimlet.passes.annotate_costs:AnnotateCostsPass",
    "place-by-cost": "gimlet.passes.place_by_cost:PlaceByCostPass",
    "outline-segments": "gimlet.passes.outline_segments:OutlineSegmentsPass",
    "keep-states": "gimlet.passes.keep_states:KeepStatesPass",
    "insert-transfers": "gimlet.passes.insert_transfers:InsertTransfersPass",
    "assign-buffers": "gimlet.passes.assign_buffers:AssignBuffersPass",
    "sram-choose-tiles": "gimlet.targets.sram.sram_choose_tiles:SramChooseTilesPass",
    "sram-lower": "gimlet.targets.sram.sram_lower:SramLowerPass",
    "sram-place-tiles": "gimlet.passes.sram_place_tiles:SramPlaceTilesPass",
    "sram-separate-tiles": "gimlet.passes.sram_separate_tiles:SramSeparateTilesPass",
    "sram-home-weights": "gimlet.passes.sram_home_weights:SramHomeWeightsPass",
    "sram-allocate": "gimlet.passes.sram_allocate:SramAllocatePass",
    "sram-synchronise": "gimlet.passes.sram_synchronise:SramSynchronisePass",
}


def load(name: str) -> type[ModulePass]:
    """The class of the pass called `name`. KeyError if there is none."""
    module, _, attribute = PASSES[name].partition(":")
    found: type[ModulePass] = getattr(import_module(module), attribute)
    return found


def factories() -> dict[str, Callable[[], type[ModulePass]]]:
    """For each name a function that loads the class, as xDSL's pipelines and universes take them."""
    return {name: partial(load, name) for name in PASSES}
