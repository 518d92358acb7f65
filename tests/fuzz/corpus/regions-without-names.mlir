func.func @main(%x: tensor<4xf32>) {
  %y = "onnx.If"(%x) ({
    "onnx.yield"() : () -> ()
  }) {graphs = ["a", "b"]} : (tensor<4xf32>) -> tensor<4xf32>
  func.return
}
