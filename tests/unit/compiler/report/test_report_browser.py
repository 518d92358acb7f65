"""The report in a real browser: headless Chromium runs its scripts, and what is then in the page is looked at."""

import json
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from tests.unit.compiler.report.test_report import EVIL, compilation

from gimlet.compiler.placement.model.problem import DeviceSpec, Node, Option, Place, Problem, Route, Value
from gimlet.compiler.placement.model.schedule import Placement, simulate
from gimlet.compiler.placement.service import PlacementResult
from gimlet.compiler.placement.solve import Solution
from gimlet.compiler.report.page import write_report
from gimlet.runtime.units import bytes_text, joules_text, seconds_text

CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)
OPS = 5000


def browse(page: Path, *flags: str, fragment: str = "") -> str:
    """The page's elements after its scripts ran. Fails where a script did."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={page.parent / 'profile'}", *flags, f"{page.as_uri()}#{fragment}"]
    environment = os.environ | {"HOME": str(page.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=True)
    assert not re.search(r"CONSOLE.*(Uncaught|Refused|Error)", done.stderr), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "report.html"
    write_report(path, compilation(("conv1", EVIL, "softmax1"), EVIL))
    return path


def large_compilation():
    """A model of 5,000 ops in a hundred layers of two modules, its middle on another device."""
    nodes = tuple(
        Node(f"/model/layers.{i // 50}/{'attn' if i % 50 < 20 else 'mlp'}/MatMul_{i % 50}", "MatMul",
             {0: Option(1e-5, 1e-4, 4000), 1: Option(1e-6 * (1 + i % 7), 1e-4, 4000)}, {}, 1e6 * (1 + i % 5))
        for i in range(OPS)
    )  # fmt: skip
    values = tuple(Value(f"v{i}", 4000, i, (i + 1, min(i + 9, OPS - 1))) for i in range(OPS - 1))
    end = Value("y", 4000, OPS - 1, (), is_output=True)
    route = Route(1e-5, 2e-11, (("pcie0>", 2e-11),)), Route(1e-5, 2e-11, (("pcie0<", 2e-11),))
    problem = Problem(
        devices=(DeviceSpec("cpu", 1 << 30, 1e-5, kind="a-kind"), DeviceSpec("gpu0", None, 2e-5, kind="a-kind")),
        places=(Place(0), Place(1)),
        nodes=nodes,
        values=(*values, end),
        routes={(0, 1): route[0], (1, 0): route[1]},
    )
    at = tuple(1 if OPS // 4 <= i < OPS // 2 else 0 for i in range(OPS))
    segment = tuple(0 if i < OPS // 4 else 1 if i < OPS // 2 else 2 for i in range(OPS))
    placement = Placement(at, segment)
    schedule = simulate(problem, placement)
    made = compilation()
    made.placement = PlacementResult(
        problem, Solution(placement, schedule, schedule.latency_s, schedule.latency_s, "optimal", 1.0, groups=OPS), ()
    )
    return made


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "report.html"
    write_report(path, large_compilation())
    return path


def tree_rows(page: str) -> list[str]:
    """The visible names of the outline."""
    return re.findall(r'role="treeitem".*?<span class="what"[^>]*>([^<]*)', page, re.DOTALL)


def test_a_small_model_is_shown_whole_and_its_names_are_no_markup(small: Path):
    page = browse(small, "--dump-dom", fragment="op=conv1")
    assert re.search(r'data-ready-ms="\d+"', page)
    names = tree_rows(page)
    assert (names[0], names[1][:12], names[-1]) == ("conv1", "&lt;/script&", "softmax1")
    assert not re.search(r"<img", page)
    panel = page[page.index('id="op-body"') :]
    assert re.search(r"<h2 id=\"op-title\">conv1</h2>.*gpu0 \(fp32\) in s0.*cpu \(fp32\): 4 ms", panel, re.DOTALL)
    assert re.search(r'Read by</h3>.*<span class="moved"> to cpu', panel, re.DOTALL)
    assert page.count("<table>") == 4
    assert len(re.findall(r"<tbody>.*?</tbody>", page, re.DOTALL)) == 4


def test_five_thousand_ops_are_folded(large: Path):
    page = browse(large, "--dump-dom")
    names = tree_rows(page)
    assert names[:3] == ["layers.0 … layers.49", "layers.50 … layers.99", "layers.50"]
    assert len(names) == 52
    assert page.count("<tr>") < 150, "tables show a page at a time"
    assert page.count("<path") < 1000
    assert large.stat().st_size < 2_000_000
    by_segment = tree_rows(browse(large, "--dump-dom", fragment="by=segment"))
    assert [name for name in by_segment if re.fullmatch(r"s\d", name)] == ["s0", "s1", "s2"]


def test_scripts_write_figures_as_the_commands_do(small: Path):
    """Just below and above each unit and each rounding, and at random."""
    near = [10**power * part for power in range(-12, 10) for part in (0.99994999, 0.99995001, 0.99999, 1, 1.00005)]
    draw = random.Random(1)
    values = [0.0, *near, *(draw.uniform(1, 10) * 10 ** draw.uniform(-12, 8) for _ in range(300))]
    values += [-value for value in values[1:]]
    script = (
        f"make('pre', document.body, JSON.stringify({values}.map(v => [write.s(v), write.J(v), write.B(v * 1e5)])))"
    )
    page = small.with_name("figures.html")
    page.write_text(small.read_text().replace("</body>", f"<script>{script}</script></body>"))
    written = re.search(r"<pre>(.*)</pre>", browse(page, "--dump-dom"))
    assert written is not None
    expected = [[seconds_text(value), joules_text(value), bytes_text(value * 1e5)] for value in values]
    assert json.loads(written[1]) == expected


def test_what_moving_a_segment_costs_stands_at_the_segment(small: Path):
    page = re.sub(r"<script.*?</script>", "", browse(small, "--dump-dom"), flags=re.DOTALL)
    assert "moved there alone +" in page
    assert "with its segment" not in page
    assert re.search(r"<td><div>\w+ \(fp32\): [+-]", page), "the table of segments says it once"


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_a_picture_in_both_schemes(scheme: str, small: Path):
    """The corner is the page's background; a page without figures compresses to next to nothing."""
    picture = small.with_name(f"{scheme}.png")
    browse(small, f"--screenshot={picture}", "--window-size=1200,1600", fragment=f"scheme={scheme}")
    assert picture.stat().st_size > 40_000
    with Image.open(picture) as image:
        corner = image.convert("L").getpixel((1, 1))
    assert (corner < 64) == (scheme == "dark")
    assert (corner > 192) == (scheme == "light")
