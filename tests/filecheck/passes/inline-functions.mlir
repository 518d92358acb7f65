// RUN: gimlet-opt %s -p inline-functions --split-input-file | filecheck %s

// One function calls another; an attribute comes from the call, from the default, or is left out.

builtin.module attributes {onnx.opsets = {"" = 17 : i64, my = 1 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
    %y = onnx.custom "my", "Outer"(%x) {slope = 0.25} : (tensor<4xf32>) -> tensor<4xf32> loc("call")
    func.return %y : tensor<4xf32>
  }
  func.func private @my.Outer(%a: !onnx.any) -> !onnx.any attributes {onnx.function = {attributes = ["slope"], defaults = {}, domain = "my", name = "Outer"}, onnx.opsets = {"" = 17 : i64, my = 1 : i64}} {
    %h = onnx.LeakyRelu v16(%a) {alpha = #onnx.ref<"slope", "float">} : (!onnx.any) -> !onnx.any loc("leaky")
    %b = onnx.custom "my", "Inner"(%h) : (!onnx.any) -> !onnx.any loc("in")
    func.return %b : !onnx.any
  }
  func.func private @my.Inner(%c: !onnx.any) -> !onnx.any attributes {onnx.function = {attributes = ["none"], defaults = {one = 2.0 : f32}, domain = "my", name = "Inner"}, onnx.opsets = {"" = 17 : i64}} {
    %d = onnx.ThresholdedRelu v10(%c) {alpha = #onnx.ref<"one", "float">} : (!onnx.any) -> !onnx.any
    %e = onnx.Elu v6(%d) {alpha = #onnx.ref<"none", "float">} : (!onnx.any) -> !onnx.any
    func.return %e : !onnx.any
  }
}

// CHECK: func.func @main(%x: tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT: [[H:%.*]] = onnx.LeakyRelu v16(%x) {alpha = 0.25} : (tensor<4xf32>) -> !onnx.any loc("call/leaky")
// CHECK-NEXT: [[D:%.*]] = onnx.ThresholdedRelu v10([[H]]) {alpha = 2.0} : (!onnx.any) -> !onnx.any
// CHECK-NEXT: %y = onnx.Elu v6([[D]]) : (!onnx.any) -> tensor<4xf32>
// CHECK-NEXT: func.return %y : tensor<4xf32>
// CHECK-NEXT: }
// CHECK-NEXT: }

// -----

// An input that the call leaves out is left out in the body; calls in subgraphs are inlined too.

builtin.module attributes {onnx.opsets = {"" = 17 : i64, my = 1 : i64}} {
  func.func @main(%c: tensor<i1>, %x: tensor<4xf32>, %m: tensor<f32>) -> tensor<4xf32> {
    %y = onnx.If v16(%c) else_branch {
      %e = onnx.Relu v14(%x) : (tensor<4xf32>) -> tensor<4xf32>
      onnx.yield %e : tensor<4xf32>
    } then_branch {
      %t = onnx.custom "my", "Limit"(%x, _, %m) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
      onnx.yield %t : tensor<4xf32>
    } : (tensor<i1>) -> tensor<4xf32>
    func.return %y : tensor<4xf32>
  }
  func.func private @my.Limit(%a: !onnx.any, %low: !onnx.any, %high: !onnx.any) -> !onnx.any attributes {onnx.function = {attributes = [], defaults = {}, domain = "my", name = "Limit"}, onnx.opsets = {"" = 17 : i64}} {
    %b = onnx.Clip v13(%a, %low, %high) : (!onnx.any, !onnx.any, !onnx.any) -> !onnx.any
    func.return %b : !onnx.any
  }
}

// CHECK: then_branch {
// CHECK-NEXT: %t = onnx.Clip v13(%x, _, %m) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>

// -----

// A function that returns its argument: what the model says of its output is compared with it by infer-shapes.

builtin.module attributes {onnx.opsets = {"" = 17 : i64, my = 1 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> tensor<?xf32, #onnx.dims<"N">> {
    %y = onnx.custom "my", "Same"(%x) : (tensor<4xf32>) -> tensor<?xf32, #onnx.dims<"N">>
    func.return %y : tensor<?xf32, #onnx.dims<"N">>
  }
  func.func private @my.Same(%a: !onnx.any) -> !onnx.any attributes {onnx.function = {attributes = [], defaults = {}, domain = "my", name = "Same"}, onnx.opsets = {"" = 17 : i64}} {
    func.return %a : !onnx.any
  }
}

// CHECK: %y = onnx.Identity v16(%x) : (tensor<4xf32>) -> tensor<?xf32, #onnx.dims<"N">>
// CHECK-NEXT: func.return %y : tensor<?xf32, #onnx.dims<"N">>
