// RUN: gimlet-opt %s --split-input-file -p 'write-out-operators{keep-parts=true}' | filecheck %s

// The operator stays, and names what it computes.

builtin.module attributes {onnx.opsets = {"" = 17 : i64, com.microsoft = 1 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
    %y = onnx.com.microsoft.QuickGelu(%x) {alpha = 2.0} : (tensor<4xf32>) -> tensor<4xf32>
    func.return %y : tensor<4xf32>
  }
}
// CHECK:         %y = onnx.com.microsoft.QuickGelu(%x) {alpha = 2.0, onnx.parts = @parts.QuickGelu.1, onnx.own = unit}
// CHECK:       func.func private @parts.QuickGelu.1
// CHECK:         onnx.Sigmoid

// -----

// An operator that is no large one.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
    %y = onnx.Softmax(%x) {axis = -1} : (tensor<4xf32>) -> tensor<4xf32>
    func.return %y : tensor<4xf32>
  }
}
// CHECK:         %y = onnx.Softmax(%x) {axis = -1} :
// CHECK-NOT:   onnx.own
