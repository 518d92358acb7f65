// RUN: gimlet-opt %s --split-input-file -p insert-transfers | filecheck %s
// RUN: gimlet-opt %s --split-input-file -p insert-transfers,insert-transfers | filecheck %s

// Inputs enter on the host, outputs leave there. A value goes once to each device, over as few links as there can be, and
// of parallel links over the one that is written first.

placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.device @gpu1 {kind = "example/gpu"}
  placement.link @slow between @gpu0, @cpu {kind = "pcie4x16"}
  placement.link @fast between @cpu, @gpu0 {kind = "pcie5x16"}
  placement.link @other between @cpu, @gpu1 {kind = "pcie5x16"}
}
placement.segment @s0 on @gpu0 as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  %y = "test.op"(%x) : (tensor<4xf32>) -> (tensor<4xf32>)
  placement.yield %y : tensor<4xf32>
}
placement.segment @s1 on @gpu1 as "fp32" (%x: tensor<4xf32>, %a: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x", "a"], res_names = ["y"]} {
  %y = "test.op"(%x, %a) : (tensor<4xf32>, tensor<4xf32>) -> (tensor<4xf32>)
  placement.yield %y : tensor<4xf32>
}
placement.segment @s2 on @gpu1 as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  %y = "test.op"(%x) : (tensor<4xf32>) -> (tensor<4xf32>)
  placement.yield %y : tensor<4xf32>
}
func.func @main(%x: tensor<4xf32>, %unused: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) {
  %a, %0 = placement.launch async @s0(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %b, %1 = placement.launch async @s1(%x, %a) [%0] : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %c, %2 = placement.launch async @s2(%a) [%0] : (tensor<4xf32>) -> tensor<4xf32>
  func.return %x, %b, %b : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>
}
// CHECK:       func.func @main
// CHECK-NEXT:    %x.gpu0, %0 = placement.transfer async %x from @cpu to @gpu0 route [@slow] : tensor<4xf32>
// CHECK-NEXT:    %x.gpu1, %1 = placement.transfer async %x from @cpu to @gpu1 route [@other] : tensor<4xf32>
// CHECK-NEXT:    %a, %2 = placement.launch async @s0(%x.gpu0) [%0] : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    %a.gpu1, %3 = placement.transfer async %a [%2] from @gpu0 to @gpu1 route [@slow, @other] : tensor<4xf32>
// CHECK-NEXT:    %b, %4 = placement.launch async @s1(%x.gpu1, %a.gpu1) [%1, %3] : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    %b.cpu, %5 = placement.transfer async %b [%4] from @gpu1 to @cpu route [@other] : tensor<4xf32>
// CHECK-NEXT:    %c, %6 = placement.launch async @s2(%a.gpu1) [%3] : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    func.return %x, %b.cpu, %b.cpu : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>

// -----

// Values stay on the device they are made on, and a token that orders two launches besides is kept.

placement.topology @rack host @gpu0 {
  placement.device @gpu0 {kind = "example/gpu"}
}
placement.segment @s0 on @gpu0 as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  %y = "test.op"(%x) : (tensor<4xf32>) -> (tensor<4xf32>)
  placement.yield %y : tensor<4xf32>
}
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %a, %0 = placement.launch async @s0(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %b, %1 = placement.launch async @s0(%a) [%0] : (tensor<4xf32>) -> tensor<4xf32>
  %c, %2 = placement.launch async @s0(%a) [%0, %1] : (tensor<4xf32>) -> tensor<4xf32>
  func.return %c : tensor<4xf32>
}
// CHECK:       func.func @main
// CHECK-NEXT:    %a, %0 = placement.launch async @s0(%x) : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    %b, %1 = placement.launch async @s0(%a) [%0] : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    %c, %2 = placement.launch async @s0(%a) [%0, %1] : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    func.return %c : tensor<4xf32>

// -----

// The same beside a transfer: what is waited for besides stays.

placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.device @gpu1 {kind = "example/gpu"}
  placement.link @slow between @gpu0, @cpu {kind = "pcie4x16"}
  placement.link @fast between @cpu, @gpu0 {kind = "pcie5x16"}
  placement.link @other between @cpu, @gpu1 {kind = "pcie5x16"}
}
placement.segment @s0 on @gpu0 as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  %y = "test.op"(%x) : (tensor<4xf32>) -> (tensor<4xf32>)
  placement.yield %y : tensor<4xf32>
}
func.func @main(%x: tensor<4xf32>, %z: tensor<4xf32>) -> tensor<4xf32> {
  %a, %0 = placement.launch async @s0(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %b, %1 = placement.launch async @s0(%z) [%0] : (tensor<4xf32>) -> tensor<4xf32>
  func.return %b : tensor<4xf32>
}
// CHECK:         %b, %{{[0-9]+}} = placement.launch async @s0(%z.gpu0) [%{{[0-9]+}}, %{{[0-9]+}}] : (tensor<4xf32>) -> tensor<4xf32>

// -----

// Inputs leave in the order in which launches read them, before anything else. A launch waits for those that it reads, one
// for what an earlier launch reads as well included, and not for those of later launches. Outputs leave after what other
// launches read.

placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.device @gpu1 {kind = "example/gpu"}
  placement.link @pcie0 between @cpu, @gpu0 {kind = "pcie5x16"}
  placement.link @pcie1 between @cpu, @gpu1 {kind = "pcie5x16"}
}
placement.segment @s0 on @gpu0 as "fp32" (%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) attributes {arg_names = ["x"], res_names = ["y", "z"]} {
  %y, %z = "test.op"(%x) : (tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>)
  placement.yield %y, %z : tensor<4xf32>, tensor<4xf32>
}
placement.segment @s1 on @gpu0 as "fp32" (%x: tensor<4xf32>, %z: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x", "z"], res_names = ["y"]} {
  %y = "test.op"(%x, %z) : (tensor<4xf32>, tensor<4xf32>) -> (tensor<4xf32>)
  placement.yield %y : tensor<4xf32>
}
placement.segment @s2 on @gpu1 as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  %y = "test.op"(%x) : (tensor<4xf32>) -> (tensor<4xf32>)
  placement.yield %y : tensor<4xf32>
}
func.func @main(%later: tensor<4xf32>, %first: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) {
  %a, %b, %0 = placement.launch async @s0(%first) : (tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>)
  %c, %1 = placement.launch async @s1(%later, %first) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %d, %2 = placement.launch async @s2(%b) [%0] : (tensor<4xf32>) -> tensor<4xf32>
  func.return %a, %c, %d : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>
}
// CHECK:       func.func @main
// CHECK-NEXT:    %first.gpu0, %0 = placement.transfer async %first from @cpu to @gpu0 route [@pcie0] : tensor<4xf32>
// CHECK-NEXT:    %later.gpu0, %1 = placement.transfer async %later from @cpu to @gpu0 route [@pcie0] : tensor<4xf32>
// CHECK-NEXT:    %a, %b, %2 = placement.launch async @s0(%first.gpu0) [%0] : (tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>)
// CHECK-NEXT:    %b.gpu1, %3 = placement.transfer async %b [%2] from @gpu0 to @gpu1 route [@pcie0, @pcie1] : tensor<4xf32>
// CHECK-NEXT:    %a.cpu, %4 = placement.transfer async %a [%2] from @gpu0 to @cpu route [@pcie0] : tensor<4xf32>
// CHECK-NEXT:    %c, %5 = placement.launch async @s1(%later.gpu0, %first.gpu0) [%1, %0] : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    %c.cpu, %6 = placement.transfer async %c [%5] from @gpu0 to @cpu route [@pcie0] : tensor<4xf32>
// CHECK-NEXT:    %d, %7 = placement.launch async @s2(%b.gpu1) [%3] : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    %d.cpu, %8 = placement.transfer async %d [%7] from @gpu1 to @cpu route [@pcie1] : tensor<4xf32>
// CHECK-NEXT:    func.return %a.cpu, %c.cpu, %d.cpu : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>

// -----

// What a state holds is where the state is, and what is made elsewhere goes there to be written; the state does not move.

placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.device @gpu1 {kind = "example/gpu"}
  placement.link @slow between @gpu0, @cpu {kind = "pcie4x16"}
  placement.link @fast between @cpu, @gpu0 {kind = "pcie5x16"}
  placement.link @other between @cpu, @gpu1 {kind = "pcie5x16"}
}
placement.segment @s0 on @gpu0 as "fp32" (%x: tensor<?xf32>) -> tensor<?xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  placement.yield %x : tensor<?xf32>
}
func.func @main(%x: tensor<?xf32>) -> tensor<?xf32> {
  %s = placement.state "a" to "b" on @gpu0 : !placement.state<tensor<?xf32>, [8]>
  %past = placement.state_read %s : !placement.state<tensor<?xf32>, [8]> -> tensor<?xf32>
  %y, %0 = placement.launch async @s0(%past) : (tensor<?xf32>) -> tensor<?xf32>
  placement.state_write %s, %x : !placement.state<tensor<?xf32>, [8]>, tensor<?xf32>
  func.return %y : tensor<?xf32>
}
// CHECK:         %x.gpu0, %{{[0-9]+}} = placement.transfer async %x from @cpu to @gpu0
// CHECK:         placement.launch async @s0(%past) : (tensor<?xf32>)
// CHECK:         placement.state_write %s, %x.gpu0
// CHECK:         func.return %y.cpu
