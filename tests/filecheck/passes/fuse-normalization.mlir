// RUN: gimlet-opt %s --split-input-file -p fuse-normalization,dce | filecheck %s

// Without a bias.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%x: tensor<8x8xf32>, %scale: tensor<8xf32>) -> tensor<8x8xf32> {
    %two = onnx.initializer {value = dense<2.0> : tensor<f32>} : tensor<f32>
    %eps = onnx.initializer {value = dense<1.0e-05> : tensor<f32>} : tensor<f32>
    %mean = onnx.ReduceMean v13(%x) {axes = [-1]} : (tensor<8x8xf32>) -> tensor<8x1xf32>
    %c = onnx.Sub(%x, %mean) : (tensor<8x8xf32>, tensor<8x1xf32>) -> tensor<8x8xf32>
    %sq = onnx.Pow(%c, %two) : (tensor<8x8xf32>, tensor<f32>) -> tensor<8x8xf32>
    %var = onnx.ReduceMean v13(%sq) {axes = [-1]} : (tensor<8x8xf32>) -> tensor<8x1xf32>
    %sum = onnx.Add(%var, %eps) : (tensor<8x1xf32>, tensor<f32>) -> tensor<8x1xf32>
    %dev = onnx.Sqrt(%sum) : (tensor<8x1xf32>) -> tensor<8x1xf32>
    %div = onnx.Div(%c, %dev) : (tensor<8x8xf32>, tensor<8x1xf32>) -> tensor<8x8xf32>
    %y = onnx.Mul(%div, %scale) : (tensor<8x8xf32>, tensor<8xf32>) -> tensor<8x8xf32>
    func.return %y : tensor<8x8xf32>
  }
}
// CHECK:       func.func @main(%x: tensor<8x8xf32>, %scale: tensor<8xf32>) -> tensor<8x8xf32> {
// CHECK-NEXT:    %y = onnx.LayerNormalization(%x, %scale) {axis = -1, epsilon = 1.0e-05}
// CHECK-NEXT:    func.return %y

// -----

// Over the first axis.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%x: tensor<8x8xf32>, %scale: tensor<8xf32>) -> tensor<8x8xf32> {
    %two = onnx.initializer {value = dense<2.0> : tensor<f32>} : tensor<f32>
    %eps = onnx.initializer {value = dense<1.0e-05> : tensor<f32>} : tensor<f32>
    %mean = onnx.ReduceMean v13(%x) {axes = [0]} : (tensor<8x8xf32>) -> tensor<1x8xf32>
    %c = onnx.Sub(%x, %mean) : (tensor<8x8xf32>, tensor<1x8xf32>) -> tensor<8x8xf32>
    %sq = onnx.Pow(%c, %two) : (tensor<8x8xf32>, tensor<f32>) -> tensor<8x8xf32>
    %var = onnx.ReduceMean v13(%sq) {axes = [0]} : (tensor<8x8xf32>) -> tensor<1x8xf32>
    %sum = onnx.Add(%var, %eps) : (tensor<1x8xf32>, tensor<f32>) -> tensor<1x8xf32>
    %dev = onnx.Sqrt(%sum) : (tensor<1x8xf32>) -> tensor<1x8xf32>
    %div = onnx.Div(%c, %dev) : (tensor<8x8xf32>, tensor<1x8xf32>) -> tensor<8x8xf32>
    %y = onnx.Mul(%div, %scale) : (tensor<8x8xf32>, tensor<8xf32>) -> tensor<8x8xf32>
    func.return %y : tensor<8x8xf32>
  }
}
// CHECK:         onnx.Sqrt
// CHECK:         onnx.Mul

// -----

// What has another shape than the axes is no scale: the norm has ones, and it is multiplied behind.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%x: tensor<8x8xf32>, %scale: tensor<8x1xf32>) -> tensor<8x8xf32> {
    %two = onnx.initializer {value = dense<2.0> : tensor<f32>} : tensor<f32>
    %eps = onnx.initializer {value = dense<1.0e-05> : tensor<f32>} : tensor<f32>
    %mean = onnx.ReduceMean v13(%x) {axes = [-1]} : (tensor<8x8xf32>) -> tensor<8x1xf32>
    %c = onnx.Sub(%x, %mean) : (tensor<8x8xf32>, tensor<8x1xf32>) -> tensor<8x8xf32>
    %sq = onnx.Pow(%c, %two) : (tensor<8x8xf32>, tensor<f32>) -> tensor<8x8xf32>
    %var = onnx.ReduceMean v13(%sq) {axes = [-1]} : (tensor<8x8xf32>) -> tensor<8x1xf32>
    %sum = onnx.Add(%var, %eps) : (tensor<8x1xf32>, tensor<f32>) -> tensor<8x1xf32>
    %dev = onnx.Sqrt(%sum) : (tensor<8x1xf32>) -> tensor<8x1xf32>
    %div = onnx.Div(%c, %dev) : (tensor<8x8xf32>, tensor<8x1xf32>) -> tensor<8x8xf32>
    %y = onnx.Mul(%div, %scale) : (tensor<8x8xf32>, tensor<8x1xf32>) -> tensor<8x8xf32>
    func.return %y : tensor<8x8xf32>
  }
}
// CHECK:         onnx.LayerNormalization(%x, %div_scale) {axis = -1, epsilon = 1.0e-05}
// CHECK:         onnx.Mul(%div, %scale)

// -----

// A root mean square, over a dynamic number of rows. The bias is added behind.

builtin.module attributes {onnx.opsets = {"" = 23 : i64}} {
  func.func @main(%x: tensor<?x8xf32, #onnx.dims<"n", "">>, %scale: tensor<8xf32>)
      -> tensor<?x8xf32, #onnx.dims<"n", "">> {
    %axes = onnx.initializer {value = dense<1> : tensor<1xi64>} : tensor<1xi64>
    %eps = onnx.initializer {value = dense<1.0e-05> : tensor<f32>} : tensor<f32>
    %sq = onnx.Mul(%x, %x) : (tensor<?x8xf32, #onnx.dims<"n", "">>, tensor<?x8xf32, #onnx.dims<"n", "">>)
        -> tensor<?x8xf32, #onnx.dims<"n", "">>
    %mean = onnx.ReduceMean(%sq, %axes) : (tensor<?x8xf32, #onnx.dims<"n", "">>, tensor<1xi64>)
        -> tensor<?x1xf32, #onnx.dims<"n", "">>
    %sum = onnx.Add(%mean, %eps) : (tensor<?x1xf32, #onnx.dims<"n", "">>, tensor<f32>)
        -> tensor<?x1xf32, #onnx.dims<"n", "">>
    %root = onnx.Sqrt(%sum) : (tensor<?x1xf32, #onnx.dims<"n", "">>) -> tensor<?x1xf32, #onnx.dims<"n", "">>
    %inv = onnx.Reciprocal(%root) : (tensor<?x1xf32, #onnx.dims<"n", "">>) -> tensor<?x1xf32, #onnx.dims<"n", "">>
    %unit = onnx.Mul(%x, %inv) : (tensor<?x8xf32, #onnx.dims<"n", "">>, tensor<?x1xf32, #onnx.dims<"n", "">>)
        -> tensor<?x8xf32, #onnx.dims<"n", "">>
    %y = onnx.Mul(%scale, %unit) : (tensor<8xf32>, tensor<?x8xf32, #onnx.dims<"n", "">>)
        -> tensor<?x8xf32, #onnx.dims<"n", "">>
    func.return %y : tensor<?x8xf32, #onnx.dims<"n", "">>
  }
}
// CHECK-NOT:     onnx.Sqrt
// CHECK:         %y = onnx.RMSNormalization(%x, %scale) {axis = -1, epsilon = 1.0e-05}
