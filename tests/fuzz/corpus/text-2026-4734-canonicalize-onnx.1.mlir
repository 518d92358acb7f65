// canonicalize-onnx
builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%x: tensor<2x3x4xf32>) -> tensor<4x2x3xf32> {
    %a = onnx.Transpose v13(%x) {perm = [1, 0, 17]} : (tensor<2x3x4xf32>) -> tensor<3x2x4xf32>
    %y = onnx.Transpose v13(%a) {perm = [2, 65536, 0]} : (tensor<3x2x4xf32>) -> tensor<4x2x3xf32>
    func.return %y : tensor<4x2x3xf32>
  }
}