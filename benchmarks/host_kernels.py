"""Models of one kernel each, in the shapes of common networks: what the host's figures are fitted to besides networks.

`kernels()` yields (name, ONNX model). Every kind of work in `gimlet.targets.onnxruntime.features` occurs in several
sizes, so that no figure depends on a single network having it. `unseen()` are others, which nothing is fitted to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from host_large import large_kernels
from host_rare import rare_kernels
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Shape = Sequence[int]
Named = tuple[str, ModelProto]


def kernels() -> Iterator[Named]:
    yield from _convolutions()
    yield from _depthwise()
    yield from _other_convolutions()
    yield from _products()
    yield from _elementwise()
    yield from _along_rows()
    yield from _movement()
    yield from _images()
    yield from _recurrent(_RECURRENT)
    yield from _launches()
    yield from large_kernels()
    yield from _recurrent(_HEAVY)
    yield from _by_columns(_COLUMNS)
    yield from rare_kernels(unseen=False)


def unseen() -> Iterator[Named]:
    """Kernels of classes that are easily mispredicted, in shapes that no figure is fitted to."""
    yield from _recurrent(_HEAVY_UNSEEN)
    yield from _by_columns(_COLUMNS_UNSEEN)
    yield from rare_kernels(unseen=True)


def _weight(name: str, *shape: int) -> TensorProto:
    values = np.random.default_rng(0).standard_normal(shape) * 0.1
    return numpy_helper.from_array(values.astype(np.float32), name)


def _integers(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def _model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[tuple[str, Shape]],
    weights: Sequence[TensorProto] = (),
    outputs: Sequence[str] = ("y",),
    input_type: int = TensorProto.FLOAT,
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "kernel",
        [helper.make_tensor_value_info(name, input_type, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)


def _one(op: str, shape: Shape, *weights: TensorProto, **attributes: Any) -> ModelProto:
    names = ["x", *(weight.name for weight in weights)]
    return _model([helper.make_node(op, names, ["y"], **attributes)], [("x", shape)], weights)


def _two(op: str, first: Shape, second: Shape, **attributes: Any) -> ModelProto:
    return _model([helper.make_node(op, ["x", "z"], ["y"], **attributes)], [("x", first), ("z", second)])


_CONVOLUTIONS = (
    "3,16,240,3,2 3,32,224,3,2 3,64,224,7,2 3,24,160,3,2 16,16,120,3,1 16,32,120,3,2 32,32,56,3,1 64,64,56,3,1 "
    "64,64,28,3,1 128,128,28,3,1 128,128,14,3,1 256,256,14,3,1 256,256,7,3,1 512,512,7,3,1 96,24,120,3,1 64,24,120,3,1 "
    "24,96,60,9,1 48,48,40,5,1 64,128,40,3,2 128,256,20,3,2 16,64,60,1,1 32,16,112,1,1 64,24,56,1,1 24,144,56,1,1 "
    "64,128,56,1,1 144,32,28,1,1 192,64,28,1,1 384,64,14,1,1 64,384,14,1,1 128,128,40,1,1 256,128,20,1,1 "
    "512,256,20,1,1 256,512,7,1,1 576,160,7,1,1 960,320,7,1,1 320,1280,7,1,1 512,2048,7,1,1 120,120,1,1,1 "
    "480,120,1,1,1 96,384,6,1,1 48,96,20,1,1"
)
"""Channels in, channels out, height and width, kernel, stride."""


def _numbers(text: str) -> Iterator[list[int]]:
    for item in text.split():
        yield [int(number) for number in item.split(",")]


def _convolutions() -> Iterator[Named]:
    for channels, filters, size, kernel, stride in _numbers(_CONVOLUTIONS):
        name = f"conv {channels}-{filters} {size} {kernel}/{stride}"
        shape, settings = [1, channels, size, size], {"pads": [kernel // 2] * 4, "strides": [stride] * 2}
        weights = [_weight("w", filters, channels, kernel, kernel), _weight("b", filters)]
        yield name, _one("Conv", shape, *weights, **settings)
        if filters > 256 or kernel > 5:
            continue
        nodes = [
            helper.make_node("Conv", ["x", "w", "b"], ["t"], **settings),
            helper.make_node("Relu", ["t"], ["u"]),
            helper.make_node("Conv", ["u", "v"], ["y"]),
        ]
        yield f"{name}, 1/1", _model(nodes, [("x", shape)], [*weights, _weight("v", filters, filters, 1, 1)])


_DEPTHWISE = (
    "16,120,3,1 32,112,3,1 64,56,3,1 96,112,3,2 144,56,3,1 144,56,3,2 192,28,3,1 384,14,3,1 576,14,3,2 960,7,3,1 "
    "240,28,5,1 240,14,5,1 480,14,5,1 672,7,5,1 96,56,7,1 384,14,7,1 96,24,5,1 256,15,3,1 40,28,3,1 120,28,5,1 "
    "200,14,3,1 8,96,3,1 24,60,5,2 72,24,3,2 184,14,5,1"
)
"""Channels, height and width, kernel, stride; the last seven do not fill blocks of 16 channels."""


def _depthwise() -> Iterator[Named]:
    for channels, size, kernel, stride in _numbers(_DEPTHWISE):
        name = f"depthwise {channels} {size} {kernel}/{stride}"
        settings = {"pads": [kernel // 2] * 4, "strides": [stride] * 2, "group": channels}
        weights = [_weight("w", channels, 1, kernel, kernel), _weight("b", channels)]
        yield name, _one("Conv", [1, channels, size, size], *weights, **settings)
        nodes = [
            helper.make_node("Conv", ["x", "v"], ["t"]),
            helper.make_node("Relu", ["t"], ["u"]),
            helper.make_node("Conv", ["u", "w", "b"], ["z"], **settings),
            helper.make_node("Relu", ["z"], ["y"]),
        ]
        yield f"1/1, {name}", _model(nodes, [("x", [1, 32, size, size])], [*weights, _weight("v", channels, 32, 1, 1)])


def _other_convolutions() -> Iterator[Named]:
    for channels, group, size in _numbers("64,4,28 128,32,28 96,6,20 256,8,14"):
        weights = [_weight("w", channels, channels // group, 3, 3), _weight("b", channels)]
        model = _one("Conv", [1, channels, size, size], *weights, pads=[1] * 4, group=group)
        yield f"grouped {channels}/{group} {size}", model
    for channels, filters, size, kernel in _numbers(
        "24,24,60,2 96,24,120,2 64,32,28,4 24,1,120,2 128,64,14,3 32,32,56,2"
    ):
        weights = [_weight("w", channels, filters, kernel, kernel), _weight("b", filters)]
        model = _one("ConvTranspose", [1, channels, size, size], *weights, strides=[2, 2])
        yield f"transposed {channels}-{filters} {size} {kernel}", model
    lines = "1,80,384,300,3,1 1,384,384,300,3,1 1,129,128,60,3,1 1,128,64,100,3,1 1,64,128,50,3,1 1,1,258,640,256,1 "
    lines += "1,512,256,256,5,1 1,64,64,1000,7,1 50,1,258,640,256,128 50,129,128,4,3,1 50,128,64,4,3,2 10,32,64,50,5,1"
    for images, channels, filters, length, kernel, stride in _numbers(lines):
        pads = [kernel // 2 if kernel < 9 else 0] * 2
        weights = [_weight("w", filters, channels, kernel), _weight("b", filters)]
        model = _one("Conv", [images, channels, length], *weights, pads=pads, strides=[stride])
        yield f"line {images}x{channels}-{filters} {length} {kernel}/{stride}", model


_PRODUCTS = (
    "1,576,576 1,576,1536 1,1536,576 1,576,192 1,2048,2048 1,1024,4096 1,576,49152 1,4096,1024 4,768,768 8,512,512 "
    "16,384,384 40,120,360 40,120,6625 64,576,1536 64,768,768 64,768,3072 128,384,384 128,384,1536 128,1536,384 "
    "197,384,384 197,384,1152 197,1536,384 256,256,256 512,512,512 32,2048,1000 49,768,3072 3136,96,384 784,192,768 "
    "1024,64,256 4096,32,128 1,1280,1000 1,512,1000 64,576,49152 10,64,64 33,65,67 1000,16,16 200,120,240"
)
_BATCHED = (
    "12,128,32,128 12,128,128,32 6,197,64,197 6,197,197,64 9,64,64,64 9,64,64,129 9,1,64,129 9,1,129,64 8,40,15,40 "
    "8,40,40,15 12,64,64,64 1,1024,32,256 8,80,16,80 3,2304,2304,16 "
    "9,1,64,1024 9,1,1024,64 32,1,128,400 14,1,500,64"
)


def _products() -> Iterator[Named]:
    for m, k, n in _numbers(_PRODUCTS):
        yield f"product {m}x{k}x{n}", _one("MatMul", [1, m, k], _weight("w", k, n))
        if m <= 200 and n < 7000:
            yield f"gemm {m}x{k}x{n}", _one("Gemm", [m, k], _weight("w", k, n), _weight("b", n))
    for batch, m, k, n in _numbers(_BATCHED):
        yield f"product {batch}x{m}x{k}x{n}", _two("MatMul", [1, batch, m, k], [1, batch, k, n])


_LADDER = (64, 2_000, 20_000, 120_000, 600_000, 2_400_000)
_UNARY = (
    "Relu Sigmoid Tanh Exp Erf Sqrt HardSigmoid HardSwish Neg Reciprocal Log Softplus LeakyRelu Gelu Abs Clip Sin Cos "
    "Elu Floor"
)


def _elementwise() -> Iterator[Named]:
    for name in _UNARY.split():
        for size in _LADDER if name in ("Relu", "Sigmoid", "Erf") else (20_000, 600_000):
            yield f"{name} {size}", _one(name, [size])
    for name in ("Add", "Mul", "Div", "Sub", "Max", "Pow"):
        for size in _LADDER if name == "Add" else (20_000, 600_000):
            yield f"{name} {size}", _two(name, [size], [size])
            yield f"{name} {size}, number", _one(name, [size], numpy_helper.from_array(np.float32(2.5), "w"))
        yield f"{name}, channels", _two(name, [1, 64, 56, 56], [1, 64, 1, 1])
        yield f"{name}, row", _one(name, [1, 128, 384], _weight("w", 384))
    for size in (20_000, 600_000):
        casts = [
            helper.make_node("Cast", ["x"], ["t"], to=TensorProto.INT32),
            helper.make_node("Cast", ["t"], ["y"], to=TensorProto.FLOAT),
        ]
        yield f"Cast {size}", _model(casts, [("x", [size])])
        silu = [helper.make_node("Sigmoid", ["x"], ["t"]), helper.make_node("Mul", ["x", "t"], ["y"])]
        yield f"silu {size}", _model(silu, [("x", [size])])


def _along_rows() -> Iterator[Named]:
    for rows, size in _numbers("1536,128 9,129 1182,197 320,40 40,6625 1,1000 576,64 1,49152 8400,16"):
        yield f"Softmax {rows}x{size}", _one("Softmax", [rows, size], axis=-1)
    for rows, size in _numbers("128,384 1,576 64,576 197,384 3136,96 40,120 64,768 784,192"):
        weights = [_weight("w", size), _weight("b", size)]
        yield f"LayerNormalization {rows}x{size}", _one("LayerNormalization", [1, rows, size], *weights, axis=-1)
    shapes = (([1, 128, 384], [-1]), ([1, 64, 56, 56], [2, 3]), ([1, 2048, 64], [1]), ([16, 16, 512], [2]))
    for shape, axes in (*shapes, ([1, 64, 1000], [1])):
        for name in ("ReduceMean", "ReduceSum", "ReduceMax"):
            yield f"{name} {shape} {axes}", _one(name, shape, _integers("a", *axes))


_TRANSPOSES = (
    "1,128,12,32:0,2,1,3 1,12,128,32:0,1,3,2 1,96,56,56:0,2,3,1 1,56,56,96:0,3,1,2 1,64,9,64:0,2,1,3 1,40,8,15:0,2,1,3 "
    "1,197,384:0,2,1 1,480,40:0,2,1 40,120:1,0 1,9,64,64:0,1,3,2 2,300,3,50:2,0,1,3 1,64,80,80:0,1,3,2"
)
_CONCATS = (
    "1,64,56,56:1,64,56,56:1 1,9,128,64:1,9,1,64:2 1,3,128,64:1,3,1,64:2 1,9,64,32:1,9,64,32:3 "
    "1,24,120,120:1,24,120,120:1 1,1000:1,24:1 1,128,40,40:1,64,40,40:1"
)


def _movement() -> Iterator[Named]:
    for text in _TRANSPOSES.split():
        shape, perm = ([int(number) for number in part.split(",")] for part in text.split(":"))
        yield f"Transpose {text}", _one("Transpose", shape, perm=perm)
    for text in _CONCATS.split():
        first, second, (axis,) = ([int(number) for number in part.split(",")] for part in text.split(":"))
        yield f"Concat {text}", _two("Concat", first, second, axis=axis)
    slices = (
        ([1, 9, 64, 64], 0, 32, 3),
        ([1, 64, 56, 56], 0, 32, 1),
        ([1, 1000, 384], 0, 1, 1),
        ([1, 40, 3, 120], 1, 2, 2),
    )
    for shape, start, end, axis in (*slices, ([1, 3, 200, 200], 10, 190, 3)):
        bounds = _integers("s", start), _integers("e", end), _integers("a", axis)
        yield f"Slice {shape} {axis}", _one("Slice", shape, *bounds)
    for shape, axis, parts in (
        ([1, 64, 56, 56], 1, 2),
        ([1, 128, 20, 20], 1, 2),
        ([1, 64, 1152], 2, 3),
        ([2, 1, 128], 0, 2),
        ([1, 9, 1, 64], 3, 2),
        ([1, 9, 64, 64], 3, 2),
        ([1, 9, 256, 64], 3, 2),
        ([1, 32, 64, 128], 3, 2),
    ):
        outputs = [f"y{index}" for index in range(parts)]
        node = helper.make_node("Split", ["x"], outputs, axis=axis, num_outputs=parts)
        yield f"Split {shape} {axis}", _model([node], [("x", shape)], outputs=outputs)
    for entries, size, length in _numbers("30522,384,128 49152,576,64 30522,768,64 1000,64,2048"):
        node = helper.make_node("Gather", ["w", "x"], ["y"])
        model = _model([node], [("x", [1, length])], [_weight("w", entries, size)], input_type=TensorProto.INT64)
        yield f"Gather {length} of {entries}x{size}", model
    expanded = (
        ([1, 3, 1, 128, 64], [1, 3, 3, 128, 64]),
        ([1, 1, 64, 64], [1, 9, 64, 64]),
        ([1, 64, 1, 1], [1, 64, 40, 40]),
    )
    for shape, result in expanded:
        yield f"Expand {shape}", _one("Expand", shape, _integers("s", *result))
    padded = (([1, 24, 60, 60], [0, 0, 1, 1, 0, 0, 1, 1]), ([1, 1, 43844], [0, 0, 500, 0, 0, 500]))
    for shape, pads in (*padded, ([1, 64, 100], [0, 0, 2, 0, 0, 2]), ([1, 32, 172, 264], [0, 0, 1, 2, 0, 0, 1, 2])):
        yield f"Pad {shape}", _one("Pad", shape, _integers("p", *pads))
    for length, heads, size in _numbers("128,12,32 64,9,64"):
        nodes = [
            helper.make_node("Reshape", ["x", "s"], ["r"]),
            helper.make_node("Transpose", ["r"], ["y"], perm=[0, 2, 1, 3]),
        ]
        split = _integers("s", 1, length, heads, size)
        yield f"heads {length}x{heads}x{size}", _model(nodes, [("x", [1, length, heads * size])], [split])


def _images() -> Iterator[Named]:
    sizes = ((24, 30, 2, "nearest"), (96, 60, 2, "nearest"), (24, 15, 8, "nearest"), (64, 20, 2, "nearest"))
    for channels, size, scale, mode in (*sizes, (128, 20, 2, "nearest"), (256, 16, 4, "linear"), (32, 32, 2, "linear")):
        where = "asymmetric" if mode == "nearest" else "half_pixel"
        node = helper.make_node(
            "Resize", ["x", "", "s"], ["y"], mode=mode, coordinate_transformation_mode=where, nearest_mode="floor"
        )
        scales = numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "s")
        yield f"Resize {channels} {size} {mode}", _model([node], [("x", [1, channels, size, size])], [scales])
    for name in ("MaxPool", "AveragePool"):
        for channels, size, kernel, stride in _numbers("64,112,3,2 128,20,5,1 16,80,2,2 256,10,5,1 480,6,2,2"):
            pads = [kernel // 2 if kernel > 2 else 0] * 4
            settings = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": pads}
            yield f"{name} {channels} {size}", _one(name, [1, channels, size, size], **settings)
    for channels, size in _numbers("64,112 16,120 480,14 1280,7 96,24"):
        yield f"GlobalAveragePool {channels} {size}", _one("GlobalAveragePool", [1, channels, size, size])
        nodes = [helper.make_node("Conv", ["x", "w"], ["t"]), helper.make_node("GlobalAveragePool", ["t"], ["y"])]
        model = _model(nodes, [("x", [1, 16, size, size])], [_weight("w", channels, 16, 1, 1)])
        yield f"conv, GlobalAveragePool {channels} {size}", model


_RECURRENT = "50,128,128,1,1 16,128,128,1,1 40,48,48,2,1 80,256,128,2,1 1,128,128,1,1 100,64,96,1,1"
_HEAVY = (
    "4,64,512,1,1 16,64,512,1,1 20,128,512,2,1 8,64,704,1,1 6,64,960,1,1 4,64,1280,1,1 4,64,1536,1,1 3,64,2048,1,1 "
    "12,64,320,1,1 12,64,192,1,1 12,64,256,1,4 12,64,512,1,8 6,256,768,1,16 1,512,512,1,1 5,64,1152,1,1"
)
"""Steps, inputs, hidden values, directions and batch: weights of the state of 1 to 64 MiB."""
_HEAVY_UNSEEN = (
    "30,128,320,1,1 30,80,512,1,1 20,256,512,2,1 10,256,768,1,1 8,512,1024,1,1 6,64,1664,1,1 20,128,512,1,4 "
    "30,128,384,1,1 20,128,640,2,1 20,128,384,1,8 1,512,768,1,1 12,300,896,1,2"
)


def _recurrent(shapes: str) -> Iterator[Named]:
    for steps, inputs, hidden, directions, batch in _numbers(shapes):
        for name, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
            if name == "RNN" and hidden < 192:
                continue
            weights = (
                _weight("w", directions, gates * hidden, inputs),
                _weight("r", directions, gates * hidden, hidden),
                _weight("b", directions, 2 * gates * hidden),
            )
            direction = "bidirectional" if directions == 2 else "forward"
            model = _one(name, [steps, batch, inputs], *weights, hidden_size=hidden, direction=direction)
            rows = f" of {batch}" if batch > 1 else ""
            yield f"{name} {steps}x{inputs}-{hidden}x{directions}{rows}", model


_COLUMNS = (
    "2:1,38,38,38,28,3,1,1 2:1,30,30,30,60,5,2,1 2:1,10,10,10,96,3,1,1 2:1,70,70,70,14,3,2,1 2:1,42,42,42,40,3,1,2 "
    "2:1,18,18,18,56,7,1,1 2:4,22,22,22,28,3,1,1 2:1,32,64,32,28,3,1,1 2:1,64,128,64,20,7,1,1 2:1,16,64,16,28,3,1,1 "
    "2:1,24,72,24,28,5,1,1 2:1,24,48,24,40,3,2,1 2:1,8,64,8,20,3,1,1 2:1,24,24,6,28,3,1,1 2:1,40,40,10,14,3,1,1 "
    "2:1,48,48,4,28,3,1,1 2:1,18,30,1,40,3,1,1 2:1,18,30,1,40,1,1,1 2:1,64,32,4,20,3,1,1 1:1,64,64,64,100,3,1,1 "
    "1:1,256,256,256,500,15,1,1 1:1,128,128,128,1000,3,1,4 1:1,128,128,128,1000,3,2,1 1:1,64,64,64,4000,7,1,1 "
    "1:1,256,256,256,64,5,1,1 1:1,64,128,64,500,5,1,1 1:1,192,192,1,300,1,1,1 1:4,96,96,96,128,7,1,1 "
    "3:1,16,16,16,16,3,1,1 3:1,24,24,24,20,3,2,1 3:1,8,8,8,24,5,1,1 3:1,12,12,1,16,3,1,1 3:1,16,32,16,12,3,1,1 "
    "3:1,64,64,1,12,1,1,1 3:1,8,16,1,24,3,2,1"
)
"""Spatial dimensions: images, channels, filters, groups, size of each, kernel, stride, dilation."""
_COLUMNS_UNSEEN = (
    "2:1,34,34,34,36,3,1,1 2:1,22,22,22,48,5,1,1 2:1,26,26,26,64,3,2,1 2:1,50,50,50,20,3,1,3 2:2,14,14,14,40,3,1,1 "
    "2:1,48,96,48,24,3,1,1 2:1,32,64,32,32,7,1,1 2:1,20,80,20,20,3,1,1 2:1,32,64,32,56,3,2,1 2:1,36,36,6,24,3,1,1 "
    "2:1,32,32,8,56,3,1,1 2:1,22,40,1,32,3,1,1 1:1,256,256,256,200,5,1,1 1:1,256,256,256,500,31,1,1 "
    "1:1,96,96,96,2000,3,1,2 1:1,512,512,512,300,15,1,1 1:1,192,192,192,600,5,2,1 1:1,80,160,80,400,3,1,1 "
    "1:1,256,256,1,250,1,1,1 3:1,32,32,32,8,3,1,1 3:1,8,8,8,32,3,1,1 3:1,16,16,16,16,3,2,1 3:1,16,16,1,16,3,1,1"
)


def _by_columns(shapes: str) -> Iterator[Named]:
    """Convolutions that are not in blocks of channels."""
    for text in shapes.split():
        dims = int(text[0])
        (images, channels, filters, group, size, kernel, stride, dilation), *_ = _numbers(text[2:])
        weights = [_weight("w", filters, channels // group, *[kernel] * dims), _weight("b", filters)]
        settings = {
            "pads": [dilation * (kernel // 2)] * 2 * dims,
            "strides": [stride] * dims,
            "dilations": [dilation] * dims,
            "group": group,
        }
        model = _one("Conv", [images, channels, *[size] * dims], *weights, **settings)
        yield f"columns {dims}d {images}x{channels}-{filters}/{group} {size} {kernel}/{stride}/{dilation}", model


def _launches() -> Iterator[Named]:
    for length in (10, 40):
        values = ["x", *(f"t{index}" for index in range(length - 1)), "y"]
        nodes = [
            helper.make_node("Abs" if index % 2 else "Neg", [values[index]], [values[index + 1]])
            for index in range(length)
        ]
        yield f"chain of {length}", _model(nodes, [("x", [16])])
    for length in (1, 10, 30):
        values = ["x", *(f"t{index}" for index in range(length - 1)), "y"]
        nodes: list[NodeProto] = []
        for index in range(length):
            nodes.append(helper.make_node("Reshape", [values[index], f"s{index % 2}"], [f"r{index}"]))
            nodes.append(helper.make_node("Abs", [f"r{index}"], [values[index + 1]]))
        yield f"reshapes {length}", _model(nodes, [("x", [16])], [_integers("s0", 4, 4), _integers("s1", 16)])
