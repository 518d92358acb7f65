// RUN: gimlet-opt %s | filecheck %s
// RUN: gimlet-opt %s | gimlet-opt | filecheck %s
// RUN: gimlet-opt %s --print-op-generic --print-debuginfo | gimlet-opt | filecheck %s
// RUN: gimlet-opt %s --print-op-generic | filecheck %s --check-prefix=GENERIC

// The custom form: versions, absent inputs and outputs, short lists, names of nodes.

builtin.module attributes {onnx.opsets = {"" = 17 : i64, "ai.onnx.ml" = 3 : i64, "com.microsoft" = 1 : i64}} {
  func.func @main(%x: tensor<?x3x48x?xf32, #onnx.dims<"batch", "", "", "width">>, %c: tensor<i1>, %max: tensor<f32>) {
    %w = onnx.initializer {key = "conv1.weight"} : tensor<8x3x3x3xf32>
    %k = onnx.Constant v13 {value = dense<[1, 2]> : tensor<2xi64>} : tensor<2xi64>
    %y = onnx.Conv v11(%x, %w) {strides = [2, 2], placement.device = @gpu0} : (tensor<?x3x48x?xf32, #onnx.dims<"batch", "", "", "width">>, tensor<8x3x3x3xf32>) -> tensor<?x8x23x?xf32, #onnx.dims<"batch", "", "", "(width - 3) // 2 + 1">> loc("/conv1/Conv")
    %z = onnx.Clip v13(%y, _, %max) : (tensor<?x8x23x?xf32, #onnx.dims<"batch", "", "", "(width - 3) // 2 + 1">>, tensor<f32>) -> !onnx.any
    %i = onnx.If v16(%c) else_branch {
      onnx.yield %z : !onnx.any
    } then_branch {
      %q = onnx.LeakyRelu v16(%z) {alpha = 1.0e-05} : (!onnx.any) -> !onnx.any
      onnx.yield %q : !onnx.any
    } : (tensor<i1>) -> !onnx.any
    %g = onnx.com.microsoft.Gelu(%i) : (!onnx.any) -> !onnx.any
    %s = onnx.ai.onnx.ml.Scaler(%g) {offset = [0.5, 1], scale = [2.0]} : (!onnx.any) -> tensor<*xf32>
    %h = onnx.LSTM v14(%s, %s, %s) {hidden_size = 4} : (tensor<*xf32>, tensor<*xf32>, tensor<*xf32>) -> (_, tensor<*xf32>)
    %m = onnx.custom "com.example", "Mystery"(%h) {level = 3, names = ["a", "b"]} : (tensor<*xf32>) -> tensor<*xf32>
    func.return
  }
}

// CHECK:       %w = onnx.initializer {key = "conv1.weight"} : tensor<8x3x3x3xf32>
// CHECK-NEXT:  %k = onnx.Constant v13 {value = dense<[1, 2]> : tensor<2xi64>} : tensor<2xi64>
// CHECK-NEXT:  %y = onnx.Conv v11(%x, %w) {strides = [2, 2], placement.device = @gpu0} : (tensor<?x3x48x?xf32, #onnx.dims<"batch", "", "", "width">>, tensor<8x3x3x3xf32>) -> tensor<?x8x23x?xf32, #onnx.dims<"batch", "", "", "floordiv(width + 1, 2) - 1">> loc("/conv1/Conv")
// CHECK-NEXT:  %z = onnx.Clip v13(%y, _, %max) :
// CHECK-NEXT:  %i = onnx.If v16(%c) else_branch {
// CHECK-NEXT:    onnx.yield %z : !onnx.any
// CHECK-NEXT:  } then_branch {
// CHECK-NEXT:    %q = onnx.LeakyRelu v16(%z) {alpha = 1.0e-05} : (!onnx.any) -> !onnx.any
// CHECK-NEXT:    onnx.yield %q : !onnx.any
// CHECK-NEXT:  } : (tensor<i1>) -> !onnx.any
// CHECK-NEXT:  %g = onnx.com.microsoft.Gelu(%i) : (!onnx.any) -> !onnx.any
// CHECK-NEXT:  %s = onnx.ai.onnx.ml.Scaler(%g) {offset = [0.5, 1.0], scale = [2.0]} : (!onnx.any) -> tensor<*xf32>
// CHECK-NEXT:  %h = onnx.LSTM v14(%s, %s, %s) {hidden_size = 4} : (tensor<*xf32>, tensor<*xf32>, tensor<*xf32>) -> (_, tensor<*xf32>)
// CHECK-NEXT:  %m = onnx.custom "com.example", "Mystery"(%h) {level = 3, names = ["a", "b"]} : (tensor<*xf32>) -> tensor<*xf32>

// GENERIC:      "onnx.Conv"(%x, %w) <{since_version = 11 : i64, strides = array<i64: 2, 2>}> {placement.device = @gpu0}
// GENERIC:      "onnx.Clip"(%y, %max) <{since_version = 13 : i64, absent_inputs = array<i64: 1>}>
// GENERIC:      "onnx.If"(%c) <{since_version = 16 : i64}> ({
// GENERIC-NEXT:   "onnx.yield"(%z) : (!onnx.any) -> ()
// GENERIC:      "onnx.LSTM"(%s, %s, %s) <{since_version = 14 : i64, hidden_size = 4 : i64, absent_outputs = array<i64: 0>}>
// GENERIC:      "onnx.custom"(%h) <{onnx_domain = "com.example", onnx_op_type = "Mystery", level = 3 : i64, names = ["a", "b"]}>
