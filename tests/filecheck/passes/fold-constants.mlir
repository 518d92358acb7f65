// RUN: gimlet-opt %s --split-input-file -p fold-constants | filecheck %s
// RUN: gimlet-opt %s --split-input-file -p 'fold-constants{max-bytes=8}' | filecheck %s --check-prefix=SMALL

// Constants are computed up to the limit.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main() -> tensor<4xf32> {
    %a = onnx.initializer {value = dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4xf32>} : tensor<4xf32>
    %b = onnx.initializer {value = dense<2.0> : tensor<f32>} : tensor<f32>
    %y = onnx.Mul v14(%a, %b) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
    func.return %y : tensor<4xf32>
  }
}
// CHECK:       func.func @main() -> tensor<4xf32> {
// CHECK-NEXT:    %y = onnx.initializer {value = dense<[2.000000e+00, 4.000000e+00, 6.000000e+00, 8.000000e+00]> : tensor<4xf32>} : tensor<4xf32>
// CHECK-NEXT:    func.return %y : tensor<4xf32>
// SMALL:         onnx.Mul v14(%a, %b)

// -----

// The part of a shape that is known is a constant; the part that is not stays.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%x: tensor<?x4xf32, #onnx.dims<"batch", "">>) -> (tensor<1xi64>, tensor<1xi64>) {
    %known = onnx.Shape v15(%x) {start = 1} : (tensor<?x4xf32, #onnx.dims<"batch", "">>) -> tensor<1xi64>
    %open = onnx.Shape v15(%x) {end = 1} : (tensor<?x4xf32, #onnx.dims<"batch", "">>) -> tensor<1xi64>
    func.return %known, %open : tensor<1xi64>, tensor<1xi64>
  }
}
// CHECK:         %known = onnx.initializer {value = dense<4> : tensor<1xi64>} : tensor<1xi64>
// CHECK-NEXT:    %open = onnx.Shape v15(%x) {end = 1}
// SMALL:         %known = onnx.initializer {value = dense<4> : tensor<1xi64>} : tensor<1xi64>
