// RUN: gimlet-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

// CHECK: unexpected character in expression '4 ? 2'
"test.op"() {placement.cost = #placement.cost<flops = "4 ? 2", bytes_read = "1", bytes_written = "1", weight_bytes = "1">} : () -> ()

// -----

// CHECK: bytes_read of a cost is negative: -1
"test.op"() {placement.cost = #placement.cost<flops = "1", bytes_read = "2 - 3", bytes_written = "1", weight_bytes = "1">} : () -> ()

// -----

// CHECK: expected one of flops, bytes_read, bytes_written, weight_bytes
"test.op"() {placement.cost = #placement.cost<flops = "1", bytes_read = "1", bytes_written = "1", weight_bytes = "1", joules = "1">} : () -> ()

// -----

// CHECK: flops is given twice
"test.op"() {placement.cost = #placement.cost<flops = "1", bytes_read = "1", bytes_written = "1", weight_bytes = "1", flops = "1">} : () -> ()

// -----

// CHECK: a cost needs bytes_read, weight_bytes
"test.op"() {placement.cost = #placement.cost<flops = "1", bytes_written = "1">} : () -> ()

// -----

// CHECK: a state holds a tensor
"test.op"() : () -> !placement.state<f32, [8]>

// -----

// CHECK: a state of rank 1 has a capacity of 2 dimensions
"test.op"() : () -> !placement.state<tensor<?xf32>, [8, 8]>

// -----

// CHECK: the capacity of a state must be positive, dimension 1 is 0
"test.op"() : () -> !placement.state<tensor<?x?xf32>, [8, 0]>

// -----

// CHECK: dimension 0 of a state is always 4, but its capacity is 8
"test.op"() : () -> !placement.state<tensor<4xf32>, [8]>

// -----

// CHECK: a topology holds devices, links and groups, not 'test.op'
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  "test.op"() : () -> ()
}

// -----

// CHECK: a topology needs at least one device
placement.topology @rack {

}

// -----

// CHECK: the host @tpu is not a device of this topology
placement.topology @rack host @tpu {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}

}

// -----

// CHECK: Redefinition of symbol "cpu"
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.device @cpu {kind = "host"}
}

// -----

// CHECK: 'placement.device' expects parent op 'placement.topology'
placement.device @cpu {kind = "host"}

// -----

// CHECK: device @cpu has an empty kind
placement.topology @rack {
  placement.device @cpu {kind = ""}
}

// -----

// CHECK: link @l has an empty kind
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.link @l between @cpu, @gpu0 {kind = ""}
}

// -----

// CHECK: link @l joins @cpu with itself
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.link @l between @cpu, @cpu {kind = "pcie5x16"}
}

// -----

// CHECK: link @l has a latency or a bandwidth, but not both
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}

  placement.link @l between @cpu, @gpu0 {kind = "pcie5x16", latency_s = 0.0 : f64}
}

// -----

// CHECK: link @l takes 0.0 s and 0.0 bytes per second
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}

  placement.link @l between @cpu, @gpu0 {kind = "pcie5x16", latency_s = 0.0 : f64, bandwidth = 0.0 : f64}
}

// -----

// CHECK: link @l takes -1.0 s and 1.0 bytes per second
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}

  placement.link @l between @cpu, @gpu0 {kind = "pcie5x16", latency_s = -1.0 : f64, bandwidth = 1.0 : f64}
}

// -----

// CHECK: link @l names @tpu, which is not a device of this topology
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.link @l between @cpu, @tpu {kind = "pcie5x16"}
}

// -----

// CHECK: group @g needs at least two devices
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.group @g [@gpu0] {mesh = array<i64: 1>}
}

// -----

// CHECK: group @g names a device twice
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.group @g [@gpu0, @gpu0] {mesh = array<i64: 2>}
}

// -----

// CHECK: group @g has 2 devices, which a mesh of 2x2 does not hold
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.group @g [@cpu, @gpu0] {mesh = array<i64: 2, 2>}
}

// -----

// CHECK: group @g has 2 devices, which a mesh of -1x-2 does not hold
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.group @g [@cpu, @gpu0] {mesh = array<i64: -1, -2>}
}

// -----

// CHECK: group @g names @tpu, which is not a device of this topology
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.group @g [@cpu, @tpu] {mesh = array<i64: 2>}
}

// -----

// CHECK: segment @s0 has an empty target
placement.segment @s0 on @cpu as "fp32" by "" () attributes {arg_names = [], res_names = []} {
  placement.yield
}

// -----

// CHECK: segment @s0 has an empty format
placement.segment @s0 on @cpu as "" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["x"]} {
  placement.yield %x : tensor<4xf32>
}

// -----

// CHECK: @tpu is not a device of topology @rack
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.device @gpu1 {kind = "example/gpu"}
  placement.link @pcie0 between @cpu, @gpu0 {kind = "pcie5x16"}
  placement.link @pcie1 between @cpu, @gpu1 {kind = "pcie5x16"}
}
placement.segment @s0 on @tpu as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["x"]} {
  placement.yield %x : tensor<4xf32>
}

// -----

// CHECK: segment @s0 must end with placement.yield
placement.segment @s0 on @cpu as "fp32" () attributes {arg_names = [], res_names = []} {
  "test.termop"() : () -> ()
}

// -----

// CHECK: the arguments of segment @s0 do not have the types that it declares
"placement.segment"() <{sym_name = "s0", device = @cpu, format = "fp32", function_type = (f32) -> (), arg_names = ["x"], res_names = []}> ({
^bb0(%x: tensor<4xf32>):
  placement.yield
}) : () -> ()

// -----

// CHECK: segment @s0 yields other types than it declares
placement.segment @s0 on @cpu as "fp32" (%x: tensor<4xf32>) -> f32 attributes {arg_names = ["x"], res_names = ["x"]} {
  placement.yield %x : tensor<4xf32>
}

// -----

// CHECK: arg_names of segment @s0 has 2 names for 1 values
placement.segment @s0 on @cpu as "fp32" (%x: tensor<4xf32>) attributes {arg_names = ["x", "y"], res_names = []} {
  placement.yield
}

// -----

// CHECK: res_names of segment @s0 has a name twice
placement.segment @s0 on @cpu as "fp32" (%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) attributes {arg_names = ["x"], res_names = ["x", "x"]} {
  placement.yield %x, %x : tensor<4xf32>, tensor<4xf32>
}

// -----

// CHECK: a segment needs res_names
placement.segment @s0 on @cpu as "fp32" () attributes {arg_names = []} {
  placement.yield
}

// -----

// CHECK: Operation using value defined out of its IsolatedFromAbove parent
%x = "test.op"() : () -> tensor<4xf32>
placement.segment @s0 on @cpu as "fp32" () -> tensor<4xf32> attributes {arg_names = [], res_names = ["x"]} {
  placement.yield %x : tensor<4xf32>
}

// -----

// CHECK: 'placement.yield' expects parent op 'placement.segment'
func.func @main() {
  placement.yield
}

// -----

// CHECK: segment @s0 takes and yields what a state holds, not the state
placement.segment @s0 on @cpu as "fp32" (%s: !placement.state<tensor<?xf32>, [8]>) attributes {arg_names = ["s"], res_names = []} {
  placement.yield
}

// -----

// CHECK: uses a result of 'placement.launch' without waiting for its token
placement.segment @s0 on @cpu as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["x"]} {
  placement.yield %x : tensor<4xf32>
}
func.func @main(%x: tensor<4xf32>) {
  %y, %done = placement.launch async @s0(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %z, %end = placement.launch async @s0(%y) : (tensor<4xf32>) -> tensor<4xf32>
  func.return
}

// -----

// CHECK: uses a result of 'placement.launch' without waiting for its token
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.device @gpu1 {kind = "example/gpu"}
  placement.link @pcie0 between @cpu, @gpu0 {kind = "pcie5x16"}
  placement.link @pcie1 between @cpu, @gpu1 {kind = "pcie5x16"}
}
placement.segment @s0 on @cpu as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["x"]} {
  placement.yield %x : tensor<4xf32>
}
func.func @main(%x: tensor<4xf32>) {
  %y, %done = placement.launch async @s0(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %z, %end = placement.transfer async %y from @cpu to @gpu0 route [@pcie0] : tensor<4xf32>
  func.return
}

// -----

// CHECK: there is no segment @s1
placement.segment @s0 on @cpu as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["x"]} {
  placement.yield %x : tensor<4xf32>
}
%end = placement.launch async @s1() : () -> ()

// -----

// CHECK: the arguments do not have the types that segment @s0 takes
placement.segment @s0 on @cpu as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["x"]} {
  placement.yield %x : tensor<4xf32>
}
%y, %end = placement.launch async @s0() : () -> tensor<4xf32>

// -----

// CHECK: the results do not have the types that segment @s0 yields
placement.segment @s0 on @cpu as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["x"]} {
  placement.yield %x : tensor<4xf32>
}
%x = "test.op"() : () -> tensor<4xf32>
%end = placement.launch async @s0(%x) : (tensor<4xf32>) -> ()

// -----

// CHECK: a state stays on its device and cannot be transferred
%s = "test.op"() : () -> !placement.state<tensor<?xf32>, [8]>
%t, %end = placement.transfer async %s from @cpu to @gpu0 route [] : !placement.state<tensor<?xf32>, [8]>

// -----

// CHECK: a transfer from @cpu to itself
%x = "test.op"() : () -> tensor<4xf32>
%y, %end = placement.transfer async %x from @cpu to @cpu route [] : tensor<4xf32>

// -----

// CHECK: @tpu is not a device of topology @rack
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.device @gpu1 {kind = "example/gpu"}
  placement.link @pcie0 between @cpu, @gpu0 {kind = "pcie5x16"}
  placement.link @pcie1 between @cpu, @gpu1 {kind = "pcie5x16"}
}
%x = "test.op"() : () -> tensor<4xf32>
%y, %end = placement.transfer async %x from @tpu to @cpu route [] : tensor<4xf32>

// -----

// CHECK: @tpu is not a device of topology @rack
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.device @gpu1 {kind = "example/gpu"}
  placement.link @pcie0 between @cpu, @gpu0 {kind = "pcie5x16"}
  placement.link @pcie1 between @cpu, @gpu1 {kind = "pcie5x16"}
}
%x = "test.op"() : () -> tensor<4xf32>
%y, %end = placement.transfer async %x from @cpu to @tpu route [] : tensor<4xf32>

// -----

// CHECK: @usb is not a link of topology @rack
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.device @gpu1 {kind = "example/gpu"}
  placement.link @pcie0 between @cpu, @gpu0 {kind = "pcie5x16"}
  placement.link @pcie1 between @cpu, @gpu1 {kind = "pcie5x16"}
}
%x = "test.op"() : () -> tensor<4xf32>
%y, %end = placement.transfer async %x from @cpu to @gpu0 route [@usb] : tensor<4xf32>

// -----

// CHECK: link @pcie1 of the route does not start at @gpu0
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.device @gpu1 {kind = "example/gpu"}
  placement.link @pcie0 between @cpu, @gpu0 {kind = "pcie5x16"}
  placement.link @pcie1 between @cpu, @gpu1 {kind = "pcie5x16"}
}
%x = "test.op"() : () -> tensor<4xf32>
%y, %end = placement.transfer async %x from @gpu0 to @gpu1 route [@pcie1, @pcie0] : tensor<4xf32>

// -----

// CHECK: the route ends at @cpu, not at @gpu1
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.device @gpu1 {kind = "example/gpu"}
  placement.link @pcie0 between @cpu, @gpu0 {kind = "pcie5x16"}
  placement.link @pcie1 between @cpu, @gpu1 {kind = "pcie5x16"}
}
%x = "test.op"() : () -> tensor<4xf32>
%y, %end = placement.transfer async %x from @gpu0 to @gpu1 route [@pcie0] : tensor<4xf32>

// -----

// CHECK: @tpu is not a device of topology @rack
placement.topology @rack {
  placement.device @cpu {kind = "host"}
  placement.device @gpu0 {kind = "example/gpu"}
  placement.device @gpu1 {kind = "example/gpu"}
  placement.link @pcie0 between @cpu, @gpu0 {kind = "pcie5x16"}
  placement.link @pcie1 between @cpu, @gpu1 {kind = "pcie5x16"}
}
%s = placement.state "a" to "b" on @tpu : !placement.state<tensor<?xf32>, [8]>

// -----

// CHECK: state "a" needs one placement.state_read in a run
%s = placement.state "a" to "b" on @cpu : !placement.state<tensor<?xf32>, [8]>
%v = placement.state_read %s : !placement.state<tensor<?xf32>, [8]> -> tensor<?xf32>
%w = placement.state_read %s : !placement.state<tensor<?xf32>, [8]> -> tensor<?xf32>
placement.state_write %s, %v : !placement.state<tensor<?xf32>, [8]>, tensor<?xf32>

// -----

// CHECK: state "a" needs one placement.state_write in a run
%s = placement.state "a" to "b" on @cpu : !placement.state<tensor<?xf32>, [8]>
%v = placement.state_read %s : !placement.state<tensor<?xf32>, [8]> -> tensor<?xf32>

// -----

// CHECK: state "a" is read and written, and given to no test.op
%s = placement.state "a" to "b" on @cpu : !placement.state<tensor<?xf32>, [8]>
%v = placement.state_read %s : !placement.state<tensor<?xf32>, [8]> -> tensor<?xf32>
"test.op"(%s) : (!placement.state<tensor<?xf32>, [8]>) -> ()
placement.state_write %s, %v : !placement.state<tensor<?xf32>, [8]>, tensor<?xf32>

// -----

// CHECK: a state that is updated in place keeps its shape
%s = placement.state "a" to "b" on @cpu : !placement.state<tensor<?xf32>, [8]>
%v = placement.state_read %s : !placement.state<tensor<?xf32>, [8]> -> tensor<?xf32>
%w = "test.op"(%v) : (tensor<?xf32>) -> tensor<4xf32>
placement.state_write %s, %w in_place : !placement.state<tensor<?xf32>, [8]>, tensor<4xf32>

// -----

// CHECK: a state that is updated in place is read by the op that updates it alone
%s = placement.state "a" to "b" on @cpu : !placement.state<tensor<?xf32>, [8]>
%v = placement.state_read %s : !placement.state<tensor<?xf32>, [8]> -> tensor<?xf32>
%w = "test.op"(%v) : (tensor<?xf32>) -> tensor<?xf32>
"test.op"(%v) : (tensor<?xf32>) -> ()
placement.state_write %s, %w in_place : !placement.state<tensor<?xf32>, [8]>, tensor<?xf32>

// -----

// CHECK: a state of tensor<?xf32> does not hold tensor<?xf16>
%s = placement.state "a" to "b" on @cpu : !placement.state<tensor<?xf32>, [8]>
%v = placement.state_read %s : !placement.state<tensor<?xf32>, [8]> -> tensor<?xf16>
placement.state_write %s, %v : !placement.state<tensor<?xf32>, [8]>, tensor<?xf16>

// -----

// CHECK: tensor<9xf32> does not fit a state of capacity {{\[}}8{{\]}}
%s = placement.state "a" to "b" on @cpu : !placement.state<tensor<?xf32>, [8]>
%v = placement.state_read %s : !placement.state<tensor<?xf32>, [8]> -> tensor<?xf32>
%w = "test.op"() : () -> tensor<9xf32>
placement.state_write %s, %w : !placement.state<tensor<?xf32>, [8]>, tensor<9xf32>

// -----

// CHECK: tensor<1x1xf32> does not fit a state of capacity {{\[}}8{{\]}}
%s = placement.state "a" to "b" on @cpu : !placement.state<tensor<?xf32>, [8]>
%v = placement.state_read %s : !placement.state<tensor<?xf32>, [8]> -> tensor<1x1xf32>
%w = "test.op"() : () -> tensor<?xf32>
placement.state_write %s, %w : !placement.state<tensor<?xf32>, [8]>, tensor<?xf32>
