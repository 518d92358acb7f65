// RUN: gimlet-opt %s --split-input-file -p outline-segments | filecheck %s
// RUN: gimlet-opt %s --split-input-file -p 'outline-segments{keep-schedule=true}' | filecheck %s --check-prefix=KEEP

// A chain over two devices. Weights are copied to where they are used, names stay, annotations of the place go.

func.func @main(%x: tensor<4xf32>, %unused: tensor<2xi64>) -> tensor<4xf32> {
  %w = onnx.initializer {value = dense<2.0> : tensor<4xf32>} : tensor<4xf32>
  %a = onnx.Mul(%x, %w) {placement.device = @gpu0, placement.format = "bf16"} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %b = onnx.Add(%a, %w) {placement.device = @cpu} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  func.return %b : tensor<4xf32>
}
// CHECK:       placement.segment @s0 on @gpu0 as "bf16" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["a"]} {
// CHECK-NEXT:    %w = onnx.initializer
// CHECK-NEXT:    %a = onnx.Mul(%x, %w) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    placement.yield %a : tensor<4xf32>
// CHECK-NEXT:  }
// CHECK-NEXT:  placement.segment @s1 on @cpu as "fp32" (%a: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["a"], res_names = ["b"]} {
// CHECK-NEXT:    %w = onnx.initializer
// CHECK-NEXT:    %b = onnx.Add(%a, %w) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    placement.yield %b : tensor<4xf32>
// CHECK-NEXT:  }
// CHECK-NEXT:  func.func @main(%x: tensor<4xf32>, %unused: tensor<2xi64>) -> tensor<4xf32> {
// CHECK-NEXT:    %a, %0 = placement.launch async @s0(%x) : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    %b, %1 = placement.launch async @s1(%a) [%0] : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    func.return %b : tensor<4xf32>
// CHECK-NEXT:  }

// -----

// {a1, a2} and {b1, b2} are both convex, and would wait for each other: one of the two is split.

func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %a1 = onnx.Relu(%x) {placement.device = @gpu0} : (tensor<4xf32>) -> tensor<4xf32>
  %b1 = onnx.Exp(%a1) {placement.device = @cpu} : (tensor<4xf32>) -> tensor<4xf32>
  %b2 = onnx.Exp(%x) {placement.device = @cpu} : (tensor<4xf32>) -> tensor<4xf32>
  %a2 = onnx.Relu(%b2) {placement.device = @gpu0} : (tensor<4xf32>) -> tensor<4xf32>
  func.return %b1, %a2 : tensor<4xf32>, tensor<4xf32>
}
// CHECK:       placement.segment @s0 on @gpu0
// CHECK:       placement.segment @s1 on @cpu as "fp32" (%a1: tensor<4xf32>, %x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) attributes {arg_names = ["a1", "x"], res_names = ["b1", "b2"]} {
// CHECK:       placement.segment @s2 on @gpu0
// CHECK:       func.func @main
// CHECK-NEXT:    %a1, %0 = placement.launch async @s0(%x) : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    %b1, %b2, %1 = placement.launch async @s1(%a1, %x) [%0] : (tensor<4xf32>, tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>)
// CHECK-NEXT:    %a2, %2 = placement.launch async @s2(%b2) [%1] : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    func.return %b1, %a2 : tensor<4xf32>, tensor<4xf32>

// With the schedule kept, neither branch waits for the other.
// KEEP:        func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>)
// KEEP-NEXT:     %a1, %0 = placement.launch async @s0(%x) : (tensor<4xf32>) -> tensor<4xf32>
// KEEP-NEXT:     %b1, %1 = placement.launch async @s1(%a1) [%0] : (tensor<4xf32>) -> tensor<4xf32>
// KEEP-NEXT:     %b2, %2 = placement.launch async @s2(%x) : (tensor<4xf32>) -> tensor<4xf32>
// KEEP-NEXT:     %a2, %3 = placement.launch async @s3(%b2) [%2] : (tensor<4xf32>) -> tensor<4xf32>

// -----

// Ops that wait for the same things and are waited for by the same things share a segment either way.

func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %l = onnx.Relu(%x) {placement.device = @gpu0} : (tensor<4xf32>) -> tensor<4xf32>
  %r = onnx.Exp(%x) {placement.device = @gpu0} : (tensor<4xf32>) -> tensor<4xf32>
  %s = onnx.Add(%l, %r) {placement.device = @gpu0} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %y = onnx.Neg(%s) {placement.device = @cpu} : (tensor<4xf32>) -> tensor<4xf32>
  func.return %y : tensor<4xf32>
}
// CHECK:       placement.segment @s0 on @gpu0
// CHECK:       placement.segment @s1 on @cpu
// CHECK-NOT:   placement.segment @s2
// CHECK:       func.func @main
// KEEP:        placement.segment @s0 on @gpu0
// KEEP:        placement.segment @s1 on @cpu
// KEEP-NOT:    placement.segment @s2
// KEEP:        func.func @main

// -----

// Hints keep ops of one device apart, and together while there is no cycle: hint 7 would make one, and is split.

func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %a = onnx.Relu(%x) {placement.device = @gpu0, placement.segment = 1 : i64} : (tensor<4xf32>) -> tensor<4xf32>
  %b = onnx.Exp(%a) {placement.device = @gpu0, placement.segment = 7 : i64} : (tensor<4xf32>) -> tensor<4xf32>
  %c = onnx.Neg(%b) {placement.device = @cpu, placement.segment = 2 : i64} : (tensor<4xf32>) -> tensor<4xf32>
  %d = onnx.Abs(%c) {placement.device = @gpu0, placement.segment = 7 : i64} : (tensor<4xf32>) -> tensor<4xf32>
  %e = onnx.Sin(%b) {placement.device = @gpu0, placement.segment = 7 : i64} : (tensor<4xf32>) -> tensor<4xf32>
  func.return %d, %e : tensor<4xf32>, tensor<4xf32>
}
// CHECK:       placement.segment @s0 on @gpu0 {{.*}} res_names = ["a"]
// CHECK:       placement.segment @s1 on @gpu0 {{.*}} res_names = ["b", "e"]
// CHECK:       placement.segment @s2 on @cpu {{.*}} res_names = ["c"]
// CHECK:       placement.segment @s3 on @gpu0 {{.*}} res_names = ["d"]

// -----

// What a branch captures is an input of the segment, and a constant that it captures is copied.

func.func @main(%p: tensor<i1>, %x: tensor<4xf32>) -> tensor<4xf32> {
  %w = onnx.initializer {value = dense<2.0> : tensor<4xf32>} : tensor<4xf32>
  %a = onnx.Relu(%x) {placement.device = @gpu0} : (tensor<4xf32>) -> tensor<4xf32>
  %y = onnx.If(%p) then_branch {
    %t = onnx.Mul(%a, %w) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    onnx.yield %t : tensor<4xf32>
  } else_branch {
    onnx.yield %x : tensor<4xf32>
  } {placement.device = @cpu} : (tensor<i1>) -> tensor<4xf32>
  func.return %y : tensor<4xf32>
}
// CHECK:       placement.segment @s1 on @cpu as "fp32" (%p: tensor<i1>, %x: tensor<4xf32>, %a: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["p", "x", "a"], res_names = ["y"]} {
// CHECK-NEXT:    %w = onnx.initializer
// CHECK:         onnx.yield %x
// CHECK:         onnx.Mul(%a, %w)
// CHECK:       placement.launch async @s1(%p, %x, %a)

// -----

// Inputs that are outputs stay in @main; constants that are outputs come from the host.

placement.topology @rack {
  placement.device @gpu0 {kind = "example/gpu"}
  placement.device @box {kind = "host"}
}
func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<2xf32>, tensor<2xf32>, tensor<4xf32>) {
  %c = onnx.initializer {value = dense<3.0> : tensor<2xf32>} : tensor<2xf32>
  %y = onnx.Relu(%x) {placement.device = @gpu0} : (tensor<4xf32>) -> tensor<4xf32>
  func.return %x, %c, %c, %y : tensor<4xf32>, tensor<2xf32>, tensor<2xf32>, tensor<4xf32>
}
// CHECK:       placement.segment @s0 on @gpu0
// CHECK:       placement.segment @s1 on @box as "fp32" () -> tensor<2xf32> attributes {arg_names = [], res_names = ["c"]} {
// CHECK-NEXT:    %c = onnx.initializer
// CHECK-NEXT:    placement.yield %c : tensor<2xf32>
// CHECK:         %y, %0 = placement.launch async @s0(%x)
// CHECK-NEXT:    %c, %1 = placement.launch async @s1() : () -> tensor<2xf32>
// CHECK-NEXT:    func.return %x, %c, %c, %y

// -----

// A function without ops is split into nothing.

func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  func.return %x : tensor<4xf32>
}
// CHECK:       builtin.module {
// CHECK-NEXT:    func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
// CHECK-NEXT:      func.return %x : tensor<4xf32>

// -----

// Settings go with the segment, and other settings make another segment.

func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %a = onnx.Relu(%x) {placement.device = @cpu, placement.settings = {threads = 1 : i64}} : (tensor<4xf32>) -> tensor<4xf32>
  %b = onnx.Exp(%a) {placement.device = @cpu} : (tensor<4xf32>) -> tensor<4xf32>
  func.return %b : tensor<4xf32>
}
// CHECK:       placement.segment @s0 on @cpu as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["a"], placement.settings = {threads = 1 : i64}} {
// CHECK-NEXT:    %a = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>
// CHECK:       placement.segment @s1 on @cpu as "fp32" (%a: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["a"], res_names = ["b"]} {

// -----

// Targets of one device share no segment.

func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %a = onnx.Relu(%x) {placement.device = @cpu, placement.target = "onnxruntime"} : (tensor<4xf32>) -> tensor<4xf32>
  %b = onnx.Exp(%a) {placement.device = @cpu} : (tensor<4xf32>) -> tensor<4xf32>
  func.return %b : tensor<4xf32>
}
// CHECK:       placement.segment @s0 on @cpu as "fp32" by "onnxruntime" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["a"]} {
// CHECK-NEXT:    %a = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>
// CHECK:       placement.segment @s1 on @cpu as "fp32" (%a: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["a"], res_names = ["b"]} {
