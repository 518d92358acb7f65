"""Complex numbers as pairs of real ones: ONNX has a type for them, and no operator that computes with it.

A tensor of complex numbers becomes two of real ones, of its parts. Where the program takes one, returns one or keeps
one as a weight, it is one tensor of real numbers with a last dimension of two, as in ONNX's `DFT` and PyTorch's
`view_as_real`; the signature tells a caller's complex numbers from it.
"""

from gimlet.compiler.frontends.complex_numbers.fourier_onnx import fourier_translations
from gimlet.compiler.frontends.complex_numbers.rewrite import complex_type, pairs_for_complex
from gimlet.compiler.frontends.complex_numbers.short_time import short_time_in_shapes

__all__ = ["complex_type", "fourier_translations", "pairs_for_complex", "short_time_in_shapes"]
