"""Decode steps of language models as placement problems, from their published shapes: no weights are read.

One step for `batch` sequences with `context` tokens in the cache. Each layer is what the models' exports have: norms,
projections, rotary embeddings, attention over the cache, and a gated network or a mixture of experts as one op. Costs
are the roofline's on the kinds of the topology, in `FORMATS`; weights that are quantized keep their bytes. What a
device holds of weights is taken from the memory level that holds the whole model, since layers do not fit one by one;
an accelerator with two levels keeps in the fast one what placement finds room for, and streams the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gimlet.compiler.placement.model.problem import Node, Option, Place, Problem, Value, Weight
from gimlet.compiler.placement.reading.build import device_spec, routes
from gimlet.compiler.placement.reading.levels import Reading, with_fast_memory, with_streams
from gimlet.dialects.onnx.work import Volume, Work
from gimlet.dialects.onnx.work_formulas import OpClass
from gimlet.runtime.expr import Expr
from gimlet.targets import registry
from gimlet.targets.api import Cost, Device, Topology, WeightStore
from gimlet.targets.roofline import roofline

DEFAULT_FORMAT = "bf16"
HOST_FORMAT = "fp32"


@dataclass(frozen=True)
class LanguageModel:
    """The shapes of a decoder. `experts` is 0 for a dense network; `expert_bits` is what an expert's weight takes."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    width: int
    vocabulary: int
    experts: int = 0
    active: int = 0
    expert_bits: float = 16.0
    window: int = 0

    def touched(self, tokens: int) -> float:
        """Distinct experts that `tokens` tokens are sent to, each to `active` of them at random."""
        return self.experts * (1 - (1 - self.active / self.experts) ** tokens)


SMOLLM2 = LanguageModel("SmolLM2-135M", 30, 576, 9, 3, 64, 1536, 49152)
"""Hugging Face config.json of HuggingFaceTB/SmolLM2-135M."""
LLAMA_70B = LanguageModel("Llama-3-70B", 80, 8192, 64, 8, 128, 28672, 128256)
LLAMA_405B = LanguageModel("Llama-3.1-405B", 126, 16384, 128, 8, 128, 53248, 128256)
"""Table 3 of "The Llama 3 Herd of Models" (arXiv 2407.21783), vocabulary as in the models' config.json."""
GPT_OSS = LanguageModel("gpt-oss-120b", 36, 2880, 64, 8, 64, 2880, 201088, 128, 4, 4.25, 128)
"""OpenAI's model card of gpt-oss-120b, 2025: every second layer attends to the last 128 tokens; experts in MXFP4."""
GPT_OSS_BF16 = LanguageModel("gpt-oss-120b, experts in bf16", 36, 2880, 64, 8, 64, 2880, 201088, 128, 4, 16.0, 128)


@dataclass
class _Graph:
    """A problem as it is written down. A value is its producer, or -1 for the model's input."""

    topology: Topology
    model_bytes: float
    devices: list[Device] = field(default_factory=list[Device])
    formats: list[str] = field(default_factory=list[str])
    nodes: list[Node] = field(default_factory=list[Node])
    weights: list[Weight] = field(default_factory=list[Weight])
    readings: list[Reading] = field(default_factory=list[Reading])
    stores: dict[int, WeightStore] = field(default_factory=dict[int, WeightStore])
    uses: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    sizes: dict[int, int] = field(default_factory=dict[int, int])

    def __post_init__(self) -> None:
        self.devices = list(self.topology.devices)
        self.formats = [DEFAULT_FORMAT if DEFAULT_FORMAT in d.kind.peak else HOST_FORMAT for d in self.devices]
        for place, device in enumerate(self.devices):
            store = registry.load(device.kind.targets[0]).weight_store(device)
            if store is not None:
                self.stores[place] = store

    def add(
        self,
        name: str,
        op: OpClass,
        flops: float,
        inputs: tuple[int, ...],
        values_out: float,
        *,
        values_in: float = 0.0,
        weights: float = 0.0,
        weights_read: float | None = None,
        weight_bits: float = 16.0,
        state_values: float = 0.0,
    ) -> int:
        """An op: values read and written, weights resident and read, all as counts. The state is resident too."""
        number = len(self.nodes)
        options: dict[int, Option] = {}
        resident: dict[int, int] = {}
        read = weights if weights_read is None else weights_read
        reading = Reading(read / weights if weights else 1.0, flops)
        for place, fmt in enumerate(self.formats):
            bits = 32 if fmt == HOST_FORMAT else 16
            held, fetched = (count * min(bits, weight_bits) / 8 for count in (weights, read))
            values = (values_in + values_out + state_values) * bits / 8
            work = Work(
                *(Expr.const(round(amount)) for amount in (flops, values + fetched, 0, held)),
                op_class=op,
                weight_read=Expr.const(round(fetched)),
                values=Volume(),
                fixed=Volume(*(Expr.const(round(amount)) for amount in (values + fetched, 0, held, fetched))),
            )
            resident[place] = round(held + state_values * bits / 8)
            cost = self._cost(work, place, reading.part * resident[place], resident[place])
            options[place] = Option(cost.seconds, cost.joules, round((values_in + values_out) * bits / 8))
        self.nodes.append(Node(name, op, options, flops=flops))
        self.readings.append(reading)
        if any(resident.values()):
            self.weights.append(Weight(name, (number,), resident))
        for value in inputs:
            self.uses.setdefault(value, []).append(number)
        self.sizes[number] = round(values_out * 2)
        return number

    def _cost(self, work: Work, place: int, read_bytes: float, held_bytes: int) -> Cost:
        """The roofline, with weights in fast memory as far as those of the op alone fit there."""
        device, store = self.devices[place], self.stores.get(place)
        if store is None:
            return roofline(work, device, self.formats[place], {}, resident_bytes=self.model_bytes)
        cost = roofline(work, device, self.formats[place], {}, resident_bytes=0.0)
        beyond = max(held_bytes - store.room_bytes, 0) / max(held_bytes, 1)
        longer = beyond * max(read_bytes * store.seconds_per_byte - cost.seconds, 0.0)
        joules = None if cost.joules is None else cost.joules + longer * (device.kind.load_w or 0.0)
        return replace(cost, seconds=cost.seconds + longer, joules=joules)

    def problem(self, last: int, input_bytes: int) -> Problem:
        """The problem, with the result of `last` as the output."""
        names = [device.name for device in self.devices]
        values = [Value("tokens", input_bytes, None, tuple(self.uses.get(-1, ())))]
        for number, node in enumerate(self.nodes):
            consumers = tuple(self.uses.get(number, ()))
            values.append(Value(node.name, self.sizes[number], number, consumers, number == last))
        options = [dict(node.options) for node in self.nodes]
        weights = with_streams(self.weights, options, self.readings, self.stores)
        devices = [device_spec(device) for device in self.devices]
        return Problem(
            devices=with_fast_memory(devices, range(len(devices)), self.stores),
            places=tuple(Place(index, device.kind.targets[0], fmt) for index, (device, fmt) in self._places()),
            nodes=tuple(replace(node, options=own) for node, own in zip(self.nodes, options, strict=True)),
            values=tuple(values),
            routes=routes(self.topology),
            weights=tuple(weights),
            host=names.index(self.topology.host),
        )

    def _places(self) -> list[tuple[int, tuple[Device, str]]]:
        return list(enumerate(zip(self.devices, self.formats, strict=True)))


def decode_problem(model: LanguageModel, topology: Topology, batch: int = 1, context: int = 1024) -> Problem:
    """One decode step as a placement problem."""
    hidden, queries, keys = model.hidden, model.heads * model.head_size, model.kv_heads * model.head_size
    graph = _Graph(topology, model_bytes(model))
    stream = graph.add(
        "embed", "data", 0, (-1,), batch * hidden, weights=model.vocabulary * hidden, weights_read=batch * hidden
    )

    def product(name: str, source: int, rows: int, columns: int) -> int:
        size = float(rows * columns)
        values = {"values_in": float(batch * rows), "weights": size}
        return graph.add(name, "matrix", 2 * batch * size, (source,), batch * columns, **values)

    def pointwise(name: str, sources: tuple[int, ...], count: float, flops: float = 1.0) -> int:
        return graph.add(name, "vector", flops * batch * count, sources, batch * count, values_in=batch * count)

    for layer in range(model.layers):
        at = f"layer{layer}."
        length = min(context, model.window) if model.window and layer % 2 == 0 else context
        normed = pointwise(f"{at}norm1", (stream,), hidden, 4)
        query = pointwise(f"{at}rope_q", (product(f"{at}q", normed, hidden, queries),), queries, 3)
        key = pointwise(f"{at}rope_k", (product(f"{at}k", normed, hidden, keys),), keys, 3)
        value = product(f"{at}v", normed, hidden, keys)
        attended = graph.add(
            f"{at}attention",
            "matrix",
            4.0 * batch * length * queries,
            (query, key, value),
            batch * queries,
            values_in=batch * (queries + 2 * keys),
            state_values=2.0 * batch * length * keys,
        )
        stream = pointwise(f"{at}add1", (stream, product(f"{at}o", attended, queries, hidden)), hidden)
        normed = pointwise(f"{at}norm2", (stream,), hidden, 4)
        stream = pointwise(f"{at}add2", (stream, _network(graph, model, at, normed, batch)), hidden)
    normed = pointwise("norm", (stream,), hidden, 4)
    return graph.problem(product("head", normed, hidden, model.vocabulary), 8 * batch)


def _network(graph: _Graph, model: LanguageModel, at: str, normed: int, batch: int) -> int:
    hidden, width = model.hidden, model.width
    size = 3.0 * hidden * width
    if not model.experts:
        both = graph.add(
            f"{at}gate_up", "matrix", 4.0 * batch * hidden * width, (normed,), 2.0 * batch * width,
            values_in=batch * hidden, weights=2.0 * hidden * width,
        )  # fmt: skip
        gated = graph.add(
            f"{at}gated", "vector", 5.0 * batch * width, (both,), batch * width, values_in=2.0 * batch * width
        )
        return graph.add(
            f"{at}down", "matrix", 2.0 * batch * hidden * width, (gated,), batch * hidden,
            values_in=batch * width, weights=float(hidden * width),
        )  # fmt: skip
    router = graph.add(
        f"{at}router", "matrix", 2.0 * batch * hidden * model.experts, (normed,), batch * model.experts,
        values_in=batch * hidden, weights=float(hidden * model.experts),
    )  # fmt: skip
    chosen = graph.add(f"{at}top_k", "vector", 8.0 * batch * model.experts, (router,), 2.0 * batch * model.active)
    return graph.add(
        f"{at}experts", "matrix", 2.0 * batch * model.active * size, (normed, chosen), batch * hidden,
        values_in=batch * hidden, weights=size * model.experts, weights_read=size * model.touched(batch),
        weight_bits=model.expert_bits,
    )  # fmt: skip


def model_bytes(model: LanguageModel) -> float:
    """Bytes of all weights, 16 bits each but for the experts'."""
    attention = 2.0 * model.hidden * model.head_size * (model.heads + model.kv_heads)
    network = 3.0 * model.hidden * model.width * (model.experts or 1) * (model.expert_bits / 16 if model.experts else 1)
    return 2.0 * (model.layers * (attention + network) + 2.0 * model.vocabulary * model.hidden)


def counts(problem: Problem) -> Mapping[str, int]:
    """How many ops of each kind the problem has."""
    found: dict[str, int] = {}
    for node in problem.nodes:
        found[node.op_type] = found.get(node.op_type, 0) + 1
    return found
