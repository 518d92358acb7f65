// RUN: gimlet-opt %s --split-input-file --verify-diagnostics -p outline-segments | filecheck %s

// CHECK: onnx.Relu '/act/Relu' has no placement.device: run place-by-cost first
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %y = "onnx.Relu"(%x) : (tensor<4xf32>) -> tensor<4xf32> loc("/act/Relu")
  func.return %y : tensor<4xf32>
}

// -----

// CHECK: onnx.Relu is placed on group @pair: programs for groups are not made yet, name a device
placement.topology @rack {
  placement.device @gpu0 {kind = "example/gpu"}
  placement.device @gpu1 {kind = "example/gpu"}
  placement.group @pair [@gpu0, @gpu1] {mesh = array<i64: 2>}
}
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %y = onnx.Relu(%x) {placement.device = @pair} : (tensor<4xf32>) -> tensor<4xf32>
  func.return %y : tensor<4xf32>
}

// -----

// CHECK: onnx.Relu is placed on @gpu9, which topology @rack does not have
placement.topology @rack {
  placement.device @gpu0 {kind = "example/gpu"}
}
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %y = onnx.Relu(%x) {placement.device = @gpu9} : (tensor<4xf32>) -> tensor<4xf32>
  func.return %y : tensor<4xf32>
}

// -----

// CHECK: the module has several topologies (@a, @b): keep the one to compile for
placement.topology @a {
  placement.device @cpu {kind = "host"}
}
placement.topology @b {
  placement.device @cpu {kind = "host"}
}
func.func @main() {
  func.return
}

// -----

// CHECK: @main is split into segments already: it has a placement.launch
placement.segment @s0 on @cpu as "fp32" () attributes {arg_names = [], res_names = []} {
  placement.yield
}
func.func @main() {
  %0 = placement.launch async @s0() : () -> ()
  func.return
}

// -----

// CHECK: the module has no func.func @main of one block
func.func private @main() -> ()

// -----

// CHECK: func.func @main does not end with func.return
func.func @main() {
  "test.termop"() : () -> ()
}
