// RUN: gimlet-opt %s --split-input-file -p annotate-costs | filecheck %s

// Expressions over the symbolic dimensions: 2·M·N·K operations, and a weight counts as read and as resident.
// CHECK-LABEL: @matmul
// CHECK: onnx.MatMul(%x, %w) {placement.cost = #placement.cost<flops = "1280*batch", bytes_read = "256*batch + 2560", bytes_written = "40*batch", weight_bytes = "2560">}
func.func @matmul(%x: tensor<?x64xf32, #onnx.dims<"batch", "">>) -> tensor<?x10xf32, #onnx.dims<"batch", "">> {
  %w = onnx.initializer {key = "w"} : tensor<64x10xf32>
  %y = onnx.MatMul(%x, %w) : (tensor<?x64xf32, #onnx.dims<"batch", "">>, tensor<64x10xf32>) -> tensor<?x10xf32, #onnx.dims<"batch", "">>
  func.return %y : tensor<?x10xf32, #onnx.dims<"batch", "">>
}

// -----

// Of a table only the rows that are asked for are read, but all of it is resident.
// CHECK-LABEL: @gather
// CHECK: onnx.initializer {key = "table"} : tensor<1000x16xf32>
// CHECK: onnx.Gather
// CHECK-SAME: flops = "0", bytes_read = "216", bytes_written = "192", weight_bytes = "64000"
func.func @gather(%i: tensor<3xi64>) -> tensor<3x16xf32> {
  %t = onnx.initializer {key = "table"} : tensor<1000x16xf32>
  %y = onnx.Gather(%t, %i) : (tensor<1000x16xf32>, tensor<3xi64>) -> tensor<3x16xf32>
  func.return %y : tensor<3x16xf32>
}

// -----

// A view moves nothing.
// CHECK-LABEL: @view
// CHECK: onnx.Reshape
// CHECK-SAME: flops = "0", bytes_read = "0", bytes_written = "0", weight_bytes = "0"
func.func @view(%x: tensor<4x4xf32>) -> tensor<16xf32> {
  %s = onnx.initializer {value = dense<16> : tensor<1xi64>} : tensor<1xi64>
  %y = onnx.Reshape(%x, %s) : (tensor<4x4xf32>, tensor<1xi64>) -> tensor<16xf32>
  func.return %y : tensor<16xf32>
}

// -----

// An unknown shape has no figure, and a figure from before is taken away.
// CHECK-LABEL: @unknown
// CHECK: onnx.NonZero(%x) : (tensor<4xf32>) -> tensor<1x?xi64>
func.func @unknown(%x: tensor<4xf32>) -> tensor<1x?xi64> {
  %y = onnx.NonZero(%x) {placement.cost = #placement.cost<flops = "1", bytes_read = "1", bytes_written = "1", weight_bytes = "0">} : (tensor<4xf32>) -> tensor<1x?xi64>
  func.return %y : tensor<1x?xi64>
}

// -----

// The branches of an If count in the If, as the larger of the two, and have no figures of their own.
// CHECK-LABEL: @branches
// CHECK: onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>
// CHECK: onnx.Exp(%x) : (tensor<4xf32>) -> tensor<4xf32>
// CHECK: flops = "32", bytes_read = "16", bytes_written = "16", weight_bytes = "0"
func.func @branches(%c: tensor<i1>, %x: tensor<4xf32>) -> tensor<4xf32> {
  %y = onnx.If(%c) else_branch {
    %a = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>
    onnx.yield %a : tensor<4xf32>
  } then_branch {
    %b = onnx.Exp(%x) : (tensor<4xf32>) -> tensor<4xf32>
    onnx.yield %b : tensor<4xf32>
  } : (tensor<i1>) -> tensor<4xf32>
  func.return %y : tensor<4xf32>
}
