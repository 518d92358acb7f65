// canonicalize-onnx
builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<i64>) {
    %a = onnx.Identity v16(%x) : (tensor<4xf32>) -> tensor<4xf32>
    %b = onnx.Dropout v13(%b) : (tensor<4xf32>) -> tensor<4xf32>
    %c = onnx.Cast v13(%b) {to = 1} : (tensor<4xf32>) -> tensor<4xf32>
    %y = onnx.Relu v14(%c) : (tensor<4xf32>) -> tensor<4xf32>
    %k = onnx.Constant v13 {value_int = 3} : tensor<i64>
    func.return %y, %k : tensor<4xf32>, tensor<i64>
  }
}