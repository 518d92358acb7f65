"""Why a case of the zoo does not compile."""

from __future__ import annotations

from torch_zoo.case import words

_FACTORISES = "ONNX has no operator that factorises a matrix or solves for one"
_BITS = "ONNX has no operator for the bits of a float"
_VALUES = "PyTorch does not trace it: it looks at values"
_SIZES = "PyTorch traces it for one size only"

REASONS: dict[str, str] = {
    **dict.fromkeys(("torch.i0", "torch.special.i1"), "ONNX has no Bessel functions"),
    **dict.fromkeys(("torch.nextafter", "view(dtype)"), _BITS),
    **dict.fromkeys(("torch.gcd", "torch.lcm"), "ONNX has no greatest common divisor"),
    "torch.mode(dim=1)": "ONNX does not count equal values",
    **dict.fromkeys(("torch.cov", "torch.corrcoef", "torch.combinations"), _VALUES),
    **dict.fromkeys(("nn.GaussianNLLLoss", "nn.CTCLoss"), _VALUES),
    **dict.fromkeys(
        (f"torch.linalg.{name}" for name in words("slogdet inv solve solve_triangular cholesky")), _FACTORISES
    ),
    **dict.fromkeys((f"torch.linalg.{name}" for name in ["qr", "svdvals", "eigvalsh", "pinv"]), _FACTORISES),
    "torch.matrix_exp": _FACTORISES,
    "orthogonal": f"{_FACTORISES}: torch.nn.utils.parametrize.remove_parametrizations makes it a plain weight",
    **dict.fromkeys((f"nn.FractionalMaxPool{rank}d" for rank in (2, 3)), "its windows are drawn by chance"),
    "nn.CrossMapLRN2d": "it is an autograd.Function; nn.LocalResponseNorm computes the same",
}
"""By the name of a case."""

ONE_SIZE: dict[str, str] = {
    "torch.linspace": _SIZES,
    "torch.take_along_dim": _SIZES,
    "torch.linalg.matrix_norm(1)": _SIZES,
}
"""Of what compiles, but not with dynamic dimensions."""


def reason_of(name: str, *, dynamic: bool) -> str:
    """Nothing for a case that compiles."""
    return REASONS.get(name, "") or (ONE_SIZE.get(name, "") if dynamic else "")
