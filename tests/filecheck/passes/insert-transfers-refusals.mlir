// RUN: gimlet-opt %s --split-input-file --verify-diagnostics -p insert-transfers | filecheck %s

// CHECK: the module has no placement.topology: there is nothing to find a route in
func.func @main() {
  func.return
}

// -----

// CHECK: onnx.Relu is in no segment: run outline-segments first
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.device @gpu1 {kind = "example/gpu"}
  placement.link @slow between @gpu0, @cpu {kind = "pcie4x16"}
  placement.link @fast between @cpu, @gpu0 {kind = "pcie5x16"}
  placement.link @other between @cpu, @gpu1 {kind = "pcie5x16"}
}
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %y = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>
  func.return %y : tensor<4xf32>
}

// -----

// CHECK: placement.launch needs a value on @gpu0 that is on @cpu, and the links of topology @rack do not join the two: add a link
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
}
placement.segment @s0 on @gpu0 as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  %y = "test.op"(%x) : (tensor<4xf32>) -> (tensor<4xf32>)
  placement.yield %y : tensor<4xf32>
}
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %y, %0 = placement.launch async @s0(%x) : (tensor<4xf32>) -> tensor<4xf32>
  func.return %y : tensor<4xf32>
}
