"""Complex numbers become pairs of real ones: what is computed, how a program is called, and what is refused."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim, export
from torch.utils._pytree import tree_leaves, tree_map_only

import gimlet
from gimlet.compiler.frontends.complex_numbers import pairs_for_complex
from gimlet.runtime.errors import InputError


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(*args)


def numbers(*shape: int, dtype: torch.dtype = torch.complex64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(3))


def reals(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4))


def in_pairs(value: Any) -> Any:
    return tree_map_only(
        torch.Tensor, lambda leaf: torch.view_as_real(leaf.resolve_conj()) if leaf.is_complex() else leaf, value
    )


def hold_to(module: nn.Module, *args: torch.Tensor) -> None:
    program = export(module.eval(), args, strict=False)
    made = pairs_for_complex(program)
    left = [node for node in made.graph.nodes if getattr(node.meta.get("val"), "dtype", torch.int8).is_complex]
    assert not left
    with torch.no_grad():
        found = made.module(check_guards=False)(*in_pairs(args))
        expected = in_pairs(module(*args))
    for leaf, wanted in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        torch.testing.assert_close(leaf, wanted, rtol=2e-5, atol=2e-6)


NAMES = (
    "exp expm1 log log1p log2 sqrt rsqrt reciprocal square sin cos tan sinh cosh tanh sigmoid sgn abs angle "
    "isnan isinf isfinite conj real imag view_as_real"
)
UNARY = {
    **{name: getattr(torch, name) for name in NAMES.split()},
    "power": lambda z: (z**2, z**-3, z**0, z**0.5, z ** (1 + 1j), 2**z),
    "sums": lambda z: (z.sum(), z.sum(-1), z.mean(0, keepdim=True), z.cumsum(1), z.prod(), z.prod(1), z.cumprod(-1)),
    "places": lambda z: (z[:, 1:3], z[1], z.flip(-1), z.roll(1, 0), z.mT.reshape(-1), z[:, torch.tensor([0, 2])]),
    "shapes": lambda z: (z.view(12), z.expand(2, 3, 4), z.repeat(2, 1), z.unsqueeze(0), z.chunk(2, -1), z.unbind(0)),
    "padded": lambda z: (nn.functional.pad(z, (1, 2)), z.tril(), torch.diagonal(z)),
    "made": lambda z: (z + torch.eye(4, dtype=z.dtype)[:3], torch.zeros_like(z) - z, z * torch.full_like(z, 2 - 1j)),
    "numbers": lambda z: (z * 1j, 1 - z, z / 2, z / (1 - 2j), 3 / z, z + 2.5, z - 1j, (1 + 1j) * z.real),
    "compared": lambda z: (z == z.conj(), z != 0, (z != 0).all(), z.masked_fill(z.real > 0, 1 + 2j)),
    "types": lambda z: (z.to(torch.complex128), z.real.to(torch.complex64), z.view(torch.float32)),
    "norms": lambda z: (torch.linalg.vector_norm(z, dim=-1), z.abs().pow(2)),
    "transforms": lambda z: (
        torch.fft.fft(z),
        torch.fft.ifft(z, dim=0, norm="ortho"),
        torch.fft.fft2(z, norm="forward"),
        torch.fft.ifftn(z),
        torch.fft.irfft(z),
        torch.fft.irfft2(z, s=(3, 5)),
        torch.fft.hfft(z, norm="ortho"),
        torch.fft.fft(z, n=7),
        torch.fft.fftshift(z),
    ),
}
BINARY = {
    "arithmetic": lambda a, b: (a + b, a - b, a * b, a / b, a**b, a.real * b, b / a.real, torch.sub(a, b, alpha=2)),
    "products": lambda a, b: (
        a @ b.mT,
        torch.einsum("ij,kj->ik", a, b),
        torch.vdot(a[0], b[0]),
        torch.outer(a[0], b[0]),
    ),
    "sums": lambda a, b: (torch.addmm(a[:, :3], a, b.mT, beta=2), torch.addcmul(a, b, b, value=0.5), a.lerp(b, 0.3)),
    "together": lambda a, b: (torch.cat([a, b], 1), torch.stack([a, b.real]), torch.where(a.real > 0, a, b)),
    "parts": lambda a, b: (torch.complex(a.real, b.imag), torch.polar(a.abs(), b.angle())),
}
OF_REALS = {
    "transforms": lambda x: (
        torch.fft.rfft(x),
        torch.fft.fft(x),
        torch.fft.ifft(x),
        torch.fft.rfftn(x, norm="ortho"),
        torch.fft.ihfft(x, norm="forward"),
        torch.fft.irfft(torch.fft.rfft(x, n=16) * 2, n=16),
    ),
    "numbers": lambda x: (torch.exp(1j * x), torch.polar(x.abs(), x), x.view(torch.complex64)),
}


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_tensor(name: str) -> None:
    hold_to(Function(UNARY[name]), numbers(3, 4))


@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_tensors(name: str) -> None:
    hold_to(Function(BINARY[name]), numbers(3, 4), numbers(6, 4)[3:])


@pytest.mark.parametrize("name", OF_REALS)
def test_complex_numbers_made_of_real_ones(name: str) -> None:
    hold_to(Function(OF_REALS[name]), reals(3, 8))


def test_a_root_or_a_logarithm_at_the_corners() -> None:
    corners = torch.tensor([0, 1, -1, 1j, -1j, -4 + 1e-6j, -4 - 1e-6j, 1e-20, 1e15 + 1e15j], dtype=torch.complex64)
    hold_to(Function(lambda z: (torch.sqrt(z), z**0.5, z.sgn(), torch.tanh(z.real.clamp(max=80) + 1j))), corners)


def test_layers_with_complex_weights() -> None:
    hold_to(
        nn.Sequential(nn.Linear(4, 3, dtype=torch.cfloat), nn.Linear(3, 2, bias=False, dtype=torch.cfloat)),
        numbers(5, 4),
    )
    hold_to(nn.Conv1d(3, 4, 3, padding=1, dtype=torch.cfloat), numbers(2, 3, 8))


def test_a_complex_tensor_that_is_written_to() -> None:
    def write(z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out = torch.zeros(z.shape, dtype=z.dtype)
        out[:, :2] = z[:, 1:3]
        torch.view_as_real(out)[0, 3, 1] = 5
        return out * 2, out.real

    hold_to(Function(write), numbers(3, 4))


def short(n: int, hop: int, **settings: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: torch.stft(x, n, hop, return_complex=True, window=torch.hann_window(n), **settings)


@pytest.mark.parametrize(
    "settings", [{}, {"center": False, "normalized": True}, {"onesided": False, "pad_mode": "constant"}], ids=str
)
def test_short_time_transforms(settings: dict[str, Any]) -> None:
    hold_to(Function(short(16, 4, **settings)), reals(2, 100))
    hold_to(Function(short(16, 4, center=False)), reals(40))
    hold_to(
        Function(lambda z: torch.stft(z, 8, 4, window=torch.ones(8), center=False, return_complex=True)), numbers(40)
    )


def test_their_inverse() -> None:
    window = torch.hamming_window(16)
    for settings in ({}, {"length": 50}, {"center": False}, {"normalized": True}):
        hold_to(Function(lambda z, s=settings: torch.istft(z, 16, 6, window=torch.ones(16), **s)), numbers(2, 9, 12))
    hold_to(
        Function(lambda z: torch.istft(z, 16, 4, window=window, onesided=False)), torch.fft.fft(reals(16, 9), dim=0)
    )


def compiled(module: nn.Module, args: tuple[Any, ...], shapes: Any, folder: str) -> gimlet.Program:
    bundle = gimlet.compile(module, args, dynamic_shapes=shapes, output=Path(folder) / "m.gimlet")
    return gimlet.load(bundle.path)


def test_a_program_takes_and_returns_complex_numbers() -> None:
    class Filter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(numbers(4))

        def forward(self, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"y": given["z"] * self.weight, "size": given["z"].abs()}

    module, shapes = Filter(), {"given": {"z": {0: Dim("n", min=1, max=9)}}}
    with tempfile.TemporaryDirectory() as folder, compiled(module, ({"z": numbers(3, 4)},), shapes, folder) as program:
        for given in (numbers(5, 4), numbers(2, 4).conj(), numbers(8, 4)[::2]):
            found, expected = program({"z": given}), module({"z": given})
            assert found["y"].dtype == np.complex64
            np.testing.assert_allclose(found["y"], expected["y"].detach().numpy(), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found["size"], expected["size"].numpy(), rtol=1e-5)
        assert [str(spec) for spec in program.inputs] == ["given_z: float32[n, 4, 2]"]
        with pytest.raises(InputError, match=r"has elements of float32, and the module takes complex64") as refused:
            program({"z": np.zeros((3, 4), np.float32)})
        assert refused.value.hint == "convert it: given.z.astype('complex64')"


def test_a_complex_argument_is_changed_in_place() -> None:
    module = Function(lambda z: z.mul_(2j).real)
    with tempfile.TemporaryDirectory() as folder, compiled(module, (numbers(3),), None, folder) as program:
        wide = np.array(numbers(6).numpy())
        given, before = wide[::2], wide.copy()
        program(given)
        np.testing.assert_allclose(given, before[::2] * 2j, rtol=1e-6)
        np.testing.assert_array_equal(wide[1::2], before[1::2])


def test_transforms_that_are_no_power_of_two_are_as_exact_as_pytorch() -> None:
    """ONNX Runtime's own are off by 3e-5 of the largest value there."""

    def transforms(x: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        spectrum = torch.stft(x, 100, 40, window=torch.hamming_window(100), return_complex=True)
        return spectrum, torch.fft.fft(z, dim=0), torch.fft.ifft(z), torch.fft.irfft(z, n=200)

    args, shapes = (reals(30, 400), numbers(60, 101)), ({1: Dim("t", min=100, max=900)}, None)
    with tempfile.TemporaryDirectory() as folder, compiled(Function(transforms), args, (shapes,), folder) as program:
        for given in (args, (reals(30, 523), args[1])):
            for found, wanted in zip(program(*given), transforms(*given), strict=True):
                exact = wanted.numpy()
                assert np.abs(found - exact).max() <= 2e-6 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (torch.asinh, r"aten\.asinh\.default of complex numbers is not supported"),
        (lambda z: torch.cond(z.real.sum() > 0, lambda a: a * 2j, lambda a: a * 1, (z,)), "cond of complex numbers"),
    ],
    ids=["asinh", "cond"],
)
def test_what_is_not_known_is_refused_with_its_line(function: Callable[..., Any], what: str) -> None:
    with pytest.raises(InputError, match=what) as refused:
        pairs_for_complex(export(Function(function), (numbers(3),), strict=False))
    assert "test_complex_numbers.py:" in str(refused.value.where)
    assert "torch.view_as_real" in str(refused.value.hint)


def test_a_buffer_of_complex_numbers_that_begins_with_others_than_zeros_is_no_state() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", numbers(3))

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            self.seen += z
            return self.seen * 1

    with tempfile.TemporaryDirectory() as folder, pytest.raises(InputError, match="begins with other values"):
        compiled(Counter(), (numbers(3),), None, folder)
