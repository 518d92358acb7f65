// RUN: gimlet-opt %s --split-input-file -p 'decompose-functions{names="Gelu","Tanh"},infer-shapes' | filecheck %s

// A body is made for the attributes that the operation has; an operator without one stays, and so does one not named.

builtin.module attributes {onnx.opsets = {"" = 24 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
    %a = onnx.Gelu(%x) {approximate = "none"} : (tensor<4xf32>) -> tensor<4xf32>
    %b = onnx.Tanh(%a) : (tensor<4xf32>) -> tensor<4xf32>
    %y = onnx.Swish(%b) : (tensor<4xf32>) -> tensor<4xf32>
    func.return %y : tensor<4xf32>
  }
}
// CHECK-NOT:     onnx.Gelu
// CHECK:         onnx.Erf
// CHECK:         %a = onnx.Mul
// CHECK:         %b = onnx.Tanh(%a)
// CHECK-NEXT:    %y = onnx.Swish(%b)
