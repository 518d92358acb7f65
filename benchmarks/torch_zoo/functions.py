"""Functions of torch: indices, sorting, reductions, linear algebra, spectra and the like."""

from __future__ import annotations

import torch

from torch_zoo.case import Case, Input, b, f, function, i, p, u, words

_POINTWISE = words(
    "abs acos acosh asin asinh atan atanh ceil cos cosh deg2rad digamma erf erfc erfinv exp exp2 "
    "expm1 floor frac lgamma log log10 log1p log2 logit neg positive rad2deg reciprocal round rsqrt "
    "sigmoid sign sgn sin sinc sinh sqrt square tan tanh trunc i0 isfinite isinf isnan isneginf "
    "isposinf signbit nan_to_num logical_not"
)
_ABOVE_ONE = ("acosh",)
_PAIRS = words(
    "add sub mul div pow maximum minimum fmax fmin fmod remainder atan2 hypot logaddexp logaddexp2 "
    "copysign true_divide floor_divide eq ne lt le gt ge logical_and logical_or logical_xor heaviside "
    "xlogy nextafter ldexp float_power dist"
)
_BITS = words("bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift gcd lcm")

_ELEMENTWISE = [
    *(
        function(
            f"torch.{name}", lambda x, name=name: getattr(torch, name)(x + 1 if name in _ABOVE_ONE else x), u("n", 6)
        )
        for name in _POINTWISE
    ),
    *(function(f"torch.{name}", getattr(torch, name), u("n", 6), u(6)) for name in _PAIRS),
    *(function(f"torch.{name}", getattr(torch, name), i(5, "n", 6), i(5, 6)) for name in _BITS),
    function("torch.bitwise_not", torch.bitwise_not, i(9, "n", 6)),
    function("torch.round(decimals)", lambda x: torch.round(x, decimals=2), f("n", 6)),
    function("torch.div(floor)", lambda x, y: torch.div(x, y, rounding_mode="floor"), f("n", 6), u(6)),
    function("torch.div(trunc)", lambda x, y: torch.div(x, y, rounding_mode="trunc"), f("n", 6), u(6)),
    function("floor division of integers", lambda x: (x - 5) // 3, i(9, "n", 6)),
    function("remainder of integers", lambda x: (x - 5) % 3, i(9, "n", 6)),
    function("division of integers", lambda x: x / 3, i(9, "n", 6)),
    function("torch.clamp", lambda x: torch.clamp(x, -0.5, 0.5), f("n", 6)),
    function("torch.clamp of tensors", torch.clamp, f("n", 6), u(6), f("n", 6)),
    function("torch.clamp_min", lambda x: torch.clamp_min(x, 0.1), f("n", 6)),
    function("torch.lerp", torch.lerp, f("n", 6), f("n", 6), u("n", 6)),
    function("torch.addcmul", lambda x, y, z: torch.addcmul(x, y, z, value=0.5), f("n", 6), f("n", 6), f(6)),
    function("torch.addcdiv", lambda x, y, z: torch.addcdiv(x, y, z, value=0.5), f("n", 6), f("n", 6), u(6)),
    function("torch.rsub", lambda x: torch.rsub(x, 2, alpha=3), f("n", 6)),
    function("torch.polar", lambda r, a: torch.view_as_real(torch.polar(r, a)), u("n", 6), f("n", 6)),
    function(
        "torch.complex",
        lambda x, y: torch.view_as_real(torch.complex(x, y) * torch.complex(y, x)),
        f("n", 6),
        f("n", 6),
    ),
    function("torch.isclose", torch.isclose, f("n", 6), f("n", 6)),
    function("torch.where", torch.where, b("n", 6), f("n", 6), f(6)),
    function("torch.where, a number", lambda c, x: torch.where(c, x, 0.0), b("n", 6), f("n", 6)),
    function("masked_fill", lambda x, m: x.masked_fill(m, float("-inf")), f("n", 6), b("n", 6)),
    function("masked_fill, in place", lambda x, m: (x + 1).masked_fill_(m, 3.0), f("n", 6), b(6)),
    function("to(int), to(float)", lambda x: (x * 4).to(torch.int32).to(torch.float32), f("n", 6)),
    function("to(float16)", lambda x: x.half().float(), f("n", 6)),
    function("to(bool)", lambda x: x.bool(), i(2, "n", 6)),
    function("torch.special.entr", torch.special.entr, u("n", 6)),
    function("torch.special.erfcx", torch.special.erfcx, u("n", 6)),
    function("torch.special.ndtr", torch.special.ndtr, f("n", 6)),
    function("torch.special.log_ndtr", torch.special.log_ndtr, f("n", 6)),
    function("torch.special.i1", torch.special.i1, u("n", 6)),
]

_REDUCTIONS = [
    *(
        function(f"torch.{name}", getattr(torch, name), f("n", 6))
        for name in words("sum mean prod std var amax amin max min median argmax argmin norm")
    ),
    *(
        function(f"torch.{name}(dim=1)", lambda x, name=name: getattr(torch, name)(x, dim=1), f("n", 6, 5))
        for name in words(
            "sum mean prod std var amax amin max min median mode argmax argmin logsumexp norm all any cumsum "
            "cumprod logcumsumexp cummax cummin std_mean var_mean aminmax count_nonzero nanmean nansum "
            "nanmedian"
        )
    ),
    *(
        function(
            f"torch.{name}(dim=(0, 2), keepdim)",
            lambda x, name=name: getattr(torch, name)(x, dim=(0, 2), keepdim=True),
            f("n", 6, 5),
        )
        for name in words("sum mean std var amax amin logsumexp")
    ),
    function("torch.all", torch.all, b("n", 6)),
    function("torch.any", torch.any, b("n", 6)),
    function("torch.var(correction=0)", lambda x: torch.var(x, dim=1, correction=0), f("n", 6)),
    function("torch.quantile", lambda x: torch.quantile(x, 0.3, dim=1), f("n", 6)),
    function("torch.quantile of several", lambda x: torch.quantile(x, torch.tensor([0.1, 0.5]), dim=1), f("n", 6)),
    function("torch.kthvalue", lambda x: torch.kthvalue(x, 2, dim=1), p("n", 6)),
    function("torch.diff", torch.diff, f("n", 6)),
    function("torch.trapezoid", torch.trapezoid, f("n", 6)),
    function("torch.cumulative_trapezoid", torch.cumulative_trapezoid, f("n", 6)),
    function("torch.cov", torch.cov, f(4, 6)),
    function("torch.corrcoef", torch.corrcoef, f(4, 6)),
    function("torch.histc", lambda x: torch.histc(x, bins=5, min=-2, max=2), f("n", 6)),
    function("torch.bincount", lambda x: torch.bincount(x, minlength=7), i(7, "n")),
    function("torch.renorm", lambda x: torch.renorm(x, 2, 0, 1.0), f("n", 6)),
]

_ORDER = [
    function("torch.sort", lambda x: torch.sort(x, dim=1), p("n", 6)),
    function(
        "torch.sort(descending, stable)", lambda x: torch.sort(x, dim=0, descending=True, stable=True), i(4, "n", 6)
    ),
    function("torch.argsort", torch.argsort, p("n", 6)),
    function("torch.msort", torch.msort, p("n", 6)),
    function("torch.topk", lambda x: torch.topk(x, 3, dim=1), p("n", 6)),
    function("torch.topk(largest=False)", lambda x: torch.topk(x, 2, dim=0, largest=False), p("n", 6)),
    function("torch.topk of a size", lambda x: torch.topk(x, x.shape[0], dim=1).values, p("n", 20)),
    function("torch.searchsorted", torch.searchsorted, Input((7,), lambda s, g: torch.linspace(-1, 1, 7)), f("n", 6)),
    function(
        "torch.searchsorted(right), rows",
        lambda s, x: torch.searchsorted(s, x, right=True),
        Input(("n", 7), lambda s, g: torch.linspace(-1, 1, 7).expand(s)),
        f("n", 6),
    ),
    function("torch.bucketize", lambda x: torch.bucketize(x, torch.linspace(-1, 1, 5)), f("n", 6)),
    function("torch.bucketize(right)", lambda x: torch.bucketize(x, torch.linspace(-1, 1, 5), right=True), f("n", 6)),
    function("torch.unique", torch.unique, i(5, "n", 6)),
    function("torch.unique, counts", lambda x: torch.unique(x, return_inverse=True, return_counts=True), i(5, "n", 6)),
    function("torch.unique_consecutive", torch.unique_consecutive, i(2, 12)),
    function("torch.nonzero", torch.nonzero, i(2, "n", 6)),
    function("torch.nonzero(as_tuple)", lambda x: torch.nonzero(x, as_tuple=True), i(2, "n", 6)),
    function("torch.argwhere", torch.argwhere, i(2, "n", 6)),
    function("torch.masked_select", torch.masked_select, f("n", 6), b("n", 6)),
    function("x[mask]", lambda x, m: x[m], f("n", 6), b("n")),
    function("torch.isin", lambda x: torch.isin(x, torch.tensor([1, 3])), i(5, "n", 6)),
    function("x[mask] = value", lambda x, m: _set(x, m, 0.5), f("n", 6), b("n", 6)),
]


def _set(values: torch.Tensor, where: torch.Tensor, value: float | torch.Tensor) -> torch.Tensor:
    copy = values.clone()
    copy[where] = value
    return copy


def _set_part(values: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    copy = values.clone()
    copy[:, 1:3] = part
    return copy


_INDICES = [
    function("torch.gather", lambda x, at: torch.gather(x, 1, at), f("n", 6), i(6, "n", 4)),
    function("torch.take", torch.take, f(4, 6), i(24, "n")),
    function("torch.take_along_dim", lambda x, at: torch.take_along_dim(x, at, 1), f("n", 6), i(6, "n", 4)),
    function("torch.index_select", lambda x, at: torch.index_select(x, 1, at), f("n", 6), i(6, 4)),
    function("x[ids]", lambda x, at: x[at], f(7, 6), i(7, "n", 3)),
    function("x[:, ids]", lambda x, at: x[:, at], f("n", 6, 3), i(6, 4)),
    function("x[rows, columns]", lambda x, rows, columns: x[rows, columns], f(7, 6, 3), i(7, "n"), i(6, "n")),
    function("x[rows, :, columns]", lambda x, rows, columns: x[rows, :, columns], f(7, 5, 6), i(7, "n"), i(6, "n")),
    function("x[:, -1], x[..., ::2]", lambda x: (x[:, -1], x[..., ::2], x[None, 1:-1]), f("n", 6, 5)),
    function("x[:, 1:3] = part", _set_part, f("n", 6), f("n", 2)),
    function("x[ids] = rows", lambda x, at, rows: _set(x, at, rows), f(7, 6), torch.tensor([1, 5, 2]), f(3, 6)),
    function(
        "torch.scatter",
        lambda x, at, s: torch.scatter(x, 1, at, s),
        f("n", 6),
        Input(("n", 3), lambda s, g: torch.tensor([0, 2, 5]).expand(s).contiguous()),
        f("n", 3),
    ),
    function("torch.scatter, a number", lambda x, at: torch.scatter(x, 1, at, 0.5), f("n", 6), i(6, "n", 3)),
    function("torch.scatter_add", lambda x, at, s: torch.scatter_add(x, 1, at, s), f("n", 6), i(6, "n", 3), f("n", 3)),
    *(
        function(
            f"torch.scatter_reduce({how})",
            lambda x, at, s, how=how: torch.scatter_reduce(x, 1, at, s, how),
            f("n", 6),
            i(6, "n", 3),
            f("n", 3),
        )
        for how in ("sum", "prod", "amax", "amin", "mean")
    ),
    function(
        "torch.scatter_reduce(amax, include_self=False)",
        lambda x, at, s: torch.scatter_reduce(x, 1, at, s, "amax", include_self=False),
        f("n", 6),
        i(6, "n", 3),
        f("n", 3),
    ),
    function("torch.index_add", lambda x, at, s: torch.index_add(x, 0, at, s), f(7, 6), i(7, "n"), f("n", 6)),
    function(
        "torch.index_add(dim=1, alpha)",
        lambda x, at, s: torch.index_add(x, 1, at, s, alpha=2),
        f("n", 6),
        i(6, 4),
        f("n", 4),
    ),
    function(
        "torch.index_copy", lambda x, at, s: torch.index_copy(x, 0, at, s), f(7, 6), torch.tensor([1, 5, 2]), f(3, 6)
    ),
    function("torch.index_fill", lambda x, at: torch.index_fill(x, 1, at, 0.5), f("n", 6), i(6, 3)),
    function(
        "torch.index_put", lambda x, at, s: torch.index_put(x, (at,), s), f(7, 6), torch.tensor([1, 5, 2]), f(3, 6)
    ),
    function(
        "torch.index_put(accumulate)",
        lambda x, at, s: torch.index_put(x, (at,), s, accumulate=True),
        f(7, 6),
        i(7, "n"),
        f("n", 6),
    ),
    function(
        "torch.index_put of int32",
        lambda x, at, s: torch.index_put(x, (at.int(),), s),
        f(7, 6),
        torch.tensor([1, 5, 2]),
        f(3, 6),
    ),
    function(
        "torch.index_put, two",
        lambda x, r, c, s: torch.index_put(x, (r, c), s),
        f(7, 6),
        torch.tensor([1, 5]),
        torch.tensor([2, 3]),
        f(2),
    ),
    function(
        "torch.index_reduce", lambda x, at, s: torch.index_reduce(x, 0, at, s, "amax"), f(7, 6), i(7, "n"), f("n", 6)
    ),
    function("torch.masked_scatter", torch.masked_scatter, f("n", 6), b("n", 6), f(16, 6)),
    function("torch.select_scatter", lambda x, s: torch.select_scatter(x, s, 1, 2), f("n", 6), f("n")),
    function("torch.slice_scatter", lambda x, s: torch.slice_scatter(x, s, 1, 1, 5, 2), f("n", 6), f("n", 2)),
    function("torch.diagonal_scatter", torch.diagonal_scatter, f(5, 5), f(5)),
    function("torch.put", lambda x, at, s: torch.put(x, at, s), f(4, 6), torch.tensor([1, 9]), f(2)),
    function("unfold", lambda x: x.unfold(1, 3, 2), f("n", 8)),
    function("as_strided", lambda x: torch.as_strided(x, (3, 4), (4, 1), 2), f(5, 4)),
]

_MOVES = [
    function("torch.cat", lambda x, y: torch.cat([x, y, x], 0), f("n", 6), f("m", 6)),
    function("torch.stack", lambda x, y: torch.stack([x, y], 1), f("n", 6), f("n", 6)),
    function(
        "torch.hstack, vstack, dstack",
        lambda x, y: (torch.hstack([x, y]), torch.vstack([x, y]), torch.dstack([x, y])),
        f("n", 6),
        f("n", 6),
    ),
    function("torch.chunk", lambda x: torch.chunk(x, 3, 1), f("n", 7)),
    function("torch.split", lambda x: torch.split(x, [1, 4, 2], 1), f("n", 7)),
    function("torch.tensor_split", lambda x: torch.tensor_split(x, 3, 1), f("n", 7)),
    function("torch.unbind", lambda x: torch.unbind(x, 1), f("n", 3)),
    function("torch.roll", lambda x: torch.roll(x, 2, 1), f("n", 6)),
    function("torch.roll, two axes", lambda x: torch.roll(x, (1, -2), (0, 1)), f("n", 6)),
    function("torch.roll, flat", lambda x: torch.roll(x, 2), f("n", 6)),
    function("torch.flip", lambda x: torch.flip(x, (0, 2)), f("n", 6, 5)),
    function("torch.fliplr, flipud", lambda x: (torch.fliplr(x), torch.flipud(x)), f("n", 6)),
    function("torch.rot90", lambda x: torch.rot90(x, 1, (0, 1)), f("n", 6)),
    function("torch.tril", torch.tril, f("n", "m")),
    function("torch.triu(1)", lambda x: torch.triu(x, 1), f(3, "n", "m")),
    function("torch.tril_indices", lambda x: x[:, torch.tril_indices(4, 4)[0]], f("n", 6)),
    function("torch.repeat_interleave", lambda x: torch.repeat_interleave(x, 3, 1), f("n", 6)),
    function(
        "torch.repeat_interleave of counts",
        lambda x: torch.repeat_interleave(x, torch.tensor([1, 2, 0, 3]), 0),
        f(4, 6),
    ),
    function("repeat", lambda x: x.repeat(2, 1, 3), f("n", 6)),
    function("torch.tile", lambda x: torch.tile(x, (2, 3)), f("n", 6)),
    function("expand", lambda x, y: x.expand(y.shape[0], -1), f(1, 6), f("n", 2)),
    function("torch.broadcast_tensors", torch.broadcast_tensors, f("n", 1), f(6)),
    function(
        "permute, transpose, movedim",
        lambda x: (x.permute(2, 0, 1), x.transpose(0, 2), x.movedim(0, 1), x.mT),
        f("n", 6, 5),
    ),
    function(
        "view, reshape, flatten",
        lambda x: (x.view(x.shape[0], -1), x.reshape(-1, 3), x.flatten(1), x.unflatten(1, (2, -1))),
        f("n", 6, 5),
    ),
    function("squeeze, unsqueeze", lambda x: (x.squeeze(), x.squeeze(1), x.unsqueeze(-1)), f("n", 1, 6)),
    function("view(dtype)", lambda x: x.view(torch.int32), f("n", 6)),
    function("torch.diag", torch.diag, f(6)),
    function("torch.diagonal", lambda x: torch.diagonal(x, 1, 1, 2), f("n", 6, 6)),
    function("torch.diag_embed", torch.diag_embed, f("n", 6)),
    function("torch.block_diag", torch.block_diag, f(2, 3), f(3, 2)),
    function("torch.meshgrid", lambda x, y: torch.meshgrid(x, y, indexing="ij"), f("n"), f("m")),
    function("torch.cartesian_prod", torch.cartesian_prod, f(3), f(4)),
    function("torch.combinations", torch.combinations, f(5)),
    function("torch.arange of a size", lambda x: torch.arange(x.shape[0]) + x, f("n")),
    function("torch.linspace", lambda x: torch.linspace(-1, 1, x.shape[0]) * x, f("n")),
    function(
        "torch.linspace, logspace", lambda x: (torch.linspace(0, 1, 6) * x, torch.logspace(0, 1, 6) * x), f("n", 6)
    ),
    function("torch.eye", lambda x: torch.eye(x.shape[0]) + x, f("n", "n")),
    function(
        "torch.zeros, ones, full, empty",
        lambda x: (torch.zeros_like(x), torch.ones(x.shape[0]), torch.full((x.shape[0], 2), 3.0), x.new_zeros(2)),
        f("n", 6),
    ),
    function("torch.vander", torch.vander, f(5)),
    function("torch.hann_window", lambda x: x * torch.hann_window(6), f("n", 6)),
    function("torch.kron", torch.kron, f(2, 3), f(3, 2)),
]

_SQUARE = Input(("n", 4, 4), lambda s, g: torch.randn(s, generator=g) + 4 * torch.eye(4))
_POSITIVE = Input((3, 4, 4), lambda s, g: (lambda a: a @ a.mT + torch.eye(4))(torch.randn(s, generator=g)))
_PRODUCTS = [
    function("torch.matmul", torch.matmul, f("n", 3, "m", 4), f(4, 5)),
    function("torch.matmul of a vector", torch.matmul, f("n", 4), f(4)),
    function("torch.mm", torch.mm, f("n", 4), f(4, "m")),
    function("torch.bmm", torch.bmm, f("n", 3, 4), f("n", 4, 5)),
    function(
        "torch.mv, dot, outer, inner",
        lambda x, y: (torch.mv(x, y), torch.dot(y, y), torch.outer(y, y), torch.inner(x, y)),
        f("n", 4),
        f(4),
    ),
    function("torch.addmm", lambda x, y, z: torch.addmm(x, y, z, beta=0.5, alpha=2), f(5), f("n", 4), f(4, 5)),
    function(
        "torch.addmv, addr, addbmm, baddbmm",
        lambda v, m, x: (torch.addmv(v, m, v), torch.addr(m, v, v), torch.addbmm(m, x, x), torch.baddbmm(x, x, x)),
        f(4),
        f(4, 4),
        f("n", 4, 4),
    ),
    function("torch.einsum", lambda x, y: torch.einsum("bid,bjd->bij", x, y), f("n", "m", 4), f("n", 5, 4)),
    function(
        "torch.einsum, three",
        lambda x, y, z: torch.einsum("bhd,hde,be->bh", x, y, z),
        f("n", 3, 4),
        f(3, 4, 5),
        f("n", 5),
    ),
    function("torch.einsum, dots", lambda x, y: torch.einsum("...ij,...jk->...ik", x, y), f("n", 3, 4), f("n", 4, 5)),
    function("torch.einsum, diagonal", lambda x: torch.einsum("bii->bi", x), f("n", 4, 4)),
    function("torch.einsum, sum", lambda x: torch.einsum("bij->b", x), f("n", 4, 4)),
    function("torch.tensordot", lambda x, y: torch.tensordot(x, y, dims=([1, 2], [0, 1])), f("n", 3, 4), f(3, 4, 5)),
    function("torch.chain_matmul", lambda x, y: torch.linalg.multi_dot([x, y, x]), f(3, 4), f(4, 3)),
    function("torch.cdist", torch.cdist, f("n", 3, 4), f("n", 5, 4)),
    function("torch.cdist(p=1)", lambda x, y: torch.cdist(x, y, p=1.0), f(3, 4), f(5, 4)),
    function("torch.cross", lambda x, y: torch.linalg.cross(x, y), f("n", 3), f("n", 3)),
    function("torch.trace", torch.trace, f(4, 4)),
    function("torch.linalg.norm", torch.linalg.norm, f("n", 6)),
    function("torch.linalg.vector_norm(ord=3)", lambda x: torch.linalg.vector_norm(x, 3.0, dim=1), f("n", 6)),
    function("torch.linalg.vector_norm(inf)", lambda x: torch.linalg.vector_norm(x, float("inf"), dim=1), f("n", 6)),
    function("torch.linalg.matrix_norm", torch.linalg.matrix_norm, f("n", 4, 5)),
    function("torch.linalg.matrix_norm(1)", lambda x: torch.linalg.matrix_norm(x, 1), f("n", 4, 5)),
    function("torch.linalg.matrix_power", lambda x: torch.linalg.matrix_power(x, 3), f("n", 4, 4)),
    function("torch.linalg.vecdot", torch.linalg.vecdot, f("n", 4), f("n", 4)),
    function("torch.linalg.det", torch.linalg.det, _SQUARE),
    function("torch.linalg.slogdet", torch.linalg.slogdet, _SQUARE),
    function("torch.linalg.inv", torch.linalg.inv, _SQUARE),
    function("torch.linalg.solve", torch.linalg.solve, _SQUARE, f("n", 4, 2)),
    function(
        "torch.linalg.solve_triangular",
        lambda x, y: torch.linalg.solve_triangular(x.tril(), y, upper=False),
        _SQUARE,
        f("n", 4, 2),
    ),
    function("torch.linalg.cholesky", torch.linalg.cholesky, _POSITIVE),
    function("torch.linalg.qr", lambda x: torch.linalg.qr(x)[1].abs(), _SQUARE),
    function("torch.linalg.svdvals", torch.linalg.svdvals, _SQUARE),
    function("torch.linalg.eigvalsh", torch.linalg.eigvalsh, _POSITIVE),
    function("torch.linalg.pinv", torch.linalg.pinv, _SQUARE),
    function("torch.matrix_exp", torch.matrix_exp, f(4, 4)),
]


def _spectrum(values: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(values)


_SPECTRA = [
    function("torch.fft.fft", lambda x: _spectrum(torch.fft.fft(x)), f("n", 8)),
    function("torch.fft.ifft", lambda x: _spectrum(torch.fft.ifft(torch.fft.fft(x) * 2)), f("n", 8)),
    function("torch.fft.rfft", lambda x: _spectrum(torch.fft.rfft(x)), f("n", 8)),
    function("torch.fft.rfft, abs", lambda x: torch.fft.rfft(x).abs(), f("n", 9)),
    function("torch.fft.irfft", lambda x: torch.fft.irfft(torch.fft.rfft(x) * 2), f("n", 8)),
    function("torch.fft.irfft, odd", lambda x: torch.fft.irfft(torch.fft.rfft(x), n=9), f("n", 9)),
    function("torch.fft.fft2", lambda x: _spectrum(torch.fft.fft2(x)), f("n", 6, 8)),
    function("torch.fft.rfft2, irfft2", lambda x: torch.fft.irfft2(torch.fft.rfft2(x), s=(6, 8)), f("n", 6, 8)),
    function("torch.fft.fft(n, norm)", lambda x: _spectrum(torch.fft.fft(x, n=6, norm="ortho")), f("n", 8)),
    function("torch.fft.fftn, ifftn", lambda x: torch.fft.ifftn(torch.fft.fftn(x)).real, f(3, 6, 8)),
    function("torch.fft.fftshift", lambda x: torch.fft.fftshift(x, dim=1), f("n", 8)),
    function(
        "product of spectra",
        lambda x, y: torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(y), n=8),
        f("n", 8),
        f("n", 8),
    ),
    function(
        "torch.stft",
        lambda x: _spectrum(torch.stft(x, 16, 4, window=torch.hann_window(16), return_complex=True)),
        f("n", 40),
    ),
    function(
        "torch.stft, abs, not centred",
        lambda x: torch.stft(x, 16, 8, center=False, return_complex=True).abs(),
        f("n", 40),
    ),
    function(
        "torch.stft, window shorter",
        lambda x: torch.stft(x, 16, 4, 12, window=torch.hann_window(12), return_complex=True).abs(),
        f("n", 40),
    ),
    function(
        "torch.istft",
        lambda x: torch.istft(
            torch.stft(x, 16, 4, window=torch.hann_window(16), return_complex=True), 16, 4, window=torch.hann_window(16)
        ),
        f(3, 40),
    ),
]

FUNCTIONS: list[Case] = [*_ELEMENTWISE, *_REDUCTIONS, *_ORDER, *_INDICES, *_MOVES, *_PRODUCTS, *_SPECTRA]
