"""The `onnx` dialect: ONNX's operators as xDSL operations, generated from frozen schemas.

This is the interface that passes, targets and the compiler use. Import and export are in `importer` and `exporter`,
weights in `weights`, and the classes of the operators in `ops`.
"""

from __future__ import annotations

from xdsl.ir import Dialect

from gimlet.dialects.onnx.attributes import ATTRIBUTES, ReferenceAttr, SparseAttr, StringsAttr, WeightAttr, tensor_attr
from gimlet.dialects.onnx.extra_ops import EXTRA_OPS, CustomOp, InitializerOp, YieldOp
from gimlet.dialects.onnx.names import assign_names, declared_name, node_name, set_value_name, value_name
from gimlet.dialects.onnx.op import OnnxOp
from gimlet.dialects.onnx.ops import OPERATORS
from gimlet.dialects.onnx.parts import OWN, PARTS, functions_of, has_parts, is_own, large_ops, parts_of
from gimlet.dialects.onnx.schema import AttributeSchema, OpSchema, Parameter, schema_table
from gimlet.dialects.onnx.types import (
    TYPES,
    AnyType,
    DimsAttr,
    MapType,
    OptionalType,
    SeqType,
    SparseType,
    StringType,
    dims_of,
    dtype_of,
    element_bits,
    onnx_type,
    shape_of,
    tensor_type,
)
from gimlet.dialects.onnx.values import constant_value
from gimlet.dialects.onnx.verify import OPSETS, opset_in_force

Onnx = Dialect("onnx", [*EXTRA_OPS, *OPERATORS.values()], [*TYPES, *ATTRIBUTES])

__all__ = [
    "OPERATORS",
    "OPSETS",
    "OWN",
    "PARTS",
    "AnyType",
    "AttributeSchema",
    "CustomOp",
    "DimsAttr",
    "InitializerOp",
    "MapType",
    "Onnx",
    "OnnxOp",
    "OpSchema",
    "OptionalType",
    "Parameter",
    "ReferenceAttr",
    "SeqType",
    "SparseAttr",
    "SparseType",
    "StringType",
    "StringsAttr",
    "WeightAttr",
    "YieldOp",
    "assign_names",
    "constant_value",
    "declared_name",
    "dims_of",
    "dtype_of",
    "element_bits",
    "functions_of",
    "has_parts",
    "is_own",
    "large_ops",
    "node_name",
    "onnx_type",
    "opset_in_force",
    "parts_of",
    "schema_table",
    "set_value_name",
    "shape_of",
    "tensor_attr",
    "tensor_type",
    "value_name",
]
