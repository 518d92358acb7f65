"""The order of calls that a build makes, against a stand-in for the library; and the worker that it runs in.

TensorRT itself (`tensorrt`) builds on its own GPU only, so what is checked here is what is asked of it, by its
documented API. `tests/gpu` has the same build for whoever has the GPU.
"""

import os
import subprocess
import sys
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace

import pytest

from gimlet.targets.tensorrt import builder_trt, engine
from gimlet.targets.tensorrt.builder_trt import BuildSettings, trtexec_lines
from gimlet.targets.tensorrt.cache import EngineCache, engine_key
from gimlet.targets.tensorrt.client import worker_of
from gimlet.targets.tensorrt.engine import BuildJob, BuildReport
from gimlet.targets.tensorrt.memory import available_bytes, predicted_bytes
from gimlet.targets.worker import WorkerError


class Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


class LayerType(IntEnum):
    ATTENTION_OUTPUT = 0
    CONVOLUTION = 1

    def __str__(self):
        return f"LayerType.{self.name}"


class FakeLogger:
    Severity = Severity

    def __init__(self):
        pass


class Layer(SimpleNamespace):
    pass


class AttentionLayer(Layer):
    pass


class Recorder:
    """A module with TensorRT's API whose calls end up in `calls`."""

    __version__ = "10.13.0"
    ILogger = FakeLogger
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    BuilderFlag = SimpleNamespace(TF32="TF32")
    ComputeCapability = SimpleNamespace(SM120="SM120")
    LayerType = LayerType
    IAttentionOutputLayer = AttentionLayer

    def __init__(self, *, parses=True, builds=True, shape_tensor=False):
        self.calls = []
        self.parses, self.builds = parses, builds
        self.logger = None
        tensor = SimpleNamespace(name="x", dtype="DataType.FLOAT", shape=(-1, 3), is_shape_tensor=shape_tensor)
        self.layers = [Layer(type=LayerType.CONVOLUTION), AttentionLayer(type=LayerType.ATTENTION_OUTPUT)]
        self.layers[1].attention = SimpleNamespace(decomposable=False)
        self.network = SimpleNamespace(
            num_inputs=1,
            num_outputs=1,
            num_layers=2,
            get_input=lambda index: tensor,
            get_output=lambda index: tensor,
            get_layer=lambda index: self.layers[index],
        )

    def note(self, name, result=None):
        def call(*arguments):
            self.calls.append((name, *arguments))
            return result

        return call

    def Builder(self, logger):  # noqa: N802  (the library's name)
        self.logger = logger
        self.calls.append(("Builder",))
        config = Config(self)
        profile = SimpleNamespace(set_shape=self.note("set_shape"))
        return SimpleNamespace(
            create_network=self.note("create_network", self.network),
            create_builder_config=self.note("create_builder_config", config),
            create_optimization_profile=self.note("create_optimization_profile", profile),
            build_serialized_network=self.build,
        )

    def build(self, network, config):
        self.calls.append(("build_serialized_network",))
        if not self.builds:
            self.logger.log(Severity.ERROR, "/conv: no kernel fits In build at /_src/builder.cpp:12")
            return None
        self.logger.log(Severity.WARNING, "slow")
        self.logger.log(Severity.INFO, "chatter")
        return HostMemory(b"engine")

    def OnnxParser(self, network, logger):  # noqa: N802
        self.calls.append(("OnnxParser",))
        error = SimpleNamespace(node_name=lambda: "/conv", node_operator=lambda: "Conv", desc=lambda: "no importer")
        return SimpleNamespace(
            parse=self.note("parse", self.parses), num_errors=0 if self.parses else 1, get_error=lambda index: error
        )


class HostMemory(bytes):
    @property
    def nbytes(self):
        return len(self)


class Config:
    def __init__(self, recorder):
        object.__setattr__(self, "recorder", recorder)

    def __setattr__(self, name, value):
        self.recorder.calls.append((name, value))

    def __getattr__(self, name):
        return self.recorder.note(name)


@pytest.fixture
def job(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"model")
    profile = {"x": {"min": [1, 3], "opt": [2, 3], "max": [4, 3]}}
    return BuildJob(str(tmp_path / "m.onnx"), str(tmp_path), str(tmp_path / "e.trt"), profile)


def names(recorder):
    return [call[0] for call in recorder.calls]


def test_the_calls_of_a_build_in_their_order(job):
    trt = Recorder()
    report = engine.build(trt, job)
    assert names(trt) == [
        "Builder",
        "create_network",
        "OnnxParser",
        "parse",
        "create_builder_config",
        "clear_flag",
        "create_optimization_profile",
        "set_shape",
        "add_optimization_profile",
        "build_serialized_network",
    ]
    assert ("create_network", 1 << 1) in trt.calls
    assert ("parse", b"model", str(Path(job.root) / "model.onnx")) in trt.calls
    assert ("clear_flag", "TF32") in trt.calls
    assert ("set_shape", "x", [1, 3], [2, 3], [4, 3]) in trt.calls
    assert report.errors == []
    assert report.warnings == ["slow"]
    assert report.layers == {"ATTENTION_OUTPUT": 1, "CONVOLUTION": 1}
    assert Path(job.engine).read_bytes() == b"engine"
    assert trt.layers[1].attention.decomposable is True


def test_tf32_is_cleared_unless_the_job_allows_it(job):
    trt = Recorder()
    engine.build(trt, BuildJob(job.model, job.root, job.engine, allow_tf32=True))
    assert "clear_flag" not in names(trt)
    assert "create_optimization_profile" not in names(trt)


def test_a_compute_capability_is_set_for_a_gpu_that_is_not_here(job):
    trt = Recorder()
    engine.build(trt, BuildJob(job.model, job.root, job.engine, compute_capability="12.0", optimization_level=5))
    assert ("num_compute_capabilities", 1) in trt.calls
    assert ("set_compute_capability", "SM120", 0) in trt.calls
    assert ("builder_optimization_level", 5) in trt.calls


def test_what_the_parser_refuses_is_reported_by_node(job):
    report = engine.build(Recorder(parses=False), job)
    assert report.errors == ["/conv: no importer"]
    assert not Path(job.engine).exists()


def test_what_the_builder_refuses_is_reported_without_source_positions(job):
    report = engine.build(Recorder(builds=False), job)
    assert report.errors == ["/conv: no kernel fits"]


def test_an_input_that_decides_shapes_is_refused_before_the_build(job):
    trt = Recorder(shape_tensor=True)
    report = engine.build(trt, job)
    assert "needed as a shape" in report.errors[0]
    assert "build_serialized_network" not in names(trt)


def test_a_report_survives_json():
    report = BuildReport(inputs=[engine.Binding("x", "float32", [-1])], layers={"CAST": 2}, engine_bytes=7)
    assert BuildReport.from_json(report.to_json()) == report


def test_messages_are_one_readable_line():
    text = "IBuilder::build: Error Code 4: API Usage Error (a.\nb In validate at /_src/optimizer/network.cpp:40)"
    assert engine.tidy(text) == "IBuilder::build: API Usage Error (a. b"
    assert len(engine.tidy("x" * 9999)) == 400


SETTINGS = BuildSettings(
    model="segments/s0/typed.onnx",
    engine="segments/s0/engine.trt",
    compute_capability="9.0",
    profile={"in put": {"min": [1, 8], "opt": [1, 8], "max": [4, 8]}},
    allow_tf32=False,
)


def test_settings_survive_their_file(tmp_path):
    SETTINGS.write(tmp_path / "build.json")
    read = BuildSettings.read(tmp_path / "build.json")
    assert read.profile == SETTINGS.profile
    assert list(read.trtexec) == trtexec_lines(SETTINGS)


@pytest.mark.parametrize("text", ["", "{}", '{"schema": 2, "library": "tensorrt"}', '{"schema": 1, "library": "x"}'])
def test_settings_that_are_none(tmp_path, text):
    (tmp_path / "build.json").write_text(text)
    with pytest.raises(builder_trt.InputError, match="build settings"):
        BuildSettings.read(tmp_path / "build.json")


def test_the_trtexec_line_quotes_what_a_shell_would_split():
    copy, command, remove = trtexec_lines(SETTINGS)
    assert copy == "cp segments/s0/typed.onnx typed.onnx"
    assert "'--minShapes=in put:1x8'" in command
    assert "--saveEngine=segments/s0/engine.trt" in command
    assert remove == "rm typed.onnx"


def test_finish_builds_the_deferred_model_in_the_bundle(tmp_path, monkeypatch):
    trt = Recorder()
    (tmp_path / "segments" / "s0").mkdir(parents=True)
    (tmp_path / "segments" / "s0" / "typed.onnx").write_bytes(b"model")
    in_process = SimpleNamespace(call=lambda name, **job: engine.build(trt, BuildJob(**job)).to_json())
    monkeypatch.setattr(builder_trt, "worker", lambda module: in_process)
    monkeypatch.setattr(builder_trt, "installed_version", lambda: "10.13.0")
    monkeypatch.setattr(builder_trt, "capability_at_hand", lambda: "9.0")
    report = builder_trt.finish(SETTINGS, tmp_path, tmp_path / "out.trt")
    assert report.errors == []
    assert (tmp_path / "out.trt").read_bytes() == b"engine"
    assert ("parse", b"model", str(tmp_path / "model.onnx")) in trt.calls
    assert "set_compute_capability" not in names(trt)


FAKE_MODULE = """
import os, sys
__version__ = "1"
print("noise on standard output")
class ILogger:
    class Severity:
        INTERNAL_ERROR, ERROR, WARNING = range(3)
    def __init__(self): pass
class Builder:
    def __init__(self, logger): pass
    def create_network(self, flags): return None
class NetworkDefinitionCreationFlag:
    STRONGLY_TYPED = 0
class OnnxParser:
    num_errors = 0
    def __init__(self, network, logger): pass
    def supports_operator(self, name): return name == "Conv"
    def supports_model_v2(self, model):
        if model == b"die":
            print("last words", file=sys.stderr, flush=True)
            os._exit(7)
        if model == b"raise":
            raise RuntimeError("raised on purpose")
        return model == b"good"
"""


@pytest.fixture
def fake_worker(tmp_path, monkeypatch):
    (tmp_path / "fake_trt.py").write_text(FAKE_MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")  # so that what the module prints as it loads is written at once
    worker = worker_of("fake_trt")
    yield worker
    worker.close()


def test_a_worker_answers_beside_what_its_library_prints(fake_worker):
    assert fake_worker.call("hello") == {"version": "1"}
    assert fake_worker.call("operators", names=["Conv", "Det"]) == ["Conv"]
    assert fake_worker.call("supports", [b"good", b"bad\n"])[0] == []
    assert len(fake_worker.call("supports", [b"good", b"bad\n"])[1]) == 1


def test_a_worker_that_dies_says_why_and_is_replaced(fake_worker):
    with pytest.raises(WorkerError, match=r"exit status 7: .*last words"):
        fake_worker.call("supports", [b"die"])
    assert fake_worker.call("hello") == {"version": "1"}


def test_what_the_library_raises_is_the_answer(fake_worker):
    with pytest.raises(WorkerError, match="raised on purpose"):
        fake_worker.call("supports", [b"raise"])
    assert fake_worker.call("hello") == {"version": "1"}


def test_a_worker_without_its_library(monkeypatch):
    worker = worker_of("no_such_module")
    with pytest.raises(WorkerError, match="no_such_module"):
        worker.call("hello")
    worker.close()


def test_the_compiler_itself_never_loads_the_library():
    """Only the worker does: loading it maps 230 MB, and it prints."""
    code = "import gimlet.targets.tensorrt.target, sys; sys.exit('tensorrt_rtx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_cache_keeps_engines_whole_or_not_at_all(tmp_path):
    cache, built, copy = EngineCache(tmp_path), tmp_path / "built.trt", tmp_path / "copy.trt"
    report = BuildReport(layers={"CAST": 1}, engine_bytes=6)
    assert cache.fetch("k", copy) is None
    built.write_bytes(b"engine")
    cache.store("k", built, report)
    assert cache.fetch("k", copy) == report
    assert copy.read_bytes() == b"engine"
    (cache.folder / "k" / "engine.trt").write_bytes(b"damage")
    copy.unlink()
    assert cache.fetch("k", copy) is None
    assert not copy.exists()
    cache.store("k", built, report)
    assert cache.fetch("k", copy) == report


def test_a_cache_that_cannot_be_written_to_is_no_error(tmp_path):
    (tmp_path / "engines").write_text("a file, not a folder")
    built = tmp_path / "built.trt"
    built.write_bytes(b"engine")
    EngineCache(tmp_path).store("k", built, BuildReport())
    assert EngineCache(tmp_path).fetch("k", tmp_path / "copy.trt") is None


def test_a_key_is_the_hash_of_model_and_settings():
    assert engine_key(b"m", {"a": 1, "b": 2}) == engine_key(b"m", {"b": 2, "a": 1})
    assert len({engine_key(b"m", {"a": 1}), engine_key(b"n", {"a": 1}), engine_key(b"m", {"a": 2})}) == 3


def test_memory_is_the_machines_or_the_control_groups(tmp_path):
    meminfo, group = tmp_path / "meminfo", tmp_path / "group"
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:    2048 kB\n")
    assert available_bytes(meminfo, group) == 2 << 20
    group.mkdir()
    (group / "memory.max").write_text("1048576\n")
    (group / "memory.current").write_text("48576\n")
    assert available_bytes(meminfo, group) == 1_000_000
    (group / "memory.max").write_text("max\n")
    assert available_bytes(meminfo, group) == 2 << 20
    assert available_bytes(tmp_path / "none", tmp_path / "none") is None
    assert predicted_bytes(1 << 30) > 4 << 30
