// RUN: gimlet-opt %s --split-input-file -p assign-buffers | filecheck %s

// A chain needs two buffers, and one for the output: %c is made when all that use %a are done.

placement.segment @s on @cpu as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  %y = "test.op"(%x) : (tensor<4xf32>) -> (tensor<4xf32>)
  placement.yield %y : tensor<4xf32>
}
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %a, %0 = placement.launch async @s(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %b, %1 = placement.launch async @s(%a) [%0] : (tensor<4xf32>) -> tensor<4xf32>
  %c, %2 = placement.launch async @s(%b) [%1] : (tensor<4xf32>) -> tensor<4xf32>
  %d, %3 = placement.launch async @s(%c) [%2] : (tensor<4xf32>) -> tensor<4xf32>
  func.return %d : tensor<4xf32>
}
// CHECK:       func.func @main
// CHECK-SAME:    placement.buffers = [#placement.buffer<@cpu, "16">, #placement.buffer<@cpu, "16">, #placement.buffer<@cpu, "16">], placement.peak_bytes = {cpu = #placement.expr<"48">}
// CHECK-NEXT:    %a, {{.*}} {placement.buffers = array<i64: 0>}
// CHECK-NEXT:    %b, {{.*}} {placement.buffers = array<i64: 1>}
// CHECK-NEXT:    %c, {{.*}} {placement.buffers = array<i64: 0>}
// CHECK-NEXT:    %d, {{.*}} {placement.buffers = array<i64: 2>}

// -----

// Two chains that do not wait for each other may run at the same time, in whatever order they are written.

placement.segment @s on @cpu as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  %y = "test.op"(%x) : (tensor<4xf32>) -> (tensor<4xf32>)
  placement.yield %y : tensor<4xf32>
}
placement.segment @t on @cpu as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  %y = "test.op"(%x) : (tensor<4xf32>) -> (tensor<4xf32>)
  placement.yield %y : tensor<4xf32>
}
placement.segment @join on @cpu as "fp32" (%l: tensor<4xf32>, %r: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["l", "r"], res_names = ["y"]} {
  %y = "test.op"(%l, %r) : (tensor<4xf32>, tensor<4xf32>) -> (tensor<4xf32>)
  placement.yield %y : tensor<4xf32>
}
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %a, %0 = placement.launch async @s(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %b, %1 = placement.launch async @s(%a) [%0] : (tensor<4xf32>) -> tensor<4xf32>
  %c, %2 = placement.launch async @t(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %d, %3 = placement.launch async @t(%c) [%2] : (tensor<4xf32>) -> tensor<4xf32>
  %e, %4 = placement.launch async @join(%b, %d) [%1, %3] : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %f, %5 = placement.launch async @s(%e) [%4] : (tensor<4xf32>) -> tensor<4xf32>
  func.return %f : tensor<4xf32>
}
// CHECK:       func.func @main
// CHECK-SAME:    placement.peak_bytes = {cpu = #placement.expr<"80">}
// CHECK-NEXT:    %a, {{.*}} {placement.buffers = array<i64: 0>}
// CHECK-NEXT:    %b, {{.*}} {placement.buffers = array<i64: 1>}
// CHECK-NEXT:    %c, {{.*}} {placement.buffers = array<i64: 2>}
// CHECK-NEXT:    %d, {{.*}} {placement.buffers = array<i64: 3>}
// CHECK-NEXT:    %e, {{.*}} {placement.buffers = array<i64: 0>}
// CHECK-NEXT:    %f, {{.*}} {placement.buffers = array<i64: 4>}

// -----

// A token alone orders as well: the second chain starts when the first is done.

placement.segment @s on @cpu as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  %y = "test.op"(%x) : (tensor<4xf32>) -> (tensor<4xf32>)
  placement.yield %y : tensor<4xf32>
}
placement.segment @join on @cpu as "fp32" (%l: tensor<4xf32>, %r: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["l", "r"], res_names = ["y"]} {
  %y = "test.op"(%l, %r) : (tensor<4xf32>, tensor<4xf32>) -> (tensor<4xf32>)
  placement.yield %y : tensor<4xf32>
}
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %a, %0 = placement.launch async @s(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %b, %1 = placement.launch async @s(%a) [%0] : (tensor<4xf32>) -> tensor<4xf32>
  %c, %2 = placement.launch async @s(%x) [%1] : (tensor<4xf32>) -> tensor<4xf32>
  %e, %3 = placement.launch async @join(%b, %c) [%1, %2] : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  func.return %e : tensor<4xf32>
}
// CHECK:       func.func @main
// CHECK:         %a, {{.*}} {placement.buffers = array<i64: 0>}
// CHECK-NEXT:    %b, {{.*}} {placement.buffers = array<i64: 1>}
// CHECK-NEXT:    %c, {{.*}} {placement.buffers = array<i64: 0>}

// -----

// Sizes are expressions. The free buffer whose size at the optimum is closest is taken, and grows to hold both. A value of
// unknown size is left to its executor, and so is one that is no tensor.

builtin.module attributes {onnx.dim_bounds = {width = array<i64: 1, 3, 100>}} {
placement.segment @grow on @cpu as "fp32" (%x: tensor<?xf32, #onnx.dims<"width">>) -> tensor<?xf32, #onnx.dims<"2*width">> attributes {arg_names = ["x"], res_names = ["y"]} {
  %y = "test.op"(%x) : (tensor<?xf32, #onnx.dims<"width">>) -> tensor<?xf32, #onnx.dims<"2*width">>
  placement.yield %y : tensor<?xf32, #onnx.dims<"2*width">>
}
placement.segment @shrink on @cpu as "fp32" (%x: tensor<?xf32, #onnx.dims<"2*width">>) -> tensor<?xf32, #onnx.dims<"width">> attributes {arg_names = ["x"], res_names = ["y"]} {
  %y = "test.op"(%x) : (tensor<?xf32, #onnx.dims<"2*width">>) -> tensor<?xf32, #onnx.dims<"width">>
  placement.yield %y : tensor<?xf32, #onnx.dims<"width">>
}
placement.segment @fix on @cpu as "fp32" (%x: tensor<?xf32, #onnx.dims<"width">>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  %y = "test.op"(%x) : (tensor<?xf32, #onnx.dims<"width">>) -> tensor<4xf32>
  placement.yield %y : tensor<4xf32>
}
placement.segment @lose on @cpu as "fp32" (%x: tensor<4xf32>) -> tensor<?xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  %y = "test.op"(%x) : (tensor<4xf32>) -> tensor<?xf32>
  placement.yield %y : tensor<?xf32>
}
placement.segment @pack on @cpu as "fp32" (%x: tensor<?xf32>) -> !onnx.seq<tensor<?xf32>> attributes {arg_names = ["x"], res_names = ["y"]} {
  %y = "test.op"(%x) : (tensor<?xf32>) -> !onnx.seq<tensor<?xf32>>
  placement.yield %y : !onnx.seq<tensor<?xf32>>
}
placement.segment @unpack on @cpu as "fp32" (%x: !onnx.seq<tensor<?xf32>>) -> tensor<4xi1> attributes {arg_names = ["x"], res_names = ["y"]} {
  %y = "test.op"(%x) : (!onnx.seq<tensor<?xf32>>) -> tensor<4xi1>
  placement.yield %y : tensor<4xi1>
}
func.func @main(%x: tensor<?xf32, #onnx.dims<"width">>) -> tensor<4xi1> {
  %a, %0 = placement.launch async @grow(%x) : (tensor<?xf32, #onnx.dims<"width">>) -> tensor<?xf32, #onnx.dims<"2*width">>
  %b, %1 = placement.launch async @shrink(%a) [%0] : (tensor<?xf32, #onnx.dims<"2*width">>) -> tensor<?xf32, #onnx.dims<"width">>
  %c, %2 = placement.launch async @fix(%b) [%1] : (tensor<?xf32, #onnx.dims<"width">>) -> tensor<4xf32>
  %d, %3 = placement.launch async @lose(%c) [%2] : (tensor<4xf32>) -> tensor<?xf32>
  %e, %4 = placement.launch async @pack(%d) [%3] : (tensor<?xf32>) -> !onnx.seq<tensor<?xf32>>
  %f, %5 = placement.launch async @unpack(%e) [%4] : (!onnx.seq<tensor<?xf32>>) -> tensor<4xi1>
  func.return %f : tensor<4xi1>
}
}
// CHECK:       func.func @main
// CHECK-SAME:    placement.buffers = [#placement.buffer<@cpu, "max(16, 8*width)">, #placement.buffer<@cpu, "4*width">, #placement.buffer<@cpu, "4">], placement.peak_bytes = {cpu = #placement.expr<"max(16, 8*width) + 4*width + 4">}
// CHECK-NEXT:    %a, {{.*}} {placement.buffers = array<i64: 0>}
// CHECK-NEXT:    %b, {{.*}} {placement.buffers = array<i64: 1>}
// CHECK-NEXT:    %c, {{.*}} {placement.buffers = array<i64: 0>}
// CHECK-NEXT:    %d, {{.*}} {placement.buffers = array<i64: -1>}
// CHECK-NEXT:    %e, {{.*}} {placement.buffers = array<i64: -1>}
// CHECK-NEXT:    %f, {{.*}} {placement.buffers = array<i64: 2>}

// -----

// Each device has its own memory; a transfer reads its value until it is done. A state has
// a buffer of its capacity, and what is written to it another, or the same one in place.

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
placement.segment @s1 on @cpu as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  %y = "test.op"(%x) : (tensor<4xf32>) -> (tensor<4xf32>)
  placement.yield %y : tensor<4xf32>
}
placement.segment @kv on @gpu0 as "fp32" (%s: tensor<?xf32>) -> tensor<?xf32> attributes {arg_names = ["s"], res_names = ["s"]} {
  placement.yield %s : tensor<?xf32>
}
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %xg, %0 = placement.transfer async %x from @cpu to @gpu0 route [@slow] : tensor<4xf32>
  %a, %1 = placement.launch async @s0(%xg) [%0] : (tensor<4xf32>) -> tensor<4xf32>
  %ac, %2 = placement.transfer async %a [%1] from @gpu0 to @cpu route [@slow] : tensor<4xf32>
  %b, %3 = placement.launch async @s1(%ac) [%2] : (tensor<4xf32>) -> tensor<4xf32>
  %bg, %4 = placement.transfer async %b [%3] from @cpu to @gpu0 route [@slow] : tensor<4xf32>
  %c, %5 = placement.launch async @s0(%bg) [%4] : (tensor<4xf32>) -> tensor<4xf32>
  %cc, %6 = placement.transfer async %c [%5] from @gpu0 to @cpu route [@slow] : tensor<4xf32>
  %n = placement.state "n" to "n1" on @gpu0 : !placement.state<tensor<?xf32>, [8]>
  %r = placement.state_read %n : !placement.state<tensor<?xf32>, [8]> -> tensor<?xf32>
  %n1, %7 = placement.launch async @kv(%r) : (tensor<?xf32>) -> tensor<?xf32>
  placement.state_write %n, %n1 : !placement.state<tensor<?xf32>, [8]>, tensor<?xf32>
  %m = placement.state "m" to "m1" on @gpu0 : !placement.state<tensor<?xf32>, [8]>
  %q = placement.state_read %m : !placement.state<tensor<?xf32>, [8]> -> tensor<?xf32>
  %m1, %8 = placement.launch async @kv(%q) : (tensor<?xf32>) -> tensor<?xf32>
  placement.state_write %m, %m1 in_place : !placement.state<tensor<?xf32>, [8]>, tensor<?xf32>
  func.return %cc : tensor<4xf32>
}
// CHECK:       func.func @main
// CHECK-SAME:    placement.peak_bytes = {gpu0 = #placement.expr<"128">, cpu = #placement.expr<"48">}
// CHECK-NEXT:    %xg, {{.*}} {placement.buffers = array<i64: 0>}
// CHECK-NEXT:    %a, {{.*}} {placement.buffers = array<i64: 1>}
// CHECK-NEXT:    %ac, {{.*}} {placement.buffers = array<i64: 2>}
// CHECK-NEXT:    %b, {{.*}} {placement.buffers = array<i64: 3>}
// CHECK-NEXT:    %bg, {{.*}} {placement.buffers = array<i64: 0>}
// CHECK-NEXT:    %c, {{.*}} {placement.buffers = array<i64: 1>}
// CHECK-NEXT:    %cc, {{.*}} {placement.buffers = array<i64: 4>}
// CHECK-NEXT:    %n = {{.*}} {placement.buffers = array<i64: 5>}
// CHECK:         %n1, {{.*}} {placement.buffers = array<i64: 6>}
// CHECK:         %m = {{.*}} {placement.buffers = array<i64: 7>}
// CHECK:         %m1, {{.*}} {placement.buffers = array<i64: 7>}
