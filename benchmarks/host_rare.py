"""Kernels of operators that few networks have, each in shapes that the host's figures are fitted to and in others.

`rare_kernels(unseen)` yields (name, ONNX model): transposes and softmaxes along any axis, reductions, TopK, scatters,
resizes, pools, 8-bit integers between Q/DQ pairs, and functions that are computed value by value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Named = tuple[str, ModelProto]
_node = helper.make_node
_RANDOM = np.random.default_rng(0)


def rare_kernels(*, unseen: bool) -> Iterator[Named]:
    """Those of the second set of shapes where `unseen`, else those of the first."""
    for make in (_transposes, _softmaxes, _reductions, _picks, _images, _functions, _integers, _channels):
        yield from make(int(unseen))


def _constant(name: str, values: Any) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def _model(nodes: Sequence[NodeProto], inputs: dict[str, Sequence[int]], *weights: TensorProto, **types: int) -> Any:
    """`types` are those of inputs and of the output y, where they are not float32."""
    graph = helper.make_graph(
        nodes,
        "kernel",
        [
            helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), shape)
            for name, shape in inputs.items()
        ],
        [helper.make_tensor_value_info("y", types.get("y", TensorProto.FLOAT), None)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def _one(op: str, shape: Sequence[int], *weights: TensorProto | None, y: int = TensorProto.FLOAT, **own: Any) -> Any:
    names = ["x", *(weight.name if weight else "" for weight in weights)]
    return _model([_node(op, names, ["y"], **own)], {"x": shape}, *(weight for weight in weights if weight), y=y)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


_PERMUTED = (
    "1,3,320,320:0,2,3,1 1,320,320,3:0,3,1,2 1024,1024:1,0 300,700:1,0 2000,3000:1,0 24,96,96:2,1,0 64,300,200:2,1,0 "
    "8,32,64,32:0,2,1,3 2,3,4,5,6,7:5,4,3,2,1,0 16,32,32,16:3,1,2,0 1,8,128,512:0,3,1,2 40000,320:1,0 "
    "4,16,8,8,64:0,3,1,2,4 6,10,12,14,16:0,2,4,1,3",
    "1,3,480,480:0,2,3,1 1,200,300,16:0,3,1,2 768,2048:1,0 100,100:1,0 1,512,1600:0,2,1 32,64,128:2,1,0 "
    "12,128,96,8:0,2,1,3 3,4,5,6,7,8:5,3,4,2,1,0 8,64,48,32:3,1,2,0 30000,512:1,0 2,16,16,16,32:0,4,1,3,2 "
    "64,256,256:2,1,0",
)


def _transposes(which: int) -> Iterator[Named]:
    for text in _PERMUTED[which].split():
        shape, perm = (_numbers(part) for part in text.split(":"))
        yield f"Transpose {text}", _one("Transpose", shape, perm=perm)


_SOFT = (
    "128,1000:0 1,16,40,40:1 1,4,16,2100:1 1,2,200,200:2 1,64,32,32:1 2,300,80:1",
    "256,300:0 1,8,64,64:1 1,4,16,8400:1 1,21,100,100:1 4,100,100:1",
)


def _softmaxes(which: int) -> Iterator[Named]:
    for text in _SOFT[which].split():
        shape, (axis,) = (_numbers(part) for part in text.split(":"))
        yield f"Softmax {text}", _one("Softmax", shape, axis=axis)


_REDUCED = (
    "1,256,28,28:2,3 1,64,56,56:1 512,512:0 512,512:1 1000,64:0 64,32,128:0,2 1,3,224,224:0,1,2,3 16,8,512:1 "
    "1,2048,49:2 8,100,768:1 1,256,64,64:1 2000,700:0 64,3:1",
    "1,512,14,14:2,3 1,128,40,40:1 300,900:0 300,900:1 32,16,300:0,2 1,1024,32,32:1 4,64,256:1 100000:0 1,24,80,80:3",
)


def _reductions(which: int) -> Iterator[Named]:
    for text in _REDUCED[which].split():
        shape, axes = (_numbers(part) for part in text.split(":"))
        names = (
            ("Sum", "Mean", "Max", "L2", "Prod", "LogSumExp") if len(text) % 2 else ("Sum", "Max", "L1", "LogSumExp")
        )
        for name in names:
            model = _one(f"Reduce{name}", shape, _constant("a", np.array(axes, np.int64)), keepdims=0)
            yield f"Reduce{name} {text}", model
        if len(axes) == 1:
            yield f"ArgMax {text}", _one("ArgMax", shape, y=TensorProto.INT64, axis=axes[0])


_TOP = (
    "1,1000:5:1 1,50000:100:1 64,1000:10:1 1,2100,80:1:2 100,256:50:0 1,8400:300:1 32,32000:50:1",
    "1,5000:20:1 16,2000:40:1 1,900,91:1:2 64,100:10:0 1,20000:1000:1",
)
_PICKED = ((5000, 128, 2000), (512, 1000, 300), (4096, 64, 512)), ((9000, 64, 1000), (300, 2000, 500), (1024, 256, 200))


def _picks(which: int) -> Iterator[Named]:
    for text in _TOP[which].split():
        shape, (kept,), (axis,) = (_numbers(part) for part in text.split(":"))
        node = _node("TopK", ["x", "k"], ["y", "i"], axis=axis)
        yield f"TopK {text}", _model([node], {"x": shape}, _constant("k", np.array([kept], np.int64)))
    for entries, size, taken in _PICKED[which]:
        text, shape = f"{taken} of {entries}x{size}", (entries, size)
        rows = _constant("i", _RANDOM.integers(0, entries, taken))
        yield f"Gather {text}", _one("Gather", shape, rows, axis=0)
        columns = _constant("i", _RANDOM.integers(0, size, taken // 4))
        yield f"Gather columns {text}", _one("Gather", shape, columns, axis=1)
        each = _constant("i", _RANDOM.integers(0, size, (entries, taken // 8)))
        yield f"GatherElements {text}", _one("GatherElements", shape, each, axis=1)
        pairs = _constant("i", np.stack([_RANDOM.integers(0, entries, taken), _RANDOM.integers(0, size, taken)], -1))
        yield f"GatherND {text}", _one("GatherND", shape, pairs)
        some = _constant("i", _RANDOM.permutation(entries)[: taken // 4, None].astype(np.int64))
        node = _node("ScatterND", ["x", "i", "u"], ["y"])
        yield f"ScatterND {text}", _model([node], {"x": shape, "u": (taken // 4, size)}, some)
        node = _node("ScatterElements", ["x", "i", "u"], ["y"], axis=1)
        yield f"ScatterElements {text}", _model([node], {"x": shape, "u": (entries, taken // 8)}, each)


_RESIZED = (
    "linear,64,32,2 linear,3,320,1 linear,128,14,4 linear,32,50,3 cubic,8,40,2 nearest,64,40,2 nearest,30,80,1",
    "linear,96,24,2 linear,3,400,1 cubic,3,64,2 nearest,22,60,2 linear,256,16,2 nearest,128,20,2",
)
"""Mode, channels, size, factor, where 1 stands for a half."""
_POOLED = (
    "2:64,56,2,2 2:18,56,3,2 2:64,112,3,2 2:128,20,5,1 2:20,80,2,2 1:64,2000,4,4 1:128,500,3,2 3:16,16,2,2 3:8,32,3,1",
    "2:32,80,2,2 2:22,64,3,2 2:96,30,3,1 2:10,100,4,4 1:32,4000,8,8 3:24,16,2,2 2:256,20,13,1",
)


def _images(which: int) -> Iterator[Named]:
    for mode, *rest in (text.split(",") for text in _RESIZED[which].split()):
        channels, size, factor = (int(part) for part in rest)
        scales = _constant("s", np.array([1, 1, *[0.5 if factor == 1 else factor] * 2], np.float32))
        model = _one("Resize", (1, channels, size, size), None, scales, mode=mode)
        yield f"Resize {mode} {channels} {size} {factor}", model
    for text in _POOLED[which].split():
        dims, (channels, size, kernel, stride) = int(text[0]), _numbers(text[2:])
        for name in ("MaxPool", "AveragePool"):
            settings = {"kernel_shape": [kernel] * dims, "strides": [stride] * dims}
            padding = {"pads": [kernel // 2] * 2 * dims} if kernel > 2 and kernel != stride else {}
            yield f"{name} {text}", _one(name, (1, channels, *[size] * dims), **settings, **padding)


_PLAIN = "Exp Sqrt Softplus Mish HardSwish Softsign Sign Round Floor Atan Selu Sinh Tan Asin Reciprocal Ceil Log Cos"
_LEARNT = 50_000
"""So many branches are foreseen when the same values come again and again, as those of a network do not."""
_LENGTHS = (20_000, 200_000), (60_000, 400_000)


def _functions(which: int) -> Iterator[Named]:
    for length in _LENGTHS[which]:
        for name in _PLAIN.split():
            yield f"{name} {length}", _one(name, (length,))
        for exponent in (0.5, 2.3):
            yield f"Pow {exponent} {length}", _one("Pow", (length,), _constant("e", np.float32(exponent)))
        for name in ("Max", "Sum"):
            yield (
                f"{name} of three {length}",
                _model([_node(name, ["x", "z", "x"], ["y"])], {"x": (length,), "z": (length,)}),
            )
        if length > _LEARNT:
            nodes = [_node("Greater", ["x", "z"], ["c"]), _node("Where", ["c", "x", "z"], ["y"])]
            yield f"Where {length}", _model(nodes, {"x": (length,), "z": (length,)})
        yield f"CumSum {length}", _one("CumSum", (length // 500, 500), _constant("a", np.int64(1)))
        values = _constant("v", np.array([0, 1], np.float32))
        node = _node("OneHot", ["x", "d", "v"], ["y"])
        depth = _constant("d", np.array([250], np.int64))
        yield f"OneHot {length}", _model([node], {"x": (length // 250,)}, depth, values, x=TensorProto.INT64)
        yield f"Trilu {length}", _one("Trilu", (length // 10_000, 100, 100))
        halves = _model(
            [_node("Add", ["x", "x"], ["y"])], {"x": (length,)}, x=TensorProto.FLOAT16, y=TensorProto.FLOAT16
        )
        yield f"Add, float16 {length}", halves


_IMAGES = ("64,24 256,16 32,96", "48,40 128,28 16,100")


def _channels(which: int) -> Iterator[Named]:
    for channels, size in (_numbers(text) for text in _IMAGES[which].split()):
        shape, text = (1, channels, size, size), f"{channels} {size}"
        ones = np.ones(channels, np.float32)
        for name in ("InstanceNormalization", "BatchNormalization"):
            weights = [_constant(part, ones) for part in ("wb" if name.startswith("I") else "wbmv")]
            yield f"{name} {text}", _one(name, shape, *weights)
        yield f"LRN {text}", _one("LRN", shape, size=5)
        if channels * size**2 > _LEARNT:
            yield f"PRelu {text}", _one("PRelu", shape, _constant("w", np.full((channels, 1, 1), 0.1, np.float32)))
        yield f"DepthToSpace {text}", _one("DepthToSpace", shape, blocksize=2)
        yield f"SpaceToDepth {text}", _one("SpaceToDepth", shape, blocksize=2)
        yield (
            f"GridSample {text}",
            _model([_node("GridSample", ["x", "g"], ["y"])], {"x": shape, "g": (1, size, size, 2)}),
        )
        ends = _constant("e", np.array([size, size], np.int64))
        steps = [_constant("a", np.array([2, 3], np.int64)), _constant("t", np.array([2, 2], np.int64))]
        yield f"Slice steps {text}", _one("Slice", shape, _constant("s", np.array([0, 0], np.int64)), ends, *steps)
        for mode in ("constant", "reflect"):
            pads = _constant("p", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
            yield f"Pad {mode} {text}", _one("Pad", shape, pads, mode=mode)


_QUANTIZED = ("1,1024,1024 64,768,768 16,256,512 128,384,1536", "1,768,2048 32,512,512 100,256,768")
_QUANTIZED_IMAGES = (
    "64,64,28,3,1 32,64,56,1,1 96,96,28,3,96 128,128,14,3,1",
    "48,96,20,3,1 128,64,28,1,1 64,64,40,3,64",
)


def _integers(which: int) -> Iterator[Named]:
    scale, zero = _constant("s", np.float32(0.05)), _constant("z", np.uint8(128))
    own = [scale, zero, _constant("n", np.int8(0))]
    before = [_node("QuantizeLinear", ["x", "s", "z"], ["q"]), _node("DequantizeLinear", ["q", "s", "z"], ["d"])]
    before.append(_node("DequantizeLinear", ["w", "s", "n"], ["e"]))
    behind = [_node("QuantizeLinear", ["o", "s", "z"], ["p"]), _node("DequantizeLinear", ["p", "s", "z"], ["y"])]
    for m, k, n in (_numbers(text) for text in _QUANTIZED[which].split()):
        weights = _constant("w", _RANDOM.integers(-100, 100, (k, n)).astype(np.int8))
        nodes = [*before, _node("MatMul", ["d", "e"], ["o"]), *behind]
        yield f"Q/DQ product {m}x{k}x{n}", _model(nodes, {"x": (m, k)}, weights, *own)
        nodes = [
            _node("DynamicQuantizeLinear", ["x"], ["q", "r", "u"]),
            _node("MatMulInteger", ["q", "w", "u"], ["i"]),
            _node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
            _node("Mul", ["f", "r"], ["y"]),
        ]
        yield f"dynamic product {m}x{k}x{n}", _model(nodes, {"x": (m, k)}, weights)
    for channels, filters, size, kernel, group in (_numbers(text) for text in _QUANTIZED_IMAGES[which].split()):
        weights = _constant(
            "w", _RANDOM.integers(-100, 100, (filters, channels // group, kernel, kernel)).astype(np.int8)
        )
        nodes = [*before, _node("Conv", ["d", "e"], ["o"], pads=[kernel // 2] * 4, group=group), *behind]
        text = f"{channels}-{filters}/{group} {size} {kernel}"
        yield f"Q/DQ convolution {text}", _model(nodes, {"x": (1, channels, size, size)}, weights, *own)
    for length in _LENGTHS[which]:
        pair = [before[0], _node("DequantizeLinear", ["q", "s", "z"], ["y"])]
        yield f"Q/DQ {length}", _model(pair, {"x": (length,)}, scale, zero)
