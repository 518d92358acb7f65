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

// -----

// What depends on data may be empty, and so may a dimension whose range begins at 0: neither is known not to be.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}, onnx.dim_bounds = {"n" = array<i64: 1, 8, 100>, "p" = array<i64: 0, 8, 100>}} {
  func.func @main(%x: tensor<?xf32, #onnx.dims<"n">>, %p: tensor<?xf32, #onnx.dims<"p">>) -> (tensor<1xi1>, tensor<1xi1>, tensor<1xi1>) {
    %zero = onnx.initializer {value = dense<0> : tensor<1xi64>} : tensor<1xi64>
    %found = onnx.NonZero v13(%x) : (tensor<?xf32, #onnx.dims<"n">>) -> tensor<1x?xi64, #onnx.dims<"", "?">>
    %count = onnx.Shape v15(%found) {start = 1} : (tensor<1x?xi64, #onnx.dims<"", "?">>) -> tensor<1xi64>
    %none = onnx.Equal v13(%count, %zero) : (tensor<1xi64>, tensor<1xi64>) -> tensor<1xi1>
    %past = onnx.Shape v15(%p) : (tensor<?xf32, #onnx.dims<"p">>) -> tensor<1xi64>
    %first = onnx.Equal v13(%past, %zero) : (tensor<1xi64>, tensor<1xi64>) -> tensor<1xi1>
    %size = onnx.Shape v15(%x) : (tensor<?xf32, #onnx.dims<"n">>) -> tensor<1xi64>
    %empty = onnx.Equal v13(%size, %zero) : (tensor<1xi64>, tensor<1xi64>) -> tensor<1xi1>
    func.return %none, %first, %empty : tensor<1xi1>, tensor<1xi1>, tensor<1xi1>
  }
}
// CHECK:         %none = onnx.Equal v13(%count, %zero)
// CHECK:         %first = onnx.Equal v13(%past, %zero)
// CHECK:         %empty = onnx.initializer {value = dense<false> : tensor<1xi1>}
