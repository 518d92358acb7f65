// RUN: gimlet-opt %s -p keep-states --split-input-file --verify-diagnostics | filecheck %s

// A state that several segments of one device use, in the capacity of its dimensions at their largest.

builtin.module attributes {onnx.dim_bounds = {past = array<i64: 0, 4, 16>}} {
  placement.segment @s0 on @cpu as "fp32" (%a: tensor<?x2xf32, #onnx.dims<"past", "">>) -> tensor<?x2xf32, #onnx.dims<"past", "">> attributes {arg_names = ["a"], res_names = ["y"]} {
    %y = onnx.Relu(%a) : (tensor<?x2xf32, #onnx.dims<"past", "">>) -> tensor<?x2xf32, #onnx.dims<"past", "">>
    placement.yield %y : tensor<?x2xf32, #onnx.dims<"past", "">>
  }
  func.func @main(%a: tensor<?x2xf32, #onnx.dims<"past", "">> {onnx.name = "a", placement.state = "a"}) -> (tensor<?x2xf32, #onnx.dims<"past", "">> {onnx.name = "y"}, tensor<?x2xf32, #onnx.dims<"past", "">> {onnx.name = "a.new", placement.state = "a"}) {
    %y, %0 = placement.launch async @s0(%a) : (tensor<?x2xf32, #onnx.dims<"past", "">>) -> tensor<?x2xf32, #onnx.dims<"past", "">>
    %z, %1 = placement.launch async @s0(%a) : (tensor<?x2xf32, #onnx.dims<"past", "">>) -> tensor<?x2xf32, #onnx.dims<"past", "">>
    func.return %y, %z : tensor<?x2xf32, #onnx.dims<"past", "">>, tensor<?x2xf32, #onnx.dims<"past", "">>
  }
}
// CHECK:       func.func @main() -> (tensor<?x2xf32, #onnx.dims<"past", "">> {onnx.name = "y"}) {
// CHECK-NEXT:    %0 = placement.state "a" to "a.new" on @cpu : !placement.state<tensor<?x2xf32, #onnx.dims<"past", "">>, [16, 2]>
// CHECK-NEXT:    %a = placement.state_read %0
// CHECK-NEXT:    %y, %1 = placement.launch async @s0(%a)
// CHECK-NEXT:    %z, %2 = placement.launch async @s0(%a)
// CHECK-NEXT:    placement.state_write %0, %z :
// CHECK-NEXT:    func.return %y :

// -----

// In place, where the segment that reads it marks its update; a mark on another update goes.

placement.segment @s0 on @cpu as "fp32" (%a: tensor<8xf32>, %b: tensor<8xf32>, %at: tensor<1x1xi64>, %x: tensor<1xf32>) -> (tensor<8xf32>, tensor<8xf32>) attributes {arg_names = ["a", "b", "at", "x"], res_names = ["a1", "b1"]} {
  %a1 = onnx.ScatterND(%a, %at, %x) {placement.in_place} : (tensor<8xf32>, tensor<1x1xi64>, tensor<1xf32>) -> tensor<8xf32>
  %b0 = onnx.Relu(%b) : (tensor<8xf32>) -> tensor<8xf32>
  %b1 = onnx.ScatterND(%b0, %at, %x) {placement.in_place} : (tensor<8xf32>, tensor<1x1xi64>, tensor<1xf32>) -> tensor<8xf32>
  placement.yield %a1, %b1 : tensor<8xf32>, tensor<8xf32>
}
func.func @main(%at: tensor<1x1xi64>, %x: tensor<1xf32>, %a: tensor<8xf32> {placement.state = "a"}, %b: tensor<8xf32> {placement.state = "b"}) -> (tensor<8xf32> {placement.state = "a"}, tensor<8xf32> {placement.state = "b"}) {
  %a1, %b1, %0 = placement.launch async @s0(%a, %b, %at, %x) : (tensor<8xf32>, tensor<8xf32>, tensor<1x1xi64>, tensor<1xf32>) -> (tensor<8xf32>, tensor<8xf32>)
  func.return %a1, %b1 : tensor<8xf32>, tensor<8xf32>
}
// CHECK:         %a1 = onnx.ScatterND(%a, %at, %x) {placement.in_place
// CHECK:         %b1 = onnx.ScatterND(%b0, %at, %x) :
// CHECK:       func.func @main(%at: tensor<1x1xi64>, %x: tensor<1xf32>) {
// CHECK:         placement.state_write %{{.*}}, %a1 in_place :
// CHECK-NEXT:    placement.state_write %{{.*}}, %b1 :

// -----

// One that grows has two shapes, so two memories here; the mark says that its device may leave what is there, also
// where another segment reads its sizes. Where that reads more, the mark goes.

builtin.module attributes {onnx.dim_bounds = {past = array<i64: 0, 4, 16>}} {
  placement.segment @s0 on @cpu as "fp32" (%a: tensor<?x2xf32, #onnx.dims<"past", "">>, %b: tensor<?x2xf32, #onnx.dims<"past", "">>) -> (tensor<2xi64>, tensor<?x2xf32, #onnx.dims<"past", "">>) attributes {arg_names = ["a", "b"], res_names = ["n", "y"]} {
    %n = onnx.Shape(%a) : (tensor<?x2xf32, #onnx.dims<"past", "">>) -> tensor<2xi64>
    %y = onnx.Relu(%b) : (tensor<?x2xf32, #onnx.dims<"past", "">>) -> tensor<?x2xf32, #onnx.dims<"past", "">>
    placement.yield %n, %y : tensor<2xi64>, tensor<?x2xf32, #onnx.dims<"past", "">>
  }
  placement.segment @s1 on @cpu as "fp32" (%a: tensor<?x2xf32, #onnx.dims<"past", "">>, %b: tensor<?x2xf32, #onnx.dims<"past", "">>, %x: tensor<1x2xf32>) -> (tensor<?x2xf32, #onnx.dims<"past + 1", "">>, tensor<?x2xf32, #onnx.dims<"past + 1", "">>) attributes {arg_names = ["a", "b", "x"], res_names = ["a1", "b1"]} {
    %a1 = onnx.Concat(%a, %x) {axis = 0, placement.in_place} : (tensor<?x2xf32, #onnx.dims<"past", "">>, tensor<1x2xf32>) -> tensor<?x2xf32, #onnx.dims<"past + 1", "">>
    %b1 = onnx.Concat(%b, %x) {axis = 0, placement.in_place} : (tensor<?x2xf32, #onnx.dims<"past", "">>, tensor<1x2xf32>) -> tensor<?x2xf32, #onnx.dims<"past + 1", "">>
    placement.yield %a1, %b1 : tensor<?x2xf32, #onnx.dims<"past + 1", "">>, tensor<?x2xf32, #onnx.dims<"past + 1", "">>
  }
  func.func @main(%x: tensor<1x2xf32>, %a: tensor<?x2xf32, #onnx.dims<"past", "">> {placement.state = "a"}, %b: tensor<?x2xf32, #onnx.dims<"past", "">> {placement.state = "b"}) -> (tensor<2xi64>, tensor<?x2xf32, #onnx.dims<"past", "">>, tensor<?x2xf32, #onnx.dims<"past + 1", "">> {placement.state = "a"}, tensor<?x2xf32, #onnx.dims<"past + 1", "">> {placement.state = "b"}) {
    %n, %y, %0 = placement.launch async @s0(%a, %b) : (tensor<?x2xf32, #onnx.dims<"past", "">>, tensor<?x2xf32, #onnx.dims<"past", "">>) -> (tensor<2xi64>, tensor<?x2xf32, #onnx.dims<"past", "">>)
    %a1, %b1, %1 = placement.launch async @s1(%a, %b, %x) : (tensor<?x2xf32, #onnx.dims<"past", "">>, tensor<?x2xf32, #onnx.dims<"past", "">>, tensor<1x2xf32>) -> (tensor<?x2xf32, #onnx.dims<"past + 1", "">>, tensor<?x2xf32, #onnx.dims<"past + 1", "">>)
    func.return %n, %y, %a1, %b1 : tensor<2xi64>, tensor<?x2xf32, #onnx.dims<"past", "">>, tensor<?x2xf32, #onnx.dims<"past + 1", "">>, tensor<?x2xf32, #onnx.dims<"past + 1", "">>
  }
}
// CHECK:         %a1 = onnx.Concat(%a, %x) {axis = 0, placement.in_place = unit} :
// CHECK-NEXT:    %b1 = onnx.Concat(%b, %x) {axis = 0} :
// CHECK:         placement.state_write %{{.*}}, %a1 :
// CHECK-NEXT:    placement.state_write %{{.*}}, %b1 :

// -----

// CHECK: state 'a' is not used: no op reads it
placement.segment @s0 on @cpu as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  placement.yield %x : tensor<4xf32>
}
func.func @main(%x: tensor<4xf32>, %a: tensor<4xf32> {placement.state = "a"}) -> (tensor<4xf32> {placement.state = "a"}) {
  %y, %0 = placement.launch async @s0(%x) : (tensor<4xf32>) -> tensor<4xf32>
  func.return %y : tensor<4xf32>
}

// -----

// CHECK: state 'a' is never changed: what it becomes is made by no op of its device
placement.segment @s0 on @cpu as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  placement.yield %x : tensor<4xf32>
}
func.func @main(%a: tensor<4xf32> {placement.state = "a"}) -> (tensor<4xf32>, tensor<4xf32> {placement.state = "a"}) {
  %y, %0 = placement.launch async @s0(%a) : (tensor<4xf32>) -> tensor<4xf32>
  func.return %y, %a : tensor<4xf32>, tensor<4xf32>
}

// -----

// CHECK: state 'a' would have to move between devices: it is used by @s0 on @cpu, @s1 on @gpu0; pin them to one device
placement.segment @s0 on @cpu as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  placement.yield %x : tensor<4xf32>
}
placement.segment @s1 on @gpu0 as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  placement.yield %x : tensor<4xf32>
}
func.func @main(%a: tensor<4xf32> {placement.state = "a"}) -> (tensor<4xf32> {placement.state = "a"}) {
  %y, %0 = placement.launch async @s0(%a) : (tensor<4xf32>) -> tensor<4xf32>
  %z, %1 = placement.launch async @s1(%y) [%0] : (tensor<4xf32>) -> tensor<4xf32>
  func.return %z : tensor<4xf32>
}

// -----

// CHECK: state 'a' may grow without bounds: tensor<?xf32>; bind its dimensions with --bind
placement.segment @s0 on @cpu as "fp32" (%x: tensor<?xf32>) -> tensor<?xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  placement.yield %x : tensor<?xf32>
}
func.func @main(%a: tensor<?xf32> {placement.state = "a"}) -> (tensor<?xf32> {placement.state = "a"}) {
  %y, %0 = placement.launch async @s0(%a) : (tensor<?xf32>) -> tensor<?xf32>
  func.return %y : tensor<?xf32>
}

// -----

// CHECK: state 'a' is an argument of @main only: it needs one of each
func.func @main(%a: tensor<4xf32> {placement.state = "a"}) {
  func.return
}

// -----

// CHECK: state 'a' has room for nothing: tensor<0xf32>
placement.segment @s0 on @cpu as "fp32" (%x: tensor<0xf32>) -> tensor<0xf32> attributes {arg_names = ["x"], res_names = ["y"]} {
  placement.yield %x : tensor<0xf32>
}
func.func @main(%a: tensor<0xf32> {placement.state = "a"}) -> (tensor<0xf32> {placement.state = "a"}) {
  %y, %0 = placement.launch async @s0(%a) : (tensor<0xf32>) -> tensor<0xf32>
  func.return %y : tensor<0xf32>
}
