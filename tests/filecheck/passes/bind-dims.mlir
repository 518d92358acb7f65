// RUN: gimlet-opt %s --split-input-file -p 'bind-dims{names="batch" sizes=4}' | filecheck %s

// A dimension becomes its size in every type, expressions of it are simplified, and its range goes.

builtin.module attributes {onnx.dim_bounds = {batch = array<i64: 1, 4, 8>, width = array<i64: 8, 16, 32>}} {
  func.func @main(%x: tensor<?x?xf32, #onnx.dims<"batch", "width">>) -> tensor<?xf32, #onnx.dims<"batch*width">> {
    %shape = onnx.initializer {value = dense<-1> : tensor<1xi64>} : tensor<1xi64>
    %y = onnx.Reshape(%x, %shape) : (tensor<?x?xf32, #onnx.dims<"batch", "width">>, tensor<1xi64>) -> tensor<?xf32, #onnx.dims<"batch*width">>
    func.return %y : tensor<?xf32, #onnx.dims<"batch*width">>
  }
}
// CHECK:       builtin.module attributes {onnx.dim_bounds = {width = array<i64: 8, 16, 32>}} {
// CHECK-NEXT:    func.func @main(%x: tensor<4x?xf32, #onnx.dims<"", "width">>) -> tensor<?xf32, #onnx.dims<"4*width">> {
// CHECK:         %y = onnx.Reshape(%x, %shape) : (tensor<4x?xf32, #onnx.dims<"", "width">>, tensor<1xi64>) -> tensor<?xf32, #onnx.dims<"4*width">>
// CHECK-NEXT:    func.return %y : tensor<?xf32, #onnx.dims<"4*width">>

// -----

// Without the last dynamic dimension, a type has no encoding left. Sequences of tensors are rewritten inside.

func.func @main(%x: tensor<?xf32, #onnx.dims<"2*batch">>, %s: !onnx.seq<tensor<?xi64, #onnx.dims<"batch">>>) -> tensor<?xf32, #onnx.dims<"2*batch">> {
  func.return %x : tensor<?xf32, #onnx.dims<"2*batch">>
}
// CHECK:       func.func @main(%x: tensor<8xf32>, %s: !onnx.seq<tensor<4xi64>>) -> tensor<8xf32> {
// CHECK-NEXT:    func.return %x : tensor<8xf32>
