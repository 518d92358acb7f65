// RUN: gimlet-opt %s --split-input-file -p 'upgrade-opset{to=23}' | filecheck %s

// Versions change, and axes become an input. Other domains are as they were.

builtin.module attributes {onnx.opsets = {"" = 17 : i64, com.microsoft = 1 : i64}} {
  func.func @main(%x: tensor<4x8xf32>) -> tensor<4xf32> {
    %a = onnx.com.microsoft.FastGelu(%x) : (tensor<4x8xf32>) -> tensor<4x8xf32>
    %b = onnx.Cast v13(%a) {to = 1} : (tensor<4x8xf32>) -> tensor<4x8xf32>
    %y = onnx.ReduceMax v13(%b) {axes = [1], keepdims = 0} : (tensor<4x8xf32>) -> tensor<4xf32>
    func.return %y : tensor<4xf32>
  }
}
// CHECK:       builtin.module attributes {onnx.opsets = {"" = 23 : i64, com.microsoft = 1 : i64}} {
// CHECK:         %a = onnx.com.microsoft.FastGelu(%x)
// CHECK-NEXT:    %b = onnx.Cast v23(%a) {to = 1}
// CHECK-NEXT:    %axes = onnx.initializer {value = dense<1> : tensor<1xi64>} : tensor<1xi64>
// CHECK-NEXT:    %y = onnx.ReduceMax(%b, %axes) {keepdims = 0}

// -----

// A newer model stays as it is.

builtin.module attributes {onnx.opsets = {"" = 24 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
    %y = onnx.Cast v24(%x) {to = 1} : (tensor<4xf32>) -> tensor<4xf32>
    func.return %y : tensor<4xf32>
  }
}
// CHECK:       builtin.module attributes {onnx.opsets = {"" = 24 : i64}} {
