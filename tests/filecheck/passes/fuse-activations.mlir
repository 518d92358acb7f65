// RUN: gimlet-opt %s --split-input-file -p fuse-activations,dce | filecheck %s

// Gelu by erf.

builtin.module attributes {onnx.opsets = {"" = 20 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
    %root = onnx.initializer {value = dense<1.41421354> : tensor<f32>} : tensor<f32>
    %one = onnx.initializer {value = dense<1.0> : tensor<f32>} : tensor<f32>
    %half = onnx.initializer {value = dense<0.5> : tensor<f32>} : tensor<f32>
    %a = onnx.Div(%x, %root) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
    %b = onnx.Erf(%a) : (tensor<4xf32>) -> tensor<4xf32>
    %c = onnx.Add(%b, %one) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
    %d = onnx.Mul(%x, %c) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    %y = onnx.Mul(%d, %half) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
    func.return %y : tensor<4xf32>
  }
}
// CHECK:       func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
// CHECK-NEXT:    %y = onnx.Gelu(%x) : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    func.return %y

// -----

// Opset 19 has no Gelu.

builtin.module attributes {onnx.opsets = {"" = 19 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
    %root = onnx.initializer {value = dense<1.41421354> : tensor<f32>} : tensor<f32>
    %one = onnx.initializer {value = dense<1.0> : tensor<f32>} : tensor<f32>
    %half = onnx.initializer {value = dense<0.5> : tensor<f32>} : tensor<f32>
    %a = onnx.Div(%x, %root) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
    %b = onnx.Erf(%a) : (tensor<4xf32>) -> tensor<4xf32>
    %c = onnx.Add(%b, %one) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
    %d = onnx.Mul(%x, %c) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    %y = onnx.Mul(%d, %half) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
    func.return %y : tensor<4xf32>
  }
}
// CHECK:         onnx.Erf
// CHECK:         onnx.Mul

// -----

// float64 is computed in full by the operations apart only.

builtin.module attributes {onnx.opsets = {"" = 20 : i64}} {
  func.func @main(%x: tensor<4xf64>) -> tensor<4xf64> {
    %root = onnx.initializer {value = dense<1.41421354> : tensor<f64>} : tensor<f64>
    %one = onnx.initializer {value = dense<1.0> : tensor<f64>} : tensor<f64>
    %half = onnx.initializer {value = dense<0.5> : tensor<f64>} : tensor<f64>
    %a = onnx.Div(%x, %root) : (tensor<4xf64>, tensor<f64>) -> tensor<4xf64>
    %b = onnx.Erf(%a) : (tensor<4xf64>) -> tensor<4xf64>
    %c = onnx.Add(%b, %one) : (tensor<4xf64>, tensor<f64>) -> tensor<4xf64>
    %d = onnx.Mul(%x, %c) : (tensor<4xf64>, tensor<4xf64>) -> tensor<4xf64>
    %y = onnx.Mul(%d, %half) : (tensor<4xf64>, tensor<f64>) -> tensor<4xf64>
    func.return %y : tensor<4xf64>
  }
}
// CHECK:         onnx.Erf
// CHECK:         onnx.Mul

// -----

// Half of what is not a half.

builtin.module attributes {onnx.opsets = {"" = 20 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
    %root = onnx.initializer {value = dense<1.41421354> : tensor<f32>} : tensor<f32>
    %one = onnx.initializer {value = dense<1.0> : tensor<f32>} : tensor<f32>
    %half = onnx.initializer {value = dense<0.4> : tensor<f32>} : tensor<f32>
    %a = onnx.Div(%x, %root) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
    %b = onnx.Erf(%a) : (tensor<4xf32>) -> tensor<4xf32>
    %c = onnx.Add(%b, %one) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
    %d = onnx.Mul(%x, %c) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    %y = onnx.Mul(%d, %half) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
    func.return %y : tensor<4xf32>
  }
}
// CHECK:         onnx.Erf
// CHECK:         onnx.Mul

// -----

// Swish with its factor; a product that is read elsewhere stays.

builtin.module attributes {onnx.opsets = {"" = 24 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) {
    %k = onnx.initializer {value = dense<1.702> : tensor<f32>} : tensor<f32>
    %a = onnx.Mul(%x, %k) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
    %b = onnx.Sigmoid(%a) : (tensor<4xf32>) -> tensor<4xf32>
    %swish = onnx.Mul(%b, %x) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    %gate = onnx.Sigmoid(%x) : (tensor<4xf32>) -> tensor<4xf32>
    %y = onnx.Mul(%x, %gate) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    func.return %swish, %y, %gate : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>
  }
}
// CHECK:         %swish = onnx.Swish(%x) {alpha = 1.702} : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    %gate = onnx.Sigmoid(%x)
// CHECK-NEXT:    %y = onnx.Mul(%x, %gate)
