// RUN: gimlet-opt %s --split-input-file -p canonicalize-onnx | filecheck %s
// RUN: gimlet-opt %s --split-input-file -p canonicalize-onnx,canonicalize-onnx | filecheck %s

// What changes nothing is gone; a constant has one form.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<i64>) {
    %a = onnx.Identity v16(%x) : (tensor<4xf32>) -> tensor<4xf32>
    %b = onnx.Dropout v13(%a) : (tensor<4xf32>) -> tensor<4xf32>
    %c = onnx.Cast v13(%b) {to = 1} : (tensor<4xf32>) -> tensor<4xf32>
    %y = onnx.Relu v14(%c) : (tensor<4xf32>) -> tensor<4xf32>
    %k = onnx.Constant v13 {value_int = 3} : tensor<i64>
    func.return %y, %k : tensor<4xf32>, tensor<i64>
  }
}
// CHECK:       func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<i64>) {
// CHECK-NEXT:    %y = onnx.Relu v14(%x) : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    %k = onnx.initializer {value = dense<3> : tensor<i64>} : tensor<i64>
// CHECK-NEXT:    func.return %y, %k

// -----

// Two transposes are one.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%x: tensor<2x3x4xf32>) -> tensor<4x2x3xf32> {
    %a = onnx.Transpose v13(%x) {perm = [1, 0, 2]} : (tensor<2x3x4xf32>) -> tensor<3x2x4xf32>
    %y = onnx.Transpose v13(%a) {perm = [2, 1, 0]} : (tensor<3x2x4xf32>) -> tensor<4x2x3xf32>
    func.return %y : tensor<4x2x3xf32>
  }
}
// CHECK:         %y = onnx.Transpose v13(%x) {perm = [2, 0, 1]} : (tensor<2x3x4xf32>) -> tensor<4x2x3xf32>

// -----

// A Dropout whose mask is read, and a slice with a step, are left.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> (tensor<4xi1>, tensor<4xf32>) {
    %d, %mask = onnx.Dropout v13(%x) : (tensor<4xf32>) -> (tensor<4xf32>, tensor<4xi1>)
    %last = onnx.initializer {value = dense<3> : tensor<1xi64>} : tensor<1xi64>
    %end = onnx.initializer {value = dense<-9> : tensor<1xi64>} : tensor<1xi64>
    %zero = onnx.initializer {value = dense<0> : tensor<1xi64>} : tensor<1xi64>
    %step = onnx.initializer {value = dense<-1> : tensor<1xi64>} : tensor<1xi64>
    %y = onnx.Slice v13(%x, %last, %end, %zero, %step)
        : (tensor<4xf32>, tensor<1xi64>, tensor<1xi64>, tensor<1xi64>, tensor<1xi64>) -> tensor<4xf32>
    func.return %mask, %y : tensor<4xi1>, tensor<4xf32>
  }
}
// CHECK:         %d, %mask = onnx.Dropout v13(%x)
// CHECK:         %y = onnx.Slice v13(%x, %last, %end, %zero, %step)

// -----

// Range takes scalars.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%start: tensor<f32>, %limit: tensor<1xf32>, %delta: tensor<1xf32>) -> tensor<?xf32, #onnx.dims<"?">> {
    %y = onnx.Range v11(%start, %limit, %delta) : (tensor<f32>, tensor<1xf32>, tensor<1xf32>) -> tensor<?xf32, #onnx.dims<"?">>
    func.return %y : tensor<?xf32, #onnx.dims<"?">>
  }
}
// CHECK:         %0 = onnx.Reshape v14(%limit, %limit_scalar) : (tensor<1xf32>, tensor<0xi64>) -> tensor<f32>
// CHECK:         %1 = onnx.Reshape v14(%delta, %delta_scalar) : (tensor<1xf32>, tensor<0xi64>) -> tensor<f32>
// CHECK:         %y = onnx.Range v11(%start, %0, %1)
