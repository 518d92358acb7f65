"""Engines for NVIDIA GPUs: TensorRT for RTX, which builds without a GPU, and TensorRT, which builds on its own."""
