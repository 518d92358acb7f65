"""Modules of torch.nn and functions of torch, one a case: what converts, and what computes as PyTorch does."""

from torch_zoo.case import Case
from torch_zoo.functions import FUNCTIONS
from torch_zoo.layers import LAYERS
from torch_zoo.shapes import SHAPES

GROUPS: dict[str, list[Case]] = {"layers": LAYERS, "shapes": SHAPES, "functions": FUNCTIONS}
CASES: dict[str, Case] = {case.name: case for group in GROUPS.values() for case in group}
