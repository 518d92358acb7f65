// RUN: gimlet-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

// CHECK: onnx.Conv takes 2 to 3 inputs (X, W, B?), not 1
builtin.module attributes {onnx.opsets = {"" = 22 : i64}} {
  func.func @main(%x: tensor<1x3x8x8xf32>) {
    %y = onnx.Conv(%x) : (tensor<1x3x8x8xf32>) -> tensor<1x3x8x8xf32>
    func.return
  }
}

// -----

// CHECK: onnx.Gelu needs opset 20 of ai.onnx; the module imports 17
builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%x: tensor<4xf32>) {
    %y = onnx.Gelu(%x) : (tensor<4xf32>) -> tensor<4xf32>
    func.return
  }
}

// -----

// CHECK: onnx.Clip is of version 13, but at the module's opset 10 version 6 is in force: set since_version or convert it
builtin.module attributes {onnx.opsets = {"" = 10 : i64}} {
  func.func @main(%x: tensor<4xf32>) {
    %y = onnx.Clip(%x) : (tensor<4xf32>) -> tensor<4xf32>
    func.return
  }
}

// -----

// CHECK: onnx.Add: input 1 (B) is tensor(int64) and input 0 (A) is tensor(float), but they share the type T
func.func @main(%x: tensor<4xf32>, %i: tensor<4xi64>) {
  %y = onnx.Add(%x, %i) : (tensor<4xf32>, tensor<4xi64>) -> tensor<4xf32>
  func.return
}

// -----

// CHECK: onnx.Softmax version 13 has no attribute 'axes'; its attributes are: axis
func.func @main(%x: tensor<4xf32>) {
  %y = onnx.Softmax(%x) {axes = 1} : (tensor<4xf32>) -> tensor<4xf32>
  func.return
}

// -----

// CHECK: onnx.initializer has either a key or a value, and no other property
%w = onnx.initializer : tensor<4xf32>

// -----

// CHECK: a constant has at most 64 dimensions, not 65
%w = onnx.initializer {value = dense<0.0> : tensor<1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1xf32>} : tensor<1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1xf32>

// -----

// CHECK: a constant has at most 64 dimensions, not 65
%w = onnx.Constant v13 {value = dense<0.0> : tensor<1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1xf32>} : tensor<1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1x1xf32>

// -----

// CHECK: expected a version such as v11, or the operands
func.func @main(%x: tensor<4xf32>) {
  %y = onnx.Relu six(%x) : (tensor<4xf32>) -> tensor<4xf32>
  func.return
}

// -----

// CHECK: unexpected character in expression 'n ? 2'
func.func @main(%x: tensor<?xf32, #onnx.dims<"n ? 2">>) {
  func.return
}

// -----

// CHECK: onnx.parts is @parts.Swish.1, and the module has no such function
func.func @main(%x: tensor<4xf32>) {
  %y = onnx.Swish(%x) {onnx.parts = @parts.Swish.1} : (tensor<4xf32>) -> tensor<4xf32>
  func.return
}

// -----

// CHECK: @parts.Swish.1 takes or gives other types than the operation
func.func @main(%x: tensor<4xf32>) {
  %y = onnx.Swish(%x) {onnx.parts = @parts.Swish.1} : (tensor<4xf32>) -> tensor<4xf32>
  func.return
}
func.func private @parts.Swish.1(%x: tensor<5xf32>) -> tensor<5xf32> {
  func.return %x : tensor<5xf32>
}

// -----

// CHECK: %a = onnx.Identity v16(%b)
// CHECK: onnx.Identity reads %b before it is computed
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %a = onnx.Identity v16(%b) : (tensor<4xf32>) -> tensor<4xf32>
  %b = onnx.Relu(%a) : (tensor<4xf32>) -> tensor<4xf32>
  func.return %a : tensor<4xf32>
}

// -----

// CHECK: onnx.Relu reads %again before it is computed
func.func @main(%c: tensor<i1>, %x: tensor<4xf32>) -> tensor<4xf32> {
  %again = onnx.If(%c) else_branch {
    %e = onnx.Relu(%again) : (tensor<4xf32>) -> tensor<4xf32>
    onnx.yield %e : tensor<4xf32>
  } then_branch {
    onnx.yield %x : tensor<4xf32>
  } : (tensor<i1>) -> tensor<4xf32>
  func.return %again : tensor<4xf32>
}
