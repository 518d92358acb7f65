// RUN: gimlet-opt %s --split-input-file -p unroll-loops | filecheck %s

// A condition that is computed from constants is known; what was the number of a turn is a constant.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
    %most = onnx.initializer {value = dense<100> : tensor<i64>} : tensor<i64>
    %go = onnx.initializer {value = dense<true> : tensor<i1>} : tensor<i1>
    %end = onnx.initializer {value = dense<1> : tensor<i64>} : tensor<i64>
    %y = onnx.Loop v16(%most, %go, %x) body {
    ^bb0(%i: tensor<i64>, %more: tensor<i1>, %a: tensor<4xf32>):
      %n = onnx.Cast v13(%i) {to = 1} : (tensor<i64>) -> tensor<f32>
      %b = onnx.Add v14(%a, %n) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32> loc("add")
      %goes = onnx.Less v13(%i, %end) : (tensor<i64>, tensor<i64>) -> tensor<i1>
      onnx.yield %goes, %b : tensor<i1>, tensor<4xf32>
    } : (tensor<i64>, tensor<i1>, tensor<4xf32>) -> tensor<4xf32> loc("steps")
    func.return %y : tensor<4xf32>
  }
}
// CHECK:         %[[N0:.*]] = onnx.initializer {value = dense<0.000000e+00> : tensor<f32>} : tensor<f32>
// CHECK-NEXT:    %[[B0:.*]] = onnx.Add v14(%x, %[[N0]]) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32> loc("steps/0/add")
// CHECK-NEXT:    %[[N1:.*]] = onnx.initializer {value = dense<1.000000e+00> : tensor<f32>} : tensor<f32>
// CHECK-NEXT:    %y = onnx.Add v14(%[[B0]], %[[N1]]) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32> loc("steps/1/add")
// CHECK-NEXT:    func.return %y : tensor<4xf32>

// -----

// A condition that depends on what the model is given is not.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%x: tensor<i64>) -> tensor<i64> {
    %most = onnx.initializer {value = dense<100> : tensor<i64>} : tensor<i64>
    %go = onnx.initializer {value = dense<true> : tensor<i1>} : tensor<i1>
    %y = onnx.Loop v16(%most, %go, %x) body {
    ^bb0(%i: tensor<i64>, %more: tensor<i1>, %a: tensor<i64>):
      %b = onnx.Add v14(%a, %i) : (tensor<i64>, tensor<i64>) -> tensor<i64>
      %goes = onnx.Less v13(%b, %most) : (tensor<i64>, tensor<i64>) -> tensor<i1>
      onnx.yield %goes, %b : tensor<i1>, tensor<i64>
    } : (tensor<i64>, tensor<i1>, tensor<i64>) -> tensor<i64>
    func.return %y : tensor<i64>
  }
}
// CHECK:         onnx.Loop v16(%most, %go, %x) body {
