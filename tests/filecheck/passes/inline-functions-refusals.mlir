// RUN: gimlet-opt %s --split-input-file --verify-diagnostics -p inline-functions | filecheck %s

// CHECK: onnx.custom 'my.G/again': the model's functions call each other: my.F → my.G → my.F
builtin.module attributes {onnx.opsets = {"" = 17 : i64, my = 1 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
    %y = onnx.custom "my", "F"(%x) : (tensor<4xf32>) -> tensor<4xf32>
    func.return %y : tensor<4xf32>
  }
  func.func private @my.F(%a: !onnx.any) -> !onnx.any attributes {onnx.function = {attributes = [], defaults = {}, domain = "my", name = "F"}, onnx.opsets = {my = 1 : i64}} {
    %b = onnx.custom "my", "G"(%a) : (!onnx.any) -> !onnx.any
    func.return %b : !onnx.any
  }
  func.func private @my.G(%a: !onnx.any) -> !onnx.any attributes {onnx.function = {attributes = [], defaults = {}, domain = "my", name = "G"}, onnx.opsets = {my = 1 : i64}} {
    %b = onnx.custom "my", "F"(%a) : (!onnx.any) -> !onnx.any loc("again")
    func.return %b : !onnx.any
  }
}

// -----

// CHECK: function @my.F is written for opset 11, at which Clip is another one than at the model's opset 17: convert one of the two
builtin.module attributes {onnx.opsets = {"" = 17 : i64, my = 1 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
    %y = onnx.custom "my", "F"(%x) : (tensor<4xf32>) -> tensor<4xf32>
    func.return %y : tensor<4xf32>
  }
  func.func private @my.F(%a: !onnx.any) -> !onnx.any attributes {onnx.function = {attributes = [], defaults = {}, domain = "my", name = "F"}, onnx.opsets = {"" = 11 : i64}} {
    %b = onnx.Clip v11(%a) : (!onnx.any) -> !onnx.any
    func.return %b : !onnx.any
  }
}

// -----

// CHECK: onnx.custom 'call' has 2 inputs and 1 outputs, and function @my.F 1 and 1
builtin.module attributes {onnx.opsets = {"" = 17 : i64, my = 1 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
    %y = onnx.custom "my", "F"(%x, %x) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("call")
    func.return %y : tensor<4xf32>
  }
  func.func private @my.F(%a: !onnx.any) -> !onnx.any attributes {onnx.function = {attributes = [], defaults = {}, domain = "my", name = "F"}, onnx.opsets = {"" = 17 : i64}} {
    %b = onnx.Relu v14(%a) : (!onnx.any) -> !onnx.any
    func.return %b : !onnx.any
  }
}

// -----

// CHECK: onnx.LeakyRelu 'call/leaky' of function @my.F: onnx.LeakyRelu: attribute 'alpha' is of kind float, which "x" is not
builtin.module attributes {onnx.opsets = {"" = 17 : i64, my = 1 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
    %y = onnx.custom "my", "F"(%x) {slope = "x"} : (tensor<4xf32>) -> tensor<4xf32> loc("call")
    func.return %y : tensor<4xf32>
  }
  func.func private @my.F(%a: !onnx.any) -> !onnx.any attributes {onnx.function = {attributes = ["slope"], defaults = {}, domain = "my", name = "F"}, onnx.opsets = {"" = 17 : i64}} {
    %b = onnx.LeakyRelu v16(%a) {alpha = #onnx.ref<"slope", "float">} : (!onnx.any) -> !onnx.any loc("leaky")
    func.return %b : !onnx.any
  }
}

// -----

// CHECK: onnx.custom 'call' leaves out an input that the function returns
builtin.module attributes {onnx.opsets = {"" = 17 : i64, my = 1 : i64}} {
  func.func @main() -> tensor<4xf32> {
    %y = onnx.custom "my", "F" : tensor<4xf32> loc("call")
    func.return %y : tensor<4xf32>
  }
  func.func private @my.F(%a: !onnx.any) -> !onnx.any attributes {onnx.function = {attributes = [], defaults = {}, domain = "my", name = "F"}, onnx.opsets = {"" = 17 : i64}} {
    func.return %a : !onnx.any
  }
}
