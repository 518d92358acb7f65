"""Sub-models for ONNX Runtime: the CPU, and whatever an execution provider of it serves."""
