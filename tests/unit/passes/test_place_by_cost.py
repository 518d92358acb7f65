"""place-by-cost without its service, with bad options, and what it hands to the service."""

from typing import Any

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser
from xdsl.universe import Universe
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.context import GimletContext
from gimlet.dialects.universe import GIMLET_UNIVERSE
from gimlet.passes.place_by_cost import SERVICE, PlaceByCostPass

MODULE = """
placement.topology @rack {
  placement.device @cpu {kind = "host"}
}
func.func @main() {
  func.return
}
"""


@pytest.fixture
def ctx() -> GimletContext:
    context = GimletContext()
    for name, factory in (Universe.get_multiverse().all_dialects | GIMLET_UNIVERSE.all_dialects).items():
        context.register_dialect(name, factory)
    return context


def test_options_reach_the_service(ctx: GimletContext):
    calls: list[dict[str, Any]] = []

    def service(module: ModuleOp, context: GimletContext, **options: Any) -> None:
        assert context is ctx
        calls.append(options)

    ctx.services[SERVICE] = service
    chosen = PlaceByCostPass(objective="throughput", pins=("a=b=cpu", "Conv=gpu0"), time_limit=2.5, seed=3)
    chosen.apply(ctx, Parser(ctx, MODULE).parse_module())
    pins = (("a=b", "cpu"), ("Conv", "gpu0"))
    assert calls == [{"objective": "throughput", "pins": pins, "time_limit_s": 2.5, "seed": 3}]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (PlaceByCostPass(), "no placement service in this context"),
        (PlaceByCostPass(objective="beauty"), "no objective 'beauty': latency, throughput, energy, cost"),
    ],
)
def test_it_fails_with_the_reason(ctx: GimletContext, chosen: PlaceByCostPass, message: str):
    with pytest.raises(PassFailedException, match=message):
        chosen.apply(ctx, Parser(ctx, MODULE).parse_module())


def test_a_plain_context_has_no_service():
    module = ModuleOp([])
    with pytest.raises(PassFailedException, match="says nothing about the hardware"):
        PlaceByCostPass().apply(Context(), module)


@pytest.mark.parametrize("pin", ["cpu", "=cpu", "Conv="])
def test_a_pin_needs_both_sides(ctx: GimletContext, pin: str):
    def service(module: ModuleOp, context: GimletContext, **options: Any) -> None:
        del module, context, options

    ctx.services[SERVICE] = service
    with pytest.raises(PassFailedException, match="cannot read the pin"):
        PlaceByCostPass(pins=(pin,)).apply(ctx, Parser(ctx, MODULE).parse_module())
