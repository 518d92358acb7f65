"""The manifest's text: canonical when written, refused with the place when something is wrong with it."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gimlet.runtime.errors import InputError
from gimlet.runtime.manifest_json import read_engines, read_manifest, write_manifest

GOLDEN = Path(__file__).parent / "golden" / "schema-5.gimlet"
TEXT = (GOLDEN / "manifest.json").read_bytes()


def changed(path: str, value: Any) -> bytes:
    """The golden manifest with the entry at `path` (keys and indices with dots) replaced, or removed for `...`."""
    data: Any = json.loads(TEXT)
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    item = data
    for key in parents:
        item = item[key]
    if value is ...:
        del item[last]
    else:
        item[last] = value
    return json.dumps(data).encode()


def test_what_was_read_is_written_again_byte_for_byte():
    assert write_manifest(read_manifest(TEXT)) == TEXT


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", 6, r"schema: this bundle has format 6, .* use gimlet 0\.1\.0 or newer"),
        ("schema", "1", r"schema: expected an integer of at least 1, found \"1\""),
        ("schema", ..., r"schema: is missing"),
        ("steps", ..., r"steps: is missing"),
        ("steps", {}, r"steps: expected a list, found an object"),
        ("steps.0.kind", "jump", r"steps\[0\]\.kind: a step is a launch or a transfer, not 'jump'"),
        ("steps.0.inputs.0", 7, r"steps\[0\]\.inputs\[0\]: expected a string, found 7"),
        ("steps.0.inputs.0", "nope", r"steps\[0\]\.inputs: there is no value 'nope'"),
        ("steps.0.inputs", [], r"steps\[0\]\.inputs: segment 's0' has 1 of them, not 0"),
        ("steps.0.segment", "s9", r"steps\[0\]\.segment: there is no segment 's9'"),
        ("steps.0.after", ["t1"], r"steps\[0\]\.after: there is no earlier step 't1'"),
        ("steps.2.after", [], r"steps\[2\]\.after: the step reads 'y@gpu0' and does not wait for 't1'"),
        ("steps.1.target", "x", r"steps\[1\]: 'y' and 'x' are on the same device"),
        ("steps.2.outputs", ["y@gpu0"], r"steps\[2\]: the value 'y@gpu0' is made twice"),
        ("values.0.shape.0", "n +", r"values\[0\]\.shape\[0\]: not an integer expression: expected a number"),
        ("values.0.shape", "n", r"values\[0\]\.shape: expected a list"),
        ("values.0.dtype", "float33", r"values\[0\]\.dtype: 'float33' is not an element type"),
        ("values.0.device", "tpu0", r"values\[0\]\.device: there is no device 'tpu0'"),
        ("values.1.id", "x", r"values\[1\]: the name 'x' is empty or taken"),
        ("values.1.buffer", "b7", r"values\[1\]\.buffer: there is no buffer 'b7'"),
        ("segments.0.variants", [], r"segments\[0\]\.variants: a segment needs at least one artifact"),
        ("segments.0.id", "../s0", r"the path '\.\./s0' leaves the bundle's folder"),
        ("segments.0.variants.0.files.0", "../../etc/passwd", r"leaves the bundle's folder"),
        ("segments.0.variants.0.files.0", "/etc/passwd", r"leaves the bundle's folder"),
        ("segments.0.variants.0.files.0", "segments//s0", r"not in its normal form"),
        ("segments.0.variants.0.files.0", "other.onnx", r"there is no entry in files for 'other\.onnx'"),
        ("segments.0.variants.0.undigested", ["e.bin"], r"there is no file of this variant 'e\.bin'"),
        ("segments.0.seconds", -1, r"segments\[0\]\.seconds: expected a number of at least 0"),
        ("segments.0.seconds", True, r"segments\[0\]\.seconds: expected a number of at least 0, found true"),
        ("segments.0.typo", 1, r"segments\[0\]\.typo: is not a key of this format"),
        ("dims.n", [4, 2, 8], r"dims\.n: the optimum 2 must lie between 4 and 8"),
        ("dims.n", [1, 2], r"dims\.n: expected a list of 3 integers"),
        ("topology.host", "mainframe", r"topology\.host: there is no device 'mainframe'"),
        ("topology.links.0.between", ["cpu"], r"a link has two ends, not 1"),
        ("outputs.0.value", "y@gpu0", r"outputs\[0\]\.value: 'y@gpu0' is not on the host"),
        ("inputs.0.value", "nothing", r"inputs\[0\]\.value: there is no value 'nothing'"),
        ("buffers.0.device", "tpu0", r"buffers\[0\]\.device: there is no device 'tpu0'"),
        ("signature.args", [], r"signature\.parameters: 2 names for 0 arguments"),
        ("signature.args.0.tensor", "y", r"signature\.args: 'x' is an input .* but not of both"),
        ("signature.kwargs", {"tensor": "x"}, r"signature\.kwargs: expected a dict"),
        ("signature.kwargs.dict.0.key", None, r"dict\[0\]\.key: expected a string or an integer"),
        ("signature.kwargs.dict.0.key", "options", r"dict\[1\]\.key: expected .* that is not taken"),
        ("signature.kwargs.dict.1.value.list.0.constant", [], r"expected a string, a number, true, false or null"),
        ("signature.result.record.0.value.tuple.0.tensor", "q", r"signature\.result: there is no output 'q'"),
        ("signature.changed", [{"input": "q", "output": "y"}], r"signature\.changed: there is no input 'q'"),
        ("signature.changed", [{"input": "x", "output": "q"}], r"signature\.changed: there is no output 'q'"),
        ("signature.result", {"set": []}, r"signature\.result\.set: is no kind of tree"),
        ("signature.result", {"tuple": [], "list": []}, r"signature\.result\.?: a tree has one of .*, not 2 keys"),
        ("schema", 3, r"states: a bundle of format 3 has none"),
        ("states.0.read", "nothing", r"states\[0\]\.read: there is no value 'nothing'"),
        ("states.0.read", "x", r"states\[0\]\.read: 'x' is another|inputs\[0\]\.value: 'x' is another"),
        ("states.0.capacity", [8], r"states\[0\]\.capacity: .* is not of rank 1"),
        ("states.0.capacity", [8, "4"], r"states\[0\]\.capacity: expected a list of integers"),
        ("states.0.written", "q", r"states\[0\]\.written: there is no value that is made 'q'"),
        ("states.0.written", "total", r"states\[0\]\.written: 'total' is not made on 'gpu0', where the state is"),
        ("states.0.written", "y", r"states\[0\]\.written: 'y' is not made on 'gpu0', where the state is"),
        ("states.0.name", "x", r"inputs and states\[1\]: the name 'x' is empty or taken"),
        ("states.0.result", "z", r"outputs and states\[1\]: the name 'z' is empty or taken"),
        ("states.0.in_place", 1, r"states\[0\]\.in_place: expected true or false"),
    ],
)
def test_a_wrong_entry_is_named(path: str, value: Any, message: str):
    with pytest.raises(InputError, match=message):
        read_manifest(changed(path, value))


@pytest.mark.parametrize("schema", [1, 2, 3, 4])
def test_a_manifest_of_a_format_before(schema: int):
    old = read_manifest((GOLDEN.parent / f"schema-{schema}.gimlet" / "manifest.json").read_bytes())
    assert schema > 1 or old.signature is None
    assert read_manifest(write_manifest(old)) == old


def test_what_becomes_of_a_state_has_its_form():
    data: Any = json.loads(TEXT)
    values = {value["id"]: value for value in data["values"]}
    values["total"]["dtype"] = "int32"
    data["segments"][2]["inputs"][0]["dtype"] = "int32"
    with pytest.raises(InputError, match=r"cannot become"):
        read_manifest(json.dumps(data).encode())
    data = json.loads(TEXT)
    data["states"][0]["in_place"] = True
    assert read_manifest(json.dumps(data).encode()).states[0].in_place
    next(value for value in data["values"] if value["id"] == "kept")["shape"] = ["n + 1", "4"]
    with pytest.raises(InputError, match=r"states\[0\]\.written: .* cannot become .* in place"):
        read_manifest(json.dumps(data).encode())
    next(value for value in data["values"] if value["id"] == "total")["dtype"] = "string"
    data["segments"][2]["inputs"][0]["dtype"] = "string"
    with pytest.raises(InputError, match=r"states\[0\]\.read: a value of type string is no state"):
        read_manifest(json.dumps(data).encode())


def test_a_signature_that_nests_too_deeply():
    tree: Any = {"constant": None}
    for _ in range(65):
        tree = {"list": [tree]}
    with pytest.raises(InputError, match="is nested deeper than 64"):
        read_manifest(changed("signature.result", tree))


def test_a_file_with_a_backslash_in_its_path_is_refused():
    with pytest.raises(InputError, match="leaves the bundle's folder"):
        read_manifest(TEXT.replace(b'"module.mlir"', b'"module\\\\mlir"'))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[1]", "expected an object, found a list"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"schema": 1, "schema": 1}', "key 'schema' stands twice"),
        (b'{"schema": NaN}', "NaN is not a number in JSON"),
    ],
)
def test_text_that_is_no_manifest_is_refused(text: bytes, message: str):
    with pytest.raises(InputError, match=message):
        read_manifest(text)


def test_an_expression_that_nests_too_deeply_is_refused():
    with pytest.raises(InputError, match="not an integer expression"):
        read_manifest(changed("values.0.shape.0", "(" * 50_000 + "n"))


def test_engines_of_a_newer_format_are_refused():
    with pytest.raises(InputError, match="format 2"):
        read_engines(b'{"schema": 2, "files": {}}', "engines.json")


def entries(data: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path] + [found for key, value in items for found in entries(value, (*path, key))]


PLACES = entries(json.loads(TEXT))[1:]


@given(
    place=st.sampled_from(PLACES),
    value=st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just([]), st.just({})
    ),
)
def test_no_entry_can_make_reading_fail_otherwise_than_by_its_own_error(place: tuple[str | int, ...], value: Any):
    data: Any = json.loads(TEXT)
    item = data
    for key in place[:-1]:
        item = item[key]
    item[place[-1]] = value
    with suppress(InputError):
        manifest = read_manifest(json.dumps(data))
        assert read_manifest(write_manifest(manifest)) == manifest
