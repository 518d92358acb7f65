// RUN: gimlet-opt %s --split-input-file -p 'fuse-normalization{keep-parts=true},fuse-activations{keep-parts=true},fuse-rotary{keep-parts=true},fuse-attention{keep-parts=true},dce' | filecheck %s --check-prefix=LARGE
// RUN: gimlet-opt %s --split-input-file -p 'fuse-normalization{keep-parts=true},fuse-activations{keep-parts=true},fuse-rotary{keep-parts=true},fuse-attention{keep-parts=true},restore-parts,dce' | filecheck %s

// Equal patterns share a function, and the operator may be newer than the module's opset. Constants are in the function.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
    %factor = onnx.initializer {value = dense<1.5> : tensor<f32>} : tensor<f32>
    %s = onnx.Mul(%x, %factor) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
    %gate = onnx.Sigmoid(%s) : (tensor<4xf32>) -> tensor<4xf32>
    %y = onnx.Mul(%x, %gate) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("first")
    %s2 = onnx.Mul(%y, %factor) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
    %gate2 = onnx.Sigmoid(%s2) : (tensor<4xf32>) -> tensor<4xf32>
    %z = onnx.Mul(%y, %gate2) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("second")
    func.return %z : tensor<4xf32>
  }
}
// LARGE:         %y = onnx.Swish(%x) {alpha = 1.5, onnx.parts = @parts.Swish.1}
// LARGE-NEXT:    %z = onnx.Swish(%y) {alpha = 1.5, onnx.parts = @parts.Swish.1}
// LARGE:       func.func private @parts.Swish.1(%{{.*}}: tensor<4xf32>) -> tensor<4xf32> {
// LARGE-NEXT:    onnx.initializer {value = dense<1.500000e+00>
// LARGE:         onnx.Sigmoid
// CHECK:         onnx.Sigmoid(%{{.*}}) : (tensor<4xf32>) -> tensor<4xf32> loc("first/Sigmoid.2")
// CHECK-NEXT:    %y = onnx.Mul(%x, %{{.*}}) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("first/Mul.3")
// CHECK:         %z = onnx.Mul(%y, %{{.*}}) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("second/Mul.3")

// -----

// Keys lie with their heads behind their length: the parts turn them back from what Attention takes.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%q: tensor<1x2x3x4xf32>, %k: tensor<1x5x2x4xf32>, %v: tensor<1x2x5x4xf32>) -> tensor<1x2x3x4xf32> {
    %t = onnx.Transpose v13(%k) {perm = [0, 2, 3, 1]} : (tensor<1x5x2x4xf32>) -> tensor<1x2x4x5xf32>
    %s = onnx.MatMul(%q, %t) : (tensor<1x2x3x4xf32>, tensor<1x2x4x5xf32>) -> tensor<1x2x3x5xf32>
    %p = onnx.Softmax(%s) {axis = -1} : (tensor<1x2x3x5xf32>) -> tensor<1x2x3x5xf32>
    %y = onnx.MatMul(%p, %v) : (tensor<1x2x3x5xf32>, tensor<1x2x5x4xf32>) -> tensor<1x2x3x4xf32>
    func.return %y : tensor<1x2x3x4xf32>
  }
}
// LARGE:         %y_keys = onnx.Transpose v13(%k) {perm = [0, 2, 1, 3]}
// LARGE-NEXT:    %y = onnx.Attention v23(%q, %y_keys, %v) {scale = 1.0, onnx.parts = @parts.Attention.1}
// CHECK:         %y_keys = onnx.Transpose v13(%k) {perm = [0, 2, 1, 3]}
// CHECK-NEXT:    onnx.Transpose v13(%y_keys) {perm = [0, 1, 3, 2]}
// CHECK-NEXT:    onnx.MatMul(%q, %{{.*}})

// -----

// An operator that the model has itself is left.

builtin.module attributes {onnx.opsets = {"" = 24 : i64}} {
  func.func @main(%x: tensor<2x8xf32>, %scale: tensor<8xf32>) -> tensor<2x8xf32> {
    %y = onnx.RMSNormalization(%x, %scale) : (tensor<2x8xf32>, tensor<8xf32>) -> tensor<2x8xf32>
    func.return %y : tensor<2x8xf32>
  }
}
// LARGE:         %y = onnx.RMSNormalization(%x, %scale) :
// CHECK:         %y = onnx.RMSNormalization(%x, %scale) :

// -----

// In a subgraph an operation is left: the one around it is what targets are asked about.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%c: tensor<i1>, %x: tensor<4xf32>) -> tensor<4xf32> {
    %y = onnx.If v16(%c) else_branch {
      %gate = onnx.Sigmoid(%x) : (tensor<4xf32>) -> tensor<4xf32>
      %z = onnx.Mul(%x, %gate) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
      onnx.yield %z : tensor<4xf32>
    } then_branch {
      onnx.yield %x : tensor<4xf32>
    } : (tensor<i1>) -> tensor<4xf32>
    func.return %y : tensor<4xf32>
  }
}
// LARGE:         onnx.If
// LARGE:         onnx.Sigmoid(%x)
// CHECK:         onnx.If
// CHECK:         onnx.Sigmoid(%x)
