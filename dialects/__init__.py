"""The IR: onnx (generated from the schemas), placement and sram."""
