// RUN: gimlet-opt %s -p canonicalize-onnx | filecheck %s

// Operations that change nothing go, and constants are spelled one way.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%x: tensor<?x4x6xf32, #onnx.dims<"batch", "", "">>) -> tensor<?x24xf32, #onnx.dims<"batch", "">> {
    %a = onnx.Cast v13(%x) {to = 1}
        : (tensor<?x4x6xf32, #onnx.dims<"batch", "", "">>) -> tensor<?x4x6xf32, #onnx.dims<"batch", "", "">>
    %batch = onnx.Shape v15(%x) {end = 1} : (tensor<?x4x6xf32, #onnx.dims<"batch", "", "">>) -> tensor<1xi64>
    %rest = onnx.Constant v13 {value_ints = [24]} : tensor<1xi64>
    %shape = onnx.Concat v13(%batch, %rest) {axis = 0} : (tensor<1xi64>, tensor<1xi64>) -> tensor<2xi64>
    %y = onnx.Reshape v14(%a, %shape)
        : (tensor<?x4x6xf32, #onnx.dims<"batch", "", "">>, tensor<2xi64>)
        -> tensor<?x24xf32, #onnx.dims<"batch", "">>
    func.return %y : tensor<?x24xf32, #onnx.dims<"batch", "">>
  }
}
// CHECK:       builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
// CHECK-NEXT:    func.func @main(%x: tensor<?x4x6xf32, #onnx.dims<"batch", "", "">>) -> tensor<?x24xf32, #onnx.dims<"batch", "">> {
// CHECK-NEXT:      %batch = onnx.Shape v15(%x) {end = 1} : (tensor<?x4x6xf32, #onnx.dims<"batch", "", "">>) -> tensor<1xi64>
// CHECK-NEXT:      %rest = onnx.initializer {value = dense<24> : tensor<1xi64>} : tensor<1xi64>
// CHECK-NEXT:      %shape = onnx.Concat v13(%batch, %rest) {axis = 0} : (tensor<1xi64>, tensor<1xi64>) -> tensor<2xi64>
// CHECK-NEXT:      %y_shape = onnx.initializer {value = dense<[0, 24]> : tensor<2xi64>} : tensor<2xi64>
// CHECK-NEXT:      %y = onnx.Reshape v14(%x, %y_shape) : (tensor<?x4x6xf32, #onnx.dims<"batch", "", "">>, tensor<2xi64>) -> tensor<?x24xf32, #onnx.dims<"batch", "">>
// CHECK-NEXT:      func.return %y : tensor<?x24xf32, #onnx.dims<"batch", "">>
// CHECK-NEXT:    }
// CHECK-NEXT:  }
