// RUN: gimlet-opt %s | gimlet-opt | filecheck %s
// RUN: gimlet-opt %s --print-op-generic | gimlet-opt | filecheck %s
// RUN: gimlet-opt %s --print-op-generic | filecheck %s --check-prefix=GENERIC
// RUN: xdsl-opt %s | filecheck %s

placement.topology @rack host @cpu attributes {site = "lab"} {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu", clock_hz = 1200000000 : i64}
  placement.device @sram0 {kind = "example/sram"}
  placement.link @pcie0 between @cpu, @gpu0 {kind = "pcie5x16"}
  placement.link @pcie1 between @sram0, @cpu {kind = "pcie5x16", latency_s = 1.5e-06 : f64, bandwidth = 5.0e+10 : f64}
  placement.group @pair [@gpu0, @sram0] {mesh = array<i64: 1, 2>, shard = {axis = 0 : i64}}
}
// CHECK:       placement.topology @rack host @cpu attributes {site = "lab"} {
// CHECK-NEXT:    placement.device @cpu {kind = "host"}
// CHECK-NEXT:    placement.device @gpu0 {clock_hz = 1200000000 : i64, kind = "example/gpu"}
// CHECK-NEXT:    placement.device @sram0 {kind = "example/sram"}
// CHECK-NEXT:    placement.link @pcie0 between @cpu, @gpu0 {kind = "pcie5x16"}
// CHECK-NEXT:    placement.link @pcie1 between @sram0, @cpu {kind = "pcie5x16", latency_s = 1.500000e-06 : f64, bandwidth = 5.000000e+10 : f64}
// CHECK-NEXT:    placement.group @pair [@gpu0, @sram0] {mesh = array<i64: 1, 2>, shard = {axis = 0 : i64}}
// CHECK-NEXT:  }
// GENERIC:       "placement.topology"() <{sym_name = "rack", host = @cpu}> ({
// GENERIC-NEXT:    "placement.device"() <{sym_name = "cpu", kind = "host"}> : () -> ()
// GENERIC:         "placement.link"() <{sym_name = "pcie0", first = @cpu, second = @gpu0, kind = "pcie5x16"}> : () -> ()
// GENERIC:         "placement.group"() <{sym_name = "pair", members = [@gpu0, @sram0], mesh = array<i64: 1, 2>, shard = {axis = 0 : i64}}> : () -> ()
// GENERIC-NEXT:  }) {site = "lab"} : () -> ()

placement.segment @attend on @gpu0 as "bf16" (%x: tensor<4xf32>, %past: tensor<?xf32>) -> (tensor<4xf32>, tensor<?xf32>)
    attributes {arg_names = ["x", "past"], res_names = ["y", "present"], note = 1 : i64} {
  %y, %present = "test.op"(%x, %past) {placement.cost = #placement.cost<weight_bytes = "0", flops = "width*2 + 1", bytes_read = "16", bytes_written = "16">} : (tensor<4xf32>, tensor<?xf32>) -> (tensor<4xf32>, tensor<?xf32>)
  placement.yield %y, %present : tensor<4xf32>, tensor<?xf32>
}
// CHECK-NEXT:  placement.segment @attend on @gpu0 as "bf16" (%x: tensor<4xf32>, %past: tensor<?xf32>) -> (tensor<4xf32>, tensor<?xf32>) attributes {arg_names = ["x", "past"], res_names = ["y", "present"], note = 1 : i64} {
// CHECK-NEXT:    %y, %present = "test.op"(%x, %past) {placement.cost = #placement.cost<flops = "2*width + 1", bytes_read = "16", bytes_written = "16", weight_bytes = "0">} : (tensor<4xf32>, tensor<?xf32>) -> (tensor<4xf32>, tensor<?xf32>)
// CHECK-NEXT:    placement.yield %y, %present : tensor<4xf32>, tensor<?xf32>
// CHECK-NEXT:  }
// GENERIC:       "placement.segment"() <{sym_name = "attend", device = @gpu0, format = "bf16", function_type = (tensor<4xf32>, tensor<?xf32>) -> (tensor<4xf32>, tensor<?xf32>), arg_names = ["x", "past"], res_names = ["y", "present"]}> ({

placement.segment @nothing on @cpu as "fp32" () attributes {arg_names = [], res_names = []} {
  placement.yield
}
// CHECK-NEXT:  placement.segment @nothing on @cpu as "fp32" () attributes {arg_names = [], res_names = []} {
// CHECK-NEXT:    placement.yield
// CHECK-NEXT:  }

placement.segment @either on @cpu as "fp32" by "onnxruntime" () attributes {arg_names = [], res_names = []} {
  placement.yield
}
// CHECK-NEXT:  placement.segment @either on @cpu as "fp32" by "onnxruntime" () attributes {arg_names = [], res_names = []} {
// CHECK-NEXT:    placement.yield
// CHECK-NEXT:  }
// GENERIC:       "placement.segment"() <{sym_name = "either", device = @cpu, format = "fp32", target = "onnxruntime", function_type = () -> (), arg_names = [], res_names = []}> ({

placement.segment @one on @sram0 as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["x"]} {
  placement.yield %x : tensor<4xf32>
}
// CHECK-NEXT:  placement.segment @one on @sram0 as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["x"]} {

func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> attributes {
    placement.buffers = [#placement.buffer<@gpu0, "max(4*width, 16)">], placement.peak_bytes = {gpu0 = #placement.expr<"4*width">}} {
  %s = placement.state "past" to "present" on @gpu0 : !placement.state<tensor<?xf32>, [8]>
  %past = placement.state_read %s : !placement.state<tensor<?xf32>, [8]> -> tensor<?xf32>
  %there, %sent = placement.transfer async %x from @cpu to @gpu0 route [@pcie0] : tensor<4xf32>
  %y, %present, %done = placement.launch async @attend(%there, %past) [%sent] {placement.buffers = array<i64: 0, -1>} : (tensor<4xf32>, tensor<?xf32>) -> (tensor<4xf32>, tensor<?xf32>)
  placement.state_write %s, %present in_place : !placement.state<tensor<?xf32>, [8]>, tensor<?xf32>
  %far, %arrived = placement.transfer async %y [%done] from @gpu0 to @sram0 route [@pcie0, @pcie1] : tensor<4xf32>
  %end = placement.launch async @nothing() : () -> ()
  %z, %last = placement.launch async @one(%far) [%arrived, %end] : (tensor<4xf32>) -> tensor<4xf32>
  func.return %z : tensor<4xf32>
}
// CHECK:       func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> attributes {placement.buffers = [#placement.buffer<@gpu0, "max(16, 4*width)">], placement.peak_bytes = {gpu0 = #placement.expr<"4*width">}} {
// CHECK-NEXT:    %s = placement.state "past" to "present" on @gpu0 : !placement.state<tensor<?xf32>, [8]>
// CHECK-NEXT:    %past = placement.state_read %s : !placement.state<tensor<?xf32>, [8]> -> tensor<?xf32>
// CHECK-NEXT:    %there, %sent = placement.transfer async %x from @cpu to @gpu0 route [@pcie0] : tensor<4xf32>
// CHECK-NEXT:    %y, %present, %done = placement.launch async @attend(%there, %past) [%sent] {placement.buffers = array<i64: 0, -1>} : (tensor<4xf32>, tensor<?xf32>) -> (tensor<4xf32>, tensor<?xf32>)
// CHECK-NEXT:    placement.state_write %s, %present in_place : !placement.state<tensor<?xf32>, [8]>, tensor<?xf32>
// CHECK-NEXT:    %far, %arrived = placement.transfer async %y [%done] from @gpu0 to @sram0 route [@pcie0, @pcie1] : tensor<4xf32>
// CHECK-NEXT:    %end = placement.launch async @nothing() : () -> ()
// CHECK-NEXT:    %z, %last = placement.launch async @one(%far) [%arrived, %end] : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    func.return %z : tensor<4xf32>
// GENERIC:       "placement.state"() <{state_name = "past", result_name = "present", device = @gpu0}> : () -> !placement.state<tensor<?xf32>, [8]>
// GENERIC:       "placement.state_read"(%s) : (!placement.state<tensor<?xf32>, [8]>) -> tensor<?xf32>
// GENERIC:       "placement.transfer"(%x) <{source = @cpu, destination = @gpu0, route = [@pcie0]}> : (tensor<4xf32>) -> (tensor<4xf32>, !placement.token)
// GENERIC:       "placement.launch"(%far, %arrived, %end) <{segment = @one, operandSegmentSizes = array<i32: 1, 2>}> : (tensor<4xf32>, !placement.token, !placement.token) -> (tensor<4xf32>, !placement.token)

// A topology without any links and groups, whose host is found by its kind.
placement.topology @alone {
  placement.device @only {kind = "host"}
}
// CHECK:       placement.topology @alone {
