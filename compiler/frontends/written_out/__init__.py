"""Operators that PyTorch's ONNX exporter lacks or writes wrongly, written with others before it gets them."""

from torch.export import ExportedProgram

from gimlet.compiler.frontends.written_out.functions import FUNCTIONS
from gimlet.compiler.frontends.written_out.inline import write_out
from gimlet.compiler.frontends.written_out.integers import INTEGERS
from gimlet.compiler.frontends.written_out.layers import LAYERS
from gimlet.compiler.frontends.written_out.matrices import MATRICES
from gimlet.compiler.frontends.written_out.order import ORDER
from gimlet.compiler.frontends.written_out.pools import POOLS

TABLE = {**FUNCTIONS, **INTEGERS, **LAYERS, **MATRICES, **ORDER, **POOLS}


def missing_written_out(program: ExportedProgram) -> ExportedProgram:
    """The program with every operator of the table written out. One without any is returned as it is."""
    return write_out(program, TABLE)
