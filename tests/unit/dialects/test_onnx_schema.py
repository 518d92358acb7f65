"""The frozen schemas and the classes made of them."""

from pathlib import Path

import pytest
from xdsl.ir import Operation

from gimlet.dialects.onnx import OPERATORS, OnnxOp, ops, schema_table
from gimlet.dialects.onnx.freeze import freeze
from gimlet.dialects.onnx.op import RESERVED
from gimlet.dialects.onnx.schema import DATA_FILE, OpSchema, Parameter


def test_the_frozen_files_are_what_the_libraries_give(tmp_path: Path):
    freeze(tmp_path)
    for name in (DATA_FILE.name, "ops.pyi"):
        assert (tmp_path / name).read_bytes() == DATA_FILE.with_name(name).read_bytes(), (
            f"run the freeze script: {name}"
        )


def test_every_operator_and_version_is_there():
    table = schema_table()
    default = [name for domain, name in table if not domain]
    assert len(default) == 203
    versions = [
        schema for domain, name in table if "microsoft" not in domain for schema in table.versions(domain, name)
    ]
    assert len(versions) == 659
    assert {"", "ai.onnx.ml", "ai.onnx.preview.training", "com.microsoft"} <= {domain for domain, _ in table}


def test_many_operators_changed_their_signature():
    def signature(schema: OpSchema) -> object:
        return [[(p.name, p.option) for p in side] for side in (schema.inputs, schema.outputs)], [*schema.attributes]

    table = schema_table()
    changed = [
        name
        for domain, name in table
        if not domain and len({str(signature(schema)) for schema in table.versions(domain, name)}) > 1
    ]
    assert len(changed) > 50
    assert {"ReduceSum", "Clip", "Squeeze", "Dropout"} <= set(changed)


def test_the_version_in_force_at_an_opset():
    table = schema_table()
    assert [schema.since_version for schema in table.versions("", "Clip")] == [1, 6, 11, 12, 13]
    at_ten, at_eleven = table.in_force("", "Clip", 10), table.in_force("", "Clip", 11)
    assert at_ten is not None
    assert at_eleven is not None
    assert (at_ten.since_version, at_eleven.since_version) == (6, 11)
    assert "min" in at_ten.attributes
    assert [parameter.name for parameter in at_eleven.inputs] == ["input", "min", "max"]
    assert table.in_force("", "Gelu", 19) is None
    assert table.in_force("com.example", "Gelu", 1) is None


def test_defaults_and_types():
    conv = schema_table().newest("", "Conv")
    assert conv.attributes["group"].default == 1
    assert conv.attributes["auto_pad"].default == "NOTSET"
    assert conv.attributes["strides"].default is None
    assert conv.inputs[0].types == {"tensor(float)", "tensor(float16)", "tensor(double)", "tensor(bfloat16)"}
    assert schema_table().newest("", "LeakyRelu").attributes["alpha"].default == 0.01


@pytest.mark.parametrize(
    ("name", "arity"),
    [("Conv", (2, 3)), ("Concat", (1, None)), ("Relu", (1, 1)), ("RandomNormal", (0, 0)), ("Loop", (0, None))],
)
def test_arity(name: str, arity: tuple[int, int | None]):
    assert schema_table().newest("", name).input_arity == arity


def test_parameters_past_the_last_belong_to_it():
    inputs: tuple[Parameter, ...] = schema_table().newest("", "Concat").inputs
    assert OpSchema.parameter(inputs, 7).name == "inputs"


def test_no_attribute_has_a_name_that_the_dialect_keeps():
    table = schema_table()
    names = {name for key in table for schema in table.versions(*key) for name in schema.attributes}
    assert names & RESERVED == set()


def test_a_class_for_each_operator():
    assert set(OPERATORS) == set(schema_table())
    assert ops.Conv.name == "onnx.Conv"
    assert ops.com_microsoft.Gelu.name == "onnx.com.microsoft.Gelu"
    assert len({cls.name for cls in OPERATORS.values()}) == len(OPERATORS)


def test_accessors_do_not_hide_what_an_operation_is():
    own = set(dir(OnnxOp)) | set(dir(Operation))
    assert all(not own & set(ops.accessors(schema_table().newest(*key))) for key in OPERATORS)
