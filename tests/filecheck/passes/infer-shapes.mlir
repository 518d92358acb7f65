// RUN: gimlet-opt %s -p infer-shapes | filecheck %s

// Every value gets a type whose dimensions are expressions over those of the inputs.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%x: tensor<?x?xf32, #onnx.dims<"batch", "width">>) -> !onnx.any {
    %xx = onnx.Concat v13(%x, %x) {axis = 1}
        : (tensor<?x?xf32, #onnx.dims<"batch", "width">>, tensor<?x?xf32, #onnx.dims<"batch", "width">>)
        -> !onnx.any
    %shape = onnx.Shape v15(%xx) : (!onnx.any) -> !onnx.any
    func.return %shape : !onnx.any
  }
}
// CHECK:       builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
// CHECK-NEXT:    func.func @main(%x: tensor<?x?xf32, #onnx.dims<"batch", "width">>) -> tensor<2xi64> {
// CHECK-NEXT:      %xx = onnx.Concat v13(%x, %x) {axis = 1} : (tensor<?x?xf32, #onnx.dims<"batch", "width">>, tensor<?x?xf32, #onnx.dims<"batch", "width">>) -> tensor<?x?xf32, #onnx.dims<"batch", "2*width">>
// CHECK-NEXT:      %shape = onnx.Shape v15(%xx) : (tensor<?x?xf32, #onnx.dims<"batch", "2*width">>) -> tensor<2xi64>
// CHECK-NEXT:      func.return %shape : tensor<2xi64>
// CHECK-NEXT:    }
// CHECK-NEXT:  }
