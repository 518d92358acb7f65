"""Questions to TensorRT: asked once, kept on disk, and survived."""

import json

import pytest
from onnx import TensorProto, helper

from gimlet.targets.answers import AnswerFile
from gimlet.targets.tensorrt.probes import Probes
from gimlet.targets.tensorrt.rules import depends_on_its_place, must_be_built
from gimlet.targets.worker import WorkerError

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


class FakeWorker:
    """Answers like a worker; dies of models that hold the operator `deadly`."""

    name = "fake"

    def __init__(self, objections=(), deadly="nothing"):
        self.asked = []
        self.objections = list(objections)
        self.deadly = deadly.encode()

    def call(self, name, payloads=(), **arguments):
        self.asked.append((name, len(payloads) or arguments["names"]))
        if any(self.deadly in model for model in payloads):
            raise WorkerError("fake ended with signal 11")
        if name == "operators":
            return [item for item in arguments["names"] if item != "Tile"]
        return [list(self.objections) for _ in payloads]


@pytest.fixture
def ops_of(import_onnx):
    def run(nodes, inputs=None, opset=21):
        shapes = inputs or {"x": (FLOAT, [4, 4])}
        infos = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in shapes.items()]
        outputs = [helper.make_empty_tensor_value_info(nodes[-1].output[0])]
        graph = helper.make_graph(nodes, "g", infos, outputs)
        module, _ = import_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10))
        modules.append(module)
        return [op for op in module.body.block.first_op.body.block.ops if op.name.startswith("onnx.")]

    modules = []
    return run


def probes(worker, folder, capability="12.0", builds=True):
    return Probes(worker, "1", capability, builds, folder)


def relus(count):
    names = ["x", *(f"v{i}" for i in range(count))]
    return [helper.make_node("Relu", [names[i]], [names[i + 1]]) for i in range(count)]


def test_equal_operations_are_asked_about_once(ops_of, tmp_path):
    worker = FakeWorker()
    assert probes(worker, tmp_path).refusals(ops_of(relus(5))) == [None] * 5
    assert worker.asked == [("supports", 1)]


def test_answers_outlive_the_process(ops_of, tmp_path):
    probes(FakeWorker(["no"]), tmp_path).refusals(ops_of(relus(1)))
    worker = FakeWorker()
    assert probes(worker, tmp_path).refusals(ops_of(relus(1))) == ["no"]
    assert worker.asked == []


def test_a_damaged_file_of_answers_is_asked_again(ops_of, tmp_path):
    (tmp_path / "fake-1.json").write_text('{"cut off')
    worker = FakeWorker()
    probes(worker, tmp_path).refusals(ops_of(relus(1)))
    assert worker.asked
    assert len(json.loads((tmp_path / "fake-1.json").read_text())) == 1


def test_files_of_answers_grow_together(tmp_path):
    one, other = AnswerFile(tmp_path / "a.json"), AnswerFile(tmp_path / "a.json")
    one.add({"p": ""})
    other.add({"q": "no"})
    assert AnswerFile(tmp_path / "a.json").get("p") == ""
    assert other.get("p") == ""


def test_a_folder_that_cannot_be_written_to_costs_time_only(ops_of, tmp_path):
    (tmp_path / "file").write_text("")
    assert probes(FakeWorker(), tmp_path / "file").refusals(ops_of(relus(1))) == [None]


def test_the_operation_that_kills_the_library_is_found(ops_of, tmp_path):
    nodes = [helper.make_node(name, ["x"], [name]) for name in ("Relu", "Sigmoid", "Tanh", "Erf", "Neg")]
    found = probes(FakeWorker(deadly="Tanh"), tmp_path).refusals(ops_of(nodes))
    assert [refusal is None for refusal in found] == [True, True, False, True, True]
    assert "signal 11" in found[2]


def test_only_what_the_parser_overclaims_is_built(ops_of, tmp_path):
    shapes = {name: (FLOAT, [1, 2, 4, 8]) for name in "qkv"}
    ops = ops_of([helper.make_node("Attention", ["q", "k", "v"], ["y"])], shapes, opset=23)
    assert must_be_built(ops[0])
    worker = FakeWorker()
    probes(worker, tmp_path).refusals(ops)
    assert worker.asked == [("supports", 1), ("probe", 1)]
    worker = FakeWorker()
    probes(worker, tmp_path, capability="9.0", builds=False).refusals(ops)
    assert worker.asked == [("supports", 1)]


def test_an_operation_whose_shape_is_computed_is_asked_about_by_name(ops_of, tmp_path):
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Tile", ["x", "s"], ["y"])]
    ops = ops_of(nodes)
    assert [depends_on_its_place(op) for op in ops] == [False, True]
    worker = FakeWorker()
    assert probes(worker, tmp_path).refusals(ops) == [None, "TensorRT has no Tile"]
    assert ("operators", ["Tile"]) in worker.asked


def test_constants_go_with_their_readers(ops_of, tmp_path):
    value = helper.make_tensor("v", TensorProto.DOUBLE, [1], [1.0])
    ops = ops_of([helper.make_node("Constant", [], ["c"], value=value)])
    assert probes(FakeWorker(["never asked"]), tmp_path).refusals(ops) == [None]
