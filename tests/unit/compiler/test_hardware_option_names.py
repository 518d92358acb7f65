"""Keys of `[options]` that no target reads are refused, and every kind that is shipped has none."""

from dataclasses import replace
from pathlib import Path

import pytest

from gimlet.compiler.hardware import kinds
from gimlet.compiler.hardware.kinds import load_kind
from gimlet.compiler.hardware.option_names import check_option_names
from gimlet.compiler.hardware.topology import load_topology
from gimlet.compiler.placement.service import PlacementService
from gimlet.dialects.context import GimletContext
from gimlet.runtime.errors import InputError
from gimlet.targets import registry

SHIPPED = Path(kinds.__file__).parent
KINDS = [path for path in sorted(SHIPPED.glob("*/*.toml")) if path.parent.name != "links"]


def targets_of(kind):
    return [registry.load(name) for name in kind.targets]


@pytest.mark.parametrize(
    "path",
    KINDS,
    ids=lambda path: path.stem,
)
def test_kinds_that_are_shipped_have_known_options(path):
    kind = load_kind(f"{path.parent.name}/{path.stem}")
    check_option_names(kind, targets_of(kind))


def test_a_misspelled_option_is_refused_with_the_nearest_name():
    kind = load_kind("d-matrix/corsair")
    wrong = replace(kind, options={**kind.options, "lpddr_byte_per_s": 1e12})
    with pytest.raises(InputError) as error:
        check_option_names(wrong, targets_of(wrong))
    assert str(error.value.message) == "options.lpddr_byte_per_s is read by none of its targets (sram)"
    assert error.value.hint == "did you mean 'lpddr_bytes_per_s'?"
    assert error.value.where == "device kind d-matrix/corsair"


def test_without_a_near_name_all_are_listed():
    kind = load_kind("nvidia/l4")
    wrong = replace(kind, options={**kind.options, "zzz": 1})
    with pytest.raises(InputError) as error:
        check_option_names(wrong, targets_of(wrong))
    assert "its options are: builder, compute_capability," in str(error.value.hint)


def test_a_target_that_names_none_leaves_them_open():
    class Open(type(registry.load("sram"))):
        option_names = None

    kind = load_kind("d-matrix/corsair")
    check_option_names(replace(kind, options={"zzz": 1}), [Open()])


def test_placement_asks_for_them(tmp_path):
    (tmp_path / "card.toml").write_text(
        (SHIPPED / "d-matrix" / "corsair.toml").read_text().replace("lpddr_bytes_per_s", "lpddr_byte_per_s")
    )
    (tmp_path / "t.toml").write_text('schema = 1\nhost = "sram0"\n[[device]]\nname = "sram0"\nkind = "card.toml"\n')
    service = PlacementService(GimletContext(), load_topology(tmp_path / "t.toml"))
    with pytest.raises(InputError, match="lpddr_byte_per_s is read by none"):
        service.targets  # noqa: B018
