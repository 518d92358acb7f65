builtin.module attributes {onnx.opsets = {"" = 21 : i64, ai.onnx.ml = 1 : i64, com.microsoft = 1 : i64}, onnx.ir_version = 12 : i64, onnx.model = {graph_name = "g"}, gimlet.phase = "import", gimlet.dialect_version = 1 : i64} {
  func.func @main(%x: tensor<?x3xf32, #onnx.dims<"n", "">> {onnx.name = "x"}) -> (!onnx.seq<!onnx.map(%x) {classlabels_int64s = [1, 2, 3]} : (tensor<?x3xf32, #onnx.dims<"n", "">>) -> !onnx.seq<!onnx.map<i64, tensor<f32>>>
    func.return %m : !onnx.seq<!onnx.map<i64, tensor<f32>>>>
  }
}