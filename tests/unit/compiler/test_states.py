"""States from what a user says to a program that keeps them, on models of a few ops."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import gimlet
from gimlet.compiler.api import start
from gimlet.compiler.checking.verify import verify_bundle
from gimlet.compiler.options import CompileOptions
from gimlet.compiler.progress import Progress
from gimlet.compiler.sources import open_source
from gimlet.passes.entry import entry_function
from gimlet.passes.state_pairs import state_pairs
from gimlet.runtime.errors import InfeasibleError, InputError, UsageError
from gimlet.runtime.sram.encoding import loads

FLOAT = TensorProto.FLOAT
Shape = list[int | str]


def model_of(nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
    """A model; an input or output is its shape, or its element type and shape."""

    def infos(of: dict[str, Any]) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, *(each if isinstance(each, tuple) else (FLOAT, each)))
            for name, each in of.items()
        ]

    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def growing() -> Any:
    """A cache that grows, `past.k` to `present.k` and the same for `v`, and what is in both summed up."""
    return model_of(
        [
            helper.make_node("Concat", ["past.k", "x"], ["present.k"], axis=0),
            helper.make_node("Concat", ["past.v", "x"], ["present.v"], axis=0),
            helper.make_node("Add", ["present.k", "present.v"], ["both"]),
            helper.make_node("ReduceSum", ["both"], ["y"], keepdims=0),
        ],
        {"x": ["new", 2], "past.k": ["past", 2], "past.v": ["past", 2]},
        {"y": [], "present.k": ["all", 2], "present.v": ["all", 2]},
    )


def fixed() -> Any:
    """A cache of eight rows that a row is written into, at `at`."""
    return model_of(
        [
            helper.make_node("ScatterND", ["cache", "at", "x"], ["cache.new"]),
            helper.make_node("ReduceSum", ["cache.new"], ["y"], keepdims=0),
        ],
        {"x": [1, 2], "at": (TensorProto.INT64, [1, 1]), "cache": [8, 2]},
        {"y": [], "cache.new": [8, 2]},
    )


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def compiled(model: Any, states: dict[str, str], **options: Any) -> Any:
        gimlet.compile(model, output=tmp_path / "m.gimlet", states=states, force=True, **options)
        return gimlet.load(tmp_path / "m.gimlet")

    return compiled


def ones(rows: int) -> Any:
    return np.ones((rows, 2), np.float32)


@pytest.mark.parametrize("states", [{"past": "present"}, {"past.k": "present.k", "past.v": "present.v"}])
def test_a_cache_that_grows_until_it_is_full(load: Any, states: dict[str, str]):
    with load(growing(), states, bind={"past": "0:4:6", "new": "1:1:4"}) as program:
        assert [spec.name for spec in program.inputs] == ["x"]
        assert [spec.name for spec in program.outputs] == ["y"]
        assert [(state.name, state.capacity) for state in program.manifest.states] == [
            ("past.k", (6, 2)),
            ("past.v", (6, 2)),
        ]
        sums = [float(program(x=ones(rows))["y"]) for rows in (3, 1, 2)]
        assert sums == [12, 16, 24]
        with pytest.raises(InputError, match=r"state 'past\.k': it would hold 7 in dimension 0, and has room for 6"):
            program(x=ones(1))
        program.reset()
        assert float(program(x=ones(1))["y"]) == 4


def test_a_cache_of_a_fixed_size_is_written_in_place(load: Any):
    with load(fixed(), {"cache": "cache.new"}) as program:
        (state,) = program.manifest.states
        assert state.in_place
        own = program.state()
        for row in range(8):
            assert float(own(x=ones(1), at=np.array([[row]]))["y"]) == 2 * (row + 1)
        with pytest.raises(InputError, match="indice = 8"):
            own(x=ones(1), at=np.array([[8]]))
        with pytest.raises(InputError, match="may have left a part of a step"):
            own(x=ones(1), at=np.array([[0]]))


def test_in_place_the_runtime_binds_one_memory_twice(load: Any):
    with load(fixed(), {"cache": "cache.new"}) as program:
        own = program.state()
        (part,) = own.parts
        before = part.now.memory
        own(x=ones(1), at=np.array([[3]]))
        assert part.now.memory is before is part.next.memory
        np.testing.assert_array_equal(before.reshape(8, 2)[3], [1, 1])


def test_what_is_written_is_compared_over_several_steps(tmp_path: Path):
    for model, states, bind in (
        (growing(), {"past": "present"}, {"past": "0:4:64", "new": "1:2:4"}),
        (fixed(), {"cache": "cache.new"}, {}),
    ):
        path = tmp_path / "m.onnx"
        onnx.save(model, path)
        gimlet.compile(path, output=tmp_path / "m.gimlet", states=states, bind=bind, force=True)
        for found in verify_bundle(tmp_path / "m.gimlet", open_source(path)):
            assert found.ok
            assert set(found.outputs) == {"y"}
            assert all(segment.alone is not None for segment in found.segments)


def test_a_state_that_is_not_kept_is_found_by_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from gimlet.runtime.state_memory import Part

    onnx.save(fixed(), tmp_path / "m.onnx")
    gimlet.compile(tmp_path / "m.onnx", output=tmp_path / "m.gimlet", states={"cache": "cache.new"})
    monkeypatch.setattr(Part, "shape_at", lambda self, sizes: (8, 2))
    assert verify_bundle(tmp_path / "m.gimlet", open_source(tmp_path / "m.onnx"))[0].ok
    # What a run leaves is forgotten: from the second step on the sums differ.
    monkeypatch.setattr(Part, "written", lambda self, shape: self.now.write(np.full((8, 2), 5, np.float32)))
    assert not verify_bundle(tmp_path / "m.gimlet", open_source(tmp_path / "m.onnx"))[0].ok


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ({"pest": "present"}, r"there is no input 'pest'[\s\S]*the inputs are: x, past\.k, past\.v"),
        ({"past": "gift"}, r"there is no output 'gift'[\s\S]*the outputs are: y, present\.k, present\.v"),
        ({"past": "present.k"}, r"past is 2 inputs, and present\.k is 1 outputs: a state is one of each"),
        ({"past": "present", "past.k": "y"}, r"the input 'past\.k' is in two states"),
        ({"past.k": "present.k", "past.v": "present.k"}, r"the output 'present\.k' is in two states"),
    ],
)
def test_states_that_are_not_there(load: Any, states: dict[str, str], message: str):
    with pytest.raises(UsageError, match=message):
        load(growing(), states)


@pytest.mark.parametrize(
    ("inputs", "outputs", "node", "message"),
    [
        ([4], (TensorProto.INT64, [4]), ("Cast", {"to": 7}), "the element types differ"),
        ([4], [1, 4], ("Unsqueeze", {}), "the ranks differ"),
        ([4], [8], ("Concat", {"axis": 0}), r"dimension 0 is 4 in the input and 8 in the output: what a run leaves"),
    ],
)
def test_what_a_run_leaves_must_fit_the_next(load: Any, inputs: Any, outputs: Any, node: Any, message: str):
    op, attributes = node
    operands = {"Concat": ["a", "a"], "Unsqueeze": ["a", "axes"]}.get(op, ["a"])
    nodes = [
        helper.make_node("Constant", [], ["axes"], value_ints=[0]),
        helper.make_node(op, operands, ["b"], **attributes),
    ]
    with pytest.raises(InputError, match=rf"state 'a'[\s\S]*{message}"):
        load(model_of(nodes, {"a": inputs}, {"b": outputs}), {"a": "b"})


def test_a_state_that_nothing_reads_or_changes(load: Any):
    unread = model_of([helper.make_node("Neg", ["x"], ["b"])], {"x": [4], "a": [4]}, {"b": [4]})
    with pytest.raises(InputError, match="state 'a' is not used: no op reads it"):
        load(unread, {"a": "b"})
    same = model_of(
        [helper.make_node("Neg", ["a"], ["y"]), helper.make_node("Identity", ["a"], ["b"])],
        {"a": [4]},
        {"y": [4], "b": [4]},
    )
    with pytest.raises(InputError, match="state 'a' is never changed"):
        load(same, {"a": "b"})


def test_a_state_without_bounds_is_refused(load: Any):
    with pytest.raises(UsageError, match="nothing bounds the dynamic dimensions new, past"):
        load(growing(), {"past": "present"})


def rack(tmp_path: Path) -> Path:
    path = tmp_path / "rack.toml"
    path.write_text(
        'name = "rack"\n[[device]]\nname = "cpu"\nkind = "host"\n'
        '[[device]]\nname = "sram0"\nkind = "d-matrix/corsair"\n'
        '[[link]]\nbetween = ["cpu", "sram0"]\nkind = "pcie5x16"\n'
    )
    return path


def test_a_state_stays_on_the_device_that_uses_it(load: Any, tmp_path: Path):
    bind = {"past": "0:4:6", "new": "1:1:4"}
    pins = {"Concat": "sram0", "Add": "cpu", "ReduceSum": "cpu"}
    with load(growing(), {"past": "present"}, bind=bind, topology=rack(tmp_path), pins=pins) as program:
        values = {value.id: value for value in program.manifest.values}
        assert {values[state.read].device for state in program.manifest.states} == {"sram0"}
        moved = {values[step.source].name for step in program.manifest.transfers}
        assert moved == {"x", "present.k", "present.v"}, "to the card what is new, from it what others read"
        assert [float(program(x=ones(rows))["y"]) for rows in (3, 1, 2)] == [12, 16, 24]


def test_on_the_accelerator_a_cache_grows_where_it_is(load: Any, tmp_path: Path):
    """Sequences side by side, from a prefix on, and from the start again; what is there is as long as it should be."""
    options: dict[str, Any] = {"topology": rack(tmp_path), "pins": {".*": "sram0"}}
    bind = {"past": "0:4:8", "new": "1:1:3"}
    with load(growing(), {"past": "present"}, bind=bind, **options) as program:
        (artifact,) = tmp_path.glob("m.gimlet/segments/*/program.sram")
        tensors = loads(artifact.read_text()).tensors
        assert [tensor.growth is not None for tensor in tensors if tensor.role == "state"] == [True, True]
        assert not [state for state in program.manifest.states if state.in_place]
        assert program(x=ones(2))["y"] == 8
        assert program(x=ones(1))["y"] == 12
        other = program.state()
        other.load({"past.k": 2 * ones(3), "past.v": ones(3)})
        assert other(x=ones(1))["y"] == 22
        np.testing.assert_array_equal(other.values()["past.k"], np.concatenate([2 * ones(3), ones(1)]))
        assert program(x=ones(1))["y"] == 16
        program.reset()
        assert program(x=ones(3))["y"] == 12
        assert program.state().values() == {}
        assert program(x=ones(3))["y"] == 24
        with pytest.raises(InputError, match="it would hold 9 in dimension 0, and has room for 8"):
            program(x=ones(3))


def test_why_a_state_is_copied_is_told(tmp_path: Path):
    model = model_of(
        [
            helper.make_node("Concat", ["x", "a"], ["a.new"], axis=0),
            helper.make_node("Concat", ["b", "x"], ["b.new"], axis=0),
            helper.make_node("ReduceSum", ["b"], ["y"], keepdims=0),
            helper.make_node("Concat", ["c", "x"], ["c.new"], axis=0),
            helper.make_node("Add", ["d", "x"], ["d.new"]),
        ],
        {"x": [1, 2], "a": ["past", 2], "b": ["past", 2], "c": ["past", 2], "d": [1, 2]},
        {"y": [], "a.new": ["all", 2], "b.new": ["all", 2], "c.new": ["all", 2], "d.new": [1, 2]},
    )
    states = {name: f"{name}.new" for name in "abcd"}
    found = gimlet.compile(model, output=tmp_path / "m.gimlet", states=states, bind={"past": "0:1:8"})
    assert found.placement is not None
    made = "is copied in every run: what it becomes is made by Add, not by one of ScatterND, ScatterElements, "
    assert [note for note in found.placement.notes if note.startswith("state ")] == [
        "state a is copied in every run: Concat puts nothing into it: it is not what that begins with",
        "state b is copied in every run: Concat puts something into it, and it is read elsewhere too",
        f"state d {made}TensorScatter, Concat",
    ]


def test_a_state_that_would_cross_devices_is_refused(load: Any, tmp_path: Path):
    model = model_of(
        [helper.make_node("Exp", ["a"], ["h"]), helper.make_node("Neg", ["h"], ["b"])], {"a": [4]}, {"b": [4]}
    )
    message = "no device takes all of what must share one: Exp 'h' on cpu, Neg 'b' on sram0"
    with pytest.raises(InfeasibleError, match=message):
        load(model, {"a": "b"}, topology=rack(tmp_path), pins={"Exp": "cpu", "Neg": "sram0"})


def test_states_stay_marked_in_ir_that_is_printed_and_read(tmp_path: Path):
    options = CompileOptions(topology=gimlet.compiler.api.resolve_topology(None), states=(("cache", "cache.new"),))
    compilation = start(open_source(fixed()), options, Progress(quiet=True))
    compilation.run_to("annotate")
    (tmp_path / "m.mlir").write_text(str(compilation.module))
    again = start(open_source(tmp_path / "m.mlir"), CompileOptions(topology=options.topology), Progress(quiet=True))
    (pair,) = state_pairs(entry_function(again.module))
    assert pair.name == "cache"
    text = str(compilation.module).replace(', placement.state = "cache"', "", 1)
    (tmp_path / "half.mlir").write_text(text)
    with pytest.raises(InputError, match="state 'cache' is a result of @main only"):
        start(open_source(tmp_path / "half.mlir"), options, Progress(quiet=True))
