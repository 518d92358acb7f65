// sram-lower
builtin.module attributes {onnx.dim_bounds = {n = array<i64: 1, 8, 16>}} {
  func.func @main(%x: tensor<?x128xf32, #onnx.dims<"n", "">>) -> tensor<?x64xf32, #onnx.dims<"n", "">> attributes {sram.machine = {chiplets = 1, cores = 4611686018427387904}} {
    %w = onnx.initializer {value = dense<0.5> : tensor<128x64xf32>} : tensor<128x64xf32>
    %a = onnx.MatMul(%x, %w) : (tensor<?x128xf32, #onnx.dims<"n", "">>, tensor<128x64xf32>) -> tensor<?x64xf32, #onnx.dims<"n", "">>
    %y = onnx.Softmax(%a) : (tensor<?x64xf32, #onnx.dims<"n", "">>) -> tensor<?x64xf32, #onnx.dims<"n", "">>
    func.return %y : tensor<?x64xf32, #onnx.dims<"n", "">>
  }
}