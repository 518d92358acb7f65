// RUN: gimlet-opt %s --split-input-file -p fuse-attention,dce | filecheck %s

// Keys lie with their heads behind their length: they are turned; no scale is a scale of one.

builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
  func.func @main(%q: tensor<1x2x3x4xf32>, %k: tensor<1x5x2x4xf32>, %v: tensor<1x2x5x4xf32>,
                  %mask: tensor<3x5xf32>) -> tensor<1x2x3x4xf32> {
    %t = onnx.Transpose(%k) {perm = [0, 2, 3, 1]} : (tensor<1x5x2x4xf32>) -> tensor<1x2x4x5xf32>
    %s = onnx.MatMul(%q, %t) : (tensor<1x2x3x4xf32>, tensor<1x2x4x5xf32>) -> tensor<1x2x3x5xf32>
    %masked = onnx.Add(%mask, %s) : (tensor<3x5xf32>, tensor<1x2x3x5xf32>) -> tensor<1x2x3x5xf32>
    %p = onnx.Softmax(%masked) {axis = -1} : (tensor<1x2x3x5xf32>) -> tensor<1x2x3x5xf32>
    %y = onnx.MatMul(%p, %v) : (tensor<1x2x3x5xf32>, tensor<1x2x5x4xf32>) -> tensor<1x2x3x4xf32>
    func.return %y : tensor<1x2x3x4xf32>
  }
}
// CHECK:         %y_keys = onnx.Transpose(%k) {perm = [0, 2, 1, 3]} : (tensor<1x5x2x4xf32>) -> tensor<1x2x5x4xf32>
// CHECK-NEXT:    %y = onnx.Attention(%q, %y_keys, %v, %mask) {scale = 1.0}

// -----

// A mask that is the same for all queries.

builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
  func.func @main(%q: tensor<1x2x3x4xf32>, %k: tensor<1x5x2x4xf32>, %v: tensor<1x2x5x4xf32>,
                  %mask: tensor<1x1x1x5xf32>) -> tensor<1x2x3x4xf32> {
    %t = onnx.Transpose(%k) {perm = [0, 2, 3, 1]} : (tensor<1x5x2x4xf32>) -> tensor<1x2x4x5xf32>
    %s = onnx.MatMul(%q, %t) : (tensor<1x2x3x4xf32>, tensor<1x2x4x5xf32>) -> tensor<1x2x3x5xf32>
    %masked = onnx.Add(%mask, %s) : (tensor<1x1x1x5xf32>, tensor<1x2x3x5xf32>) -> tensor<1x2x3x5xf32>
    %p = onnx.Softmax(%masked) {axis = -1} : (tensor<1x2x3x5xf32>) -> tensor<1x2x3x5xf32>
    %y = onnx.MatMul(%p, %v) : (tensor<1x2x3x5xf32>, tensor<1x2x5x4xf32>) -> tensor<1x2x3x4xf32>
    func.return %y : tensor<1x2x3x4xf32>
  }
}
// CHECK:         onnx.Softmax

// -----

// A softmax over the queries.

builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
  func.func @main(%q: tensor<1x2x3x4xf32>, %k: tensor<1x5x2x4xf32>, %v: tensor<1x2x5x4xf32>,
                  %mask: tensor<3x5xf32>) -> tensor<1x2x3x4xf32> {
    %t = onnx.Transpose(%k) {perm = [0, 2, 3, 1]} : (tensor<1x5x2x4xf32>) -> tensor<1x2x4x5xf32>
    %s = onnx.MatMul(%q, %t) : (tensor<1x2x3x4xf32>, tensor<1x2x4x5xf32>) -> tensor<1x2x3x5xf32>
    %masked = onnx.Add(%mask, %s) : (tensor<3x5xf32>, tensor<1x2x3x5xf32>) -> tensor<1x2x3x5xf32>
    %p = onnx.Softmax(%masked) {axis = 2} : (tensor<1x2x3x5xf32>) -> tensor<1x2x3x5xf32>
    %y = onnx.MatMul(%p, %v) : (tensor<1x2x3x5xf32>, tensor<1x2x5x4xf32>) -> tensor<1x2x3x4xf32>
    func.return %y : tensor<1x2x3x4xf32>
  }
}
// CHECK:         onnx.Softmax

// -----

// Opset 22 has no Attention.

builtin.module attributes {onnx.opsets = {"" = 22 : i64}} {
  func.func @main(%q: tensor<1x2x3x4xf32>, %k: tensor<1x5x2x4xf32>, %v: tensor<1x2x5x4xf32>,
                  %mask: tensor<3x5xf32>) -> tensor<1x2x3x4xf32> {
    %t = onnx.Transpose v21(%k) {perm = [0, 2, 3, 1]} : (tensor<1x5x2x4xf32>) -> tensor<1x2x4x5xf32>
    %s = onnx.MatMul(%q, %t) : (tensor<1x2x3x4xf32>, tensor<1x2x4x5xf32>) -> tensor<1x2x3x5xf32>
    %masked = onnx.Add(%mask, %s) : (tensor<3x5xf32>, tensor<1x2x3x5xf32>) -> tensor<1x2x3x5xf32>
    %p = onnx.Softmax(%masked) {axis = -1} : (tensor<1x2x3x5xf32>) -> tensor<1x2x3x5xf32>
    %y = onnx.MatMul(%p, %v) : (tensor<1x2x3x5xf32>, tensor<1x2x5x4xf32>) -> tensor<1x2x3x4xf32>
    func.return %y : tensor<1x2x3x4xf32>
  }
}
// CHECK:         onnx.Softmax
