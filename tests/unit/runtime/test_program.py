"""Programs give the right numbers, keep what is the caller's apart, and say what is wrong with an input."""

import threading
from pathlib import Path

import numpy as np
import pytest

import gimlet
from gimlet.runtime.errors import InputError, UsageError
from gimlet.runtime.executors.ort_library import OrtError
from gimlet.runtime.frame import KEPT_BYTES, KEPT_PLANS, SMALL_BYTES


def floats(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 4), np.float32)


def test_a_chain_over_two_devices_is_right_for_every_size(make_bundle, part):
    bundle = make_bundle(
        [
            part("s0", "cpu", "Relu", ("x",), "y"),
            part("s1", "gpu0", "Add", ("y",), "z", weight=(1.0, 2.0, 3.0, 4.0)),
            part("s2", "cpu", "Neg", ("z",), "out"),
        ],
        kinds={"gpu0": "host"},
        buffers={"y": "b0", "out": "b1"},
    )
    with gimlet.load(bundle) as program:
        for n in (1, 8, 3, 8, 1):
            x = floats(n, seed=n)
            expected = -(np.maximum(x, 0) + np.array([1, 2, 3, 4], np.float32))
            np.testing.assert_array_equal(program(x=x)["out"], expected)


@pytest.mark.parametrize("n", [2, 2 * SMALL_BYTES // 16])
def test_outputs_belong_to_the_caller(make_bundle, part, n: int):
    bundle = make_bundle(
        [part("s0", "cpu", "Neg", ("x",), "y"), part("s1", "cpu", "Neg", ("y",), "z")],
        outputs=["y", "z", "x"],
        ranges={"n": (1, 2, n)},
    )
    with gimlet.load(bundle) as program:
        x = floats(n)
        first = program(x=x)
        kept = {name: array.copy() for name, array in first.items()}
        second = program(x=x + 1)
        for name, array in first.items():
            np.testing.assert_array_equal(array, kept[name])
            assert not np.shares_memory(array, second[name])
            assert not np.shares_memory(array, x)
        np.testing.assert_array_equal(second["z"], x + 1)


@pytest.mark.parametrize("n", [2, 2 * SMALL_BYTES // 16])
def test_an_input_that_was_changed_in_place_is_read_again(make_bundle, part, n: int):
    with gimlet.load(make_bundle([part("s0", "cpu", "Neg", ("x",), "y")], ranges={"n": (1, 2, n)})) as program:
        x = floats(n)
        program(x=x)
        x += 1
        np.testing.assert_array_equal(program(x=x)["y"], -x)


def test_read_only_inputs_are_taken(make_bundle, part):
    n = 2 * SMALL_BYTES // 16
    with gimlet.load(make_bundle([part("s0", "cpu", "Neg", ("x",), "y")], ranges={"n": (1, 2, n)})) as program:
        x = floats(n)
        x.flags.writeable = False
        np.testing.assert_array_equal(program(x=x)["y"], -x)


def test_values_of_data_dependent_size_flow_between_devices(make_bundle, part):
    bundle = make_bundle(
        [
            part("s0", "cpu", "NonZero", ("x",), "where", ("2", "found"), "int64"),
            part("s1", "gpu0", "Neg", ("where",), "neg", ("2", "found"), "int64"),
            part("s2", "cpu", "Abs", ("neg",), "back", None, "int64"),
        ],
        kinds={"gpu0": "host"},
        outputs=["back", "where"],
    )
    with gimlet.load(bundle) as program:
        for rows in ([[0, 1, 0, 2]], [[0, 0, 0, 0]], [[1, 1, 1, 1], [0, 0, 0, 3]]):
            x = np.array(rows, np.float32)
            outputs = program(x=x)
            np.testing.assert_array_equal(outputs["back"], np.stack(np.nonzero(x)))
            np.testing.assert_array_equal(outputs["where"], np.stack(np.nonzero(x)))


def test_text_flows_too(make_bundle, part):
    bundle = make_bundle(
        [
            part("s0", "cpu", "Identity", ("t",), "u", ("n",), "string"),
            part("s1", "gpu0", "Identity", ("u",), "v", ("n",), "string"),
        ],
        inputs={"t": ("string", ("n",))},
        kinds={"gpu0": "host"},
    )
    with gimlet.load(bundle) as program:
        for words in (["ab", "", "héllo"], ["z"]):
            assert program(t=np.array(words))["v"].tolist() == words


def test_a_program_without_inputs_runs(make_bundle, part):
    value = np.arange(4, dtype=np.float32)
    from onnx import numpy_helper

    constant = (("value", numpy_helper.from_array(value)),)
    bundle = make_bundle(
        [part("s0", "cpu", "Constant", (), "c", ("4",), attributes=constant)], inputs={"x": ("float32", ("n", "4"))}
    )
    with gimlet.load(bundle) as program:
        np.testing.assert_array_equal(program(x=floats(1))["c"], value)


def test_shapes_come_and_go_without_growing_memory(make_bundle, part):
    bundle = make_bundle([part("s0", "cpu", "Neg", ("x",), "y")], ranges={"n": (1, 2, 64)})
    with gimlet.load(bundle) as program:
        for n in range(64, 0, -1):
            program(x=floats(n))
        (frame,) = program._idle
        assert len(frame._plans) == KEPT_PLANS


def test_large_results_are_not_kept_for_many_shapes(make_bundle, part):
    rows = KEPT_BYTES // 16 // 3
    bundle = make_bundle([part("s0", "cpu", "Neg", ("x",), "y")], ranges={"n": (1, 2, rows)})
    with gimlet.load(bundle) as program:
        for n in range(rows, rows - 4, -1):
            program(x=np.zeros((n, 4), np.float32))
        (frame,) = program._idle
        assert len(frame._plans) == 1


def test_a_refused_input_leaves_the_program_usable(make_bundle, part):
    with gimlet.load(make_bundle([part("s0", "cpu", "Neg", ("x",), "y")])) as program:
        for wrong in (np.zeros((9, 4), np.float32), np.zeros((1, 5), np.float32), np.zeros((1, 4))):
            with pytest.raises(InputError, match="input 'x'"):
                program(x=wrong)
        with pytest.raises(InputError, match="input 'y': there is no such input"):
            program(y=floats(1))
        np.testing.assert_array_equal(program(x=floats(1))["y"], -floats(1))
        assert len(program._idle) == 1


def test_values_that_a_framework_refuses_name_the_segment(make_bundle, part):
    bundle = make_bundle(
        [part("s7", "cpu", "Gather", ("x", "i"), "y", ("k", "4"))],
        inputs={"x": ("float32", ("n", "4")), "i": ("int64", ("k",))},
        ranges={"n": (1, 2, 8), "k": (1, 1, 8)},
    )
    with gimlet.load(bundle) as program:
        with pytest.raises(InputError, match=r"s7: ONNX Runtime refused the values: .*out of data bounds"):
            program(x=floats(2), i=np.array([7], np.int64))
        np.testing.assert_array_equal(program(x=floats(2), i=np.array([1], np.int64))["y"], floats(2)[1:])


def test_a_shape_that_the_manifest_has_wrong_is_an_error(make_bundle, part):
    bundle = make_bundle(
        [part("s0", "cpu", "Concat", ("x", "z"), "y", ("n", "4"), attributes=(("axis", 0),))],
        inputs={"x": ("float32", ("n", "4")), "z": ("float32", ("n", "4"))},
    )
    with gimlet.load(bundle) as program, pytest.raises(InputError, match="s0: ONNX Runtime refused the values"):
        program(x=floats(2), z=floats(2))


def test_submit_gives_futures(make_bundle, part):
    with gimlet.load(make_bundle([part("s0", "cpu", "Neg", ("x",), "y")])) as program:
        futures = [program.submit(x=floats(2, seed)) for seed in range(8)]
        for seed, future in enumerate(futures):
            np.testing.assert_array_equal(future.result()["y"], -floats(2, seed))
        with pytest.raises(InputError, match="there is no such input"):
            program.submit(z=1).result()


def test_one_program_serves_many_threads(make_bundle, part):
    bundle = make_bundle(
        [part("s0", "cpu", "Neg", ("x",), "y"), part("s1", "cpu", "Neg", ("y",), "z")], buffers={"y": "b0"}
    )
    wrong: list[int] = []
    with gimlet.load(bundle) as program:

        def work(seed: int) -> None:
            for index in range(50):
                x = floats(1 + (seed + index) % 3, seed)
                if not np.array_equal(program(x=x)["z"], x):
                    wrong.append(seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_closed_program_says_so(make_bundle, part):
    program = gimlet.load(make_bundle([part("s0", "cpu", "Neg", ("x",), "y")]))
    program(x=floats(1))
    program.close()
    program.close()
    for call in (program, program.submit):
        with pytest.raises(InputError, match="the program was closed"):
            call(x=floats(1))


def test_devices_are_named_as_in_the_topology(make_bundle, part):
    bundle = make_bundle([part("s0", "cpu", "Neg", ("x",), "y")])
    with pytest.raises(UsageError, match="no device 'gpu7'") as caught:
        gimlet.load(bundle, devices={"gpu7": {"index": 1}})
    assert caught.value.hint == "its devices are cpu"


def test_a_program_describes_itself(make_bundle, part):
    with gimlet.load(make_bundle([part("s0", "cpu", "Neg", ("x",), "y")])) as program:
        assert [str(spec) for spec in program.inputs + program.outputs] == ["x: float32[n, 4]", "y: float32[n, 4]"]
        assert [(item.segment, item.executor, item.emulated) for item in program.running] == [
            ("s0", "onnxruntime", False)
        ]
        assert (Path(program._bundle.root) / "manifest.sha256").read_text().strip() == program.id


def test_the_package_loads_what_it_names():
    assert gimlet.load.__module__ == "gimlet.runtime.program"
    assert issubclass(OrtError, Exception)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gimlet.nothing
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gimlet.runtime.nothing


def test_the_version_is_the_distribution_s(root: Path):
    assert f'\nversion = "{gimlet.__version__}"\n' in (root / "pyproject.toml").read_text()
