// RUN: gimlet-opt %s --split-input-file -p place-by-cost | filecheck %s
// RUN: gimlet-opt %s --split-input-file -p 'place-by-cost{pins="^Exp$=box"}' | filecheck %s --check-prefix=PIN
// RUN: gimlet-opt %s --split-input-file -p 'place-by-cost{pins="Relu|Exp=box","Exp=cpu"}' | filecheck %s --check-prefix=LATER

// One device is best for everything; a constant is not placed. What is before a pinned op goes along where that is
// cheaper than a launch of its own; of two pins on one op the later holds.

placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @box {kind = "host"}
  placement.link @net between @cpu, @box {kind = "ethernet-400g"}
}
func.func @main(%x: tensor<64x512xf32>) -> tensor<64x512xf32> {
  %w = onnx.initializer {value = dense<2.0> : tensor<512x512xf32>} : tensor<512x512xf32>
  %a = onnx.MatMul(%x, %w) : (tensor<64x512xf32>, tensor<512x512xf32>) -> tensor<64x512xf32>
  %b = onnx.Relu(%a) : (tensor<64x512xf32>) -> tensor<64x512xf32>
  %c = onnx.Exp(%b) : (tensor<64x512xf32>) -> tensor<64x512xf32>
  func.return %c : tensor<64x512xf32>
}
// CHECK:       %w = onnx.initializer {value = dense<2.000000e+00> : tensor<512x512xf32>} : tensor<512x512xf32>
// CHECK-NEXT:  %a = onnx.MatMul(%x, %w) {placement.device = @cpu, placement.format = "fp32", placement.segment = 0 : i64}
// CHECK-NEXT:  %b = onnx.Relu(%a) {placement.device = @cpu, placement.format = "fp32", placement.segment = 0 : i64}
// CHECK-NEXT:  %c = onnx.Exp(%b) {placement.device = @cpu, placement.format = "fp32", placement.segment = 0 : i64}

// PIN:         onnx.MatMul{{.*}}placement.device = @box
// PIN:         onnx.Exp{{.*}}placement.device = @box

// LATER:       onnx.Relu{{.*}}placement.device = @box, placement.format = "fp32", placement.segment = 0
// LATER-NEXT:  onnx.Exp{{.*}}placement.device = @cpu, placement.format = "fp32", placement.segment = 1

// -----

// An op with subgraphs is one unit: what is inside is not placed by itself.

placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @box {kind = "host"}
  placement.link @net between @cpu, @box {kind = "ethernet-400g"}
}
func.func @main(%x: tensor<4xf32>, %c: tensor<i1>) -> tensor<4xf32> {
  %r = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %y = onnx.If(%c) else_branch {
    %a = onnx.Exp(%r) : (tensor<4xf32>) -> tensor<4xf32>
    onnx.yield %a : tensor<4xf32>
  } then_branch {
    onnx.yield %r : tensor<4xf32>
  } : (tensor<i1>) -> tensor<4xf32>
  %z = onnx.Exp(%y) : (tensor<4xf32>) -> tensor<4xf32>
  func.return %z : tensor<4xf32>
}
// CHECK-LABEL: func.func @main(%x: tensor<4xf32>, %c: tensor<i1>)
// CHECK:         %y = onnx.If(%c) else_branch {
// CHECK-NEXT:      %a = onnx.Exp(%r) : (tensor<4xf32>)
// CHECK:         } {placement.device = @cpu, placement.format = "fp32", placement.segment = 0 : i64}
// CHECK-NEXT:    %z = onnx.Exp(%y) {placement.device = @cpu
