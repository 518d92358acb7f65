"""How a value gets from one memory to another."""

from importlib.metadata import EntryPoint

import numpy as np
import pytest

from gimlet.runtime.executors.base import HOST_MEMORY, alloc_host
from gimlet.runtime.transports import registry
from gimlet.runtime.transports.host import HostTransport
from gimlet.runtime.transports.registry import load_transport

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(autouse=True)
def forget() -> None:
    load_transport.cache_clear()


def test_host_memory_is_copied_directly():
    target = alloc_host(VALUES.dtype, VALUES.shape)
    HostTransport().copy(VALUES, target, ()).wait()
    np.testing.assert_array_equal(target, VALUES)


def test_between_two_devices_the_way_is_through_the_host(chip, neg_executor):
    source, target = (neg_executor.alloc(VALUES.dtype, VALUES.shape) for _ in range(2))
    back = np.empty_like(VALUES)
    transport = HostTransport()
    transport.copy(VALUES, source, ())
    transport.copy(source, target, ())
    transport.copy(target, back, ())
    np.testing.assert_array_equal(back, VALUES)
    assert chip.copies == ["upload", "download", "upload", "download"]


def test_installed_packages_are_scanned_for_two_devices_only(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def scan(group: str, name: str) -> list[EntryPoint]:
        asked.append(f"{group} {name}")
        return [EntryPoint(name, "gimlet.runtime.transports.host:HostTransport", group)]

    monkeypatch.setattr("importlib.metadata.entry_points", scan)
    assert load_transport("host", "vendor/a", HOST_MEMORY, "chip") is registry._HOST
    assert asked == []
    direct = load_transport("vendor/a", "vendor/b", "chip", "chop")
    assert asked == ["gimlet.transports vendor.a--vendor.b"]
    assert isinstance(direct, HostTransport)
    assert direct is not registry._HOST


def test_without_a_package_two_devices_go_through_the_host():
    assert load_transport("vendor/a", "vendor/b", "chip", "chop") is registry._HOST


def test_host_memory_is_aligned():
    for shape in ((1,), (3, 5), (1000,), (), (0,)):
        array = alloc_host(np.dtype(np.float32), shape)
        assert array.size == 0 or array.ctypes.data % 64 == 0
        assert array.shape == shape
    assert alloc_host(np.dtype(object), (2,)).dtype == object
