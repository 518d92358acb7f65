// fuse-rotary,dce
builtin.module attributes {onnx.opsets = {"" =i64}} {
  func.func @main(%x: tensor<1x2x3x4xf32>, %ids: tensor<1x3xi64>, %factor: tensor<1x3x1xf32>) -> tensor<1x2x3x4xf32> {
    %one = onnx.initializer {value = dense<1> : tensor<1xi64>} : tensor<1xi64>
    %table = onnx.initializer {value = dense<[[1.0, 2.0, 1.0, 2.0], [3.0, 4.0, 3.0, 4.0]]> : tensor<2x4xf32>} : tensor<2x4xf32>
    %cos = onnx.Gather(%table, %ids) {axis = 0} : (tensor<2x4xf32>, tensor<1x3xi64>) -> tensor<1x3x4xf32>
    %scaled = onnx.Mul(%cos, %factor) : (tensor<1x3x4xf32>, tensor<1x3x1xf32>) -> tensor<1x3x4xf32>
    %cos1 = onnx.Unsqueeze(%scaled, %one) : (tensor<1x3x4xf32>, tensor<1xi64>) -> tensor<1x1x3x4xf32>
    %sin1 = onnx.Unsqueeze(%cos, %one) : (tensor<1x3x4xf32>, tensor<1xi64>) -> tensor<1x1x3x4xf32>
    %plain = onnx.Mul(%x, %cos1) : (tensor<1x2x3x4xf32>, tensor<1x1x3x4xf32>) -> tensor<1x2x3x4xf32>
    %low, %high = onnx.Split(%x) {axis = -1, num_outputs = 2} : (tensor<1x2x3x4xf32>) -> (tensor<1x2x3x2xf32>, tensor<1x2x3x2xf32>)
    %neg = onnx.Neg(%high) : (tensor<1x2x3x2xf32>) -> tensor<1x2x3x2xf32>
    %turned = onnx.Concat(%neg, %low) {axis = -1} : (tensor<1x2x3x2xf32>, tensor<1x2x3x2xf32>) -> tensor<1x2x3x4xf32>
    %across = onnx.Mul(%turned, %sin1) : (tensor<1x2x3x4xf32>, tensor<1x1x3x4xf32>) -> tensor<1x2x3x4xf32>
    %y = onnx.Add(%across, %plain) : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
    func.return %y : tensor<1x2x3x4xf32>
  }
}