// inline-functions
builtin.module attributes {onnx.opsets = {"" = 21 : i64, com.example = 1 : i64, com.microsoft = 1 : i64}, onnx.ir_version = 12 : i64, onnx.model = {graph_name = "g"}, gimlet.phase = "import", gimlet.dialect_version = 1 : i64} {
  func.func @main(%x: tensor<4xf32> {onnx.name = "x"}) -> (tensor<4xf32> {onnx.name = "y"}) {
    %y = onnx.custom "com.example", "Twice", "f32"(%x) : (tensor<4xf32>) -> tensor<4xf32> loc("call")
    func.return %y : tensor<4xf32>
  }
  func.func private @com.example.Leaky(%a: !onnx.any {onnx.name = "a"}) -> (!onnx.any {onnx.name = "b"}) attributes {onnx.opsets = {"" = 21 : i64, com.microsoft = 1 : i64}, onnx.function = {domain = "com.example", name = "Leaky", attributes = ["unused"], defaults = {slope = 5.000000e-01 : f32}}} {
    %b = onnx.LeakyRelu(%a) {alpha = #onnx.ref<"slope", "float">} : (!onnx.any) -> !onnx.any
    func.return %b : !onnx.any
  }
  func.func private @com.example.Twice.f32(%x: !onnx.any {onnx.name = "x"}) -> (!onnx.any {onnx.name = "y"}) attributes {onnx.opsets = {"" = 18 : i64, com.example = 1 : i64, com.microsoft = 1 : i64}, onnx.function = {domain = "com.example", name = "Twice", attributes = [], defaults = {}, overload = "f32"}, onnx.doc = "doubles"} {
    %h = onnx.custom "com.example", "Leaky"(%y) {unused = 1} : (!onnx.any) -> !onnx.any
    %y = onnx.Add(%h, %h) : (!onnx.any, !onnx.any) -> !onnx.any
    func.return %y : !onnx.any
  }
}
