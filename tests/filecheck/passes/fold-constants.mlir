// RUN: gimlet-opt %s -p fold-constants | filecheck %s

// What depends on constants, or on sizes that are known, becomes a constant.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%x: tensor<?x4xf32, #onnx.dims<"batch", "">>) -> tensor<2xf32> {
    %shape = onnx.Shape v15(%x) : (tensor<?x4xf32, #onnx.dims<"batch", "">>) -> tensor<2xi64>
    %one = onnx.initializer {value = dense<1> : tensor<i64>} : tensor<i64>
    %four = onnx.Gather v13(%shape, %one) : (tensor<2xi64>, tensor<i64>) -> tensor<i64>
    %f = onnx.Cast v13(%four) {to = 1} : (tensor<i64>) -> tensor<f32>
    %c = onnx.initializer {value = dense<[1.0, 2.0]> : tensor<2xf32>} : tensor<2xf32>
    %y = onnx.Mul v14(%f, %c) : (tensor<f32>, tensor<2xf32>) -> tensor<2xf32>
    func.return %y : tensor<2xf32>
  }
}
// CHECK:       builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
// CHECK-NEXT:    func.func @main(%x: tensor<?x4xf32, #onnx.dims<"batch", "">>) -> tensor<2xf32> {
// CHECK-NEXT:      %y = onnx.initializer {value = dense<[4.000000e+00, 8.000000e+00]> : tensor<2xf32>} : tensor<2xf32>
// CHECK-NEXT:      func.return %y : tensor<2xf32>
// CHECK-NEXT:    }
// CHECK-NEXT:  }
