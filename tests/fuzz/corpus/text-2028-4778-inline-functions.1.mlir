// inline-functions
builtin.module attributes {onnx.opsets = {"Limit" = 17 : i64, my = 1 : i64}} {
  func.func @main(%c: tensor<i1>, %x: tensor<4xf32>, %m: tensor<f32>) -> tensor<4xf32> {
    %y = onnx.If v16(%c) else_branch {
      %e = onnx.Relu v14(%x) : (tensor<4xf32>) -> tensor<4xf32>
      onnx.yield %e : tensor<4xf32>
    } then_branch {
      %t = onnx.custom "my", "Limit"(%x, _, %m) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
      onnx.yield %t : tensor<4xf32>
    } : (tensor<i1>) -> tensor<4xf32>
    func.return %y : tensor<4xf32>
  }
  func.func private @my.Limit(%a: !onnx.any, %low: !onnx.any, %high: !onnx.any) -> !onnx.any attributes {onnx.function = {attributes = [], defaults = {}, domain = "my", name = "Limit"}, onnx.opsets = {"" = 65536 : i64}} {
    %b = onnx.Clip v13(%a, %low, %high) : (!onnx.any, !onnx.any, !onnx.any) -> !onnx.any
    func.return %b : !onnx.any
  }
}