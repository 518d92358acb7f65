builtin.module attributes {onnx.opsets = {"" = 21 : i64, com.microsoft = 1 : i64}, onnx.ir_version = 12 :!onnx.seq, onnx.model = {graph_name = "g"}, gimlet.phase = "import", gimlet.dialect_version = 1 : i64} {
  func.func @main(%x: !onnx.optional<!onnx.seq<tensor<?x2xf32, #onnx.dims<"x_d0", "">>>> {onnx.name = "x"}) -> (!onnx.optional<!onnx.seq<tensor<?x2xf32, #onnx.dims<"?", "">>>> {onnx.name = "none"}, tensor<i1> {onnx.name = "has"}) {
    %none = onnx.Optional v15 {type = !onnx.seq<tensor<?x2xf32, #onnx.dims<"?", "">>>} : !onnx.optional<!onnx.seq<tensor<?x2xf32, #onnx.dims<"?", "">>>>
    %has = onnx.OptionalHasElement v18(%x) : (!onnx.optional<!onnx.seq<tensor<?x2xf32, #onnx.dims<"x_d0", "">>>>) -> tensor<i1>
    func.return %none, } : !onnx.optional<!onnx.seq<tensor<?x2xf32, #onnx.dims<"?", "">>>>, tensor<i1>
  }
}