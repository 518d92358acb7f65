// RUN: gimlet-opt %s --split-input-file -p write-out-experts | filecheck %s
// RUN: gimlet-opt %s --split-input-file -p 'write-out-experts{keep_parts=true}' | filecheck %s --check-prefix=KEPT

// Gates that stand in turns with what they gate, clamped; the chosen weights are made to add up to 1.

builtin.module attributes {onnx.opsets = {"" = 17 : i64, "com.microsoft" = 1 : i64}} {
  func.func @main(%x: tensor<5x8xf32>, %router: tensor<5x4xf32>, %up: tensor<4x32x8xf32>, %down: tensor<4x8x16xf32>) -> tensor<5x8xf32> {
    %y = onnx.com.microsoft.MoE(%x, %router, %up, _, %down) {activation_type = "swiglu", k = 2, normalize_routing_weights = 1, swiglu_fusion = 1, swiglu_limit = 7.0}
        : (tensor<5x8xf32>, tensor<5x4xf32>, tensor<4x32x8xf32>, tensor<4x8x16xf32>) -> tensor<5x8xf32> loc("moe")
    func.return %y : tensor<5x8xf32>
  }
}
// CHECK:         onnx.Softmax(%router) {axis = -1}
// CHECK:         onnx.TopK
// CHECK:         onnx.Div
// CHECK:         onnx.MatMul({{.*}} -> tensor<4x5x32xf32>
// CHECK-COUNT-2: onnx.Slice{{.*}} -> tensor<4x5x16xf32>
// CHECK:         onnx.Clip
// CHECK:         onnx.Min
// CHECK:         onnx.Sigmoid
// CHECK:         onnx.MatMul({{.*}} -> tensor<4x5x8xf32>
// CHECK:         onnx.ScatterElements
// CHECK:         %y = onnx.ReduceSum
// KEPT:          %y = onnx.com.microsoft.MoE(%x, %router, %up, _, %down) {{.*}}onnx.parts = @parts.MoE.1
// KEPT:        func.func private @parts.MoE.1(

// -----

// A sparse mixer, and an old opset, are left alone.

builtin.module attributes {onnx.opsets = {"" = 12 : i64, "com.microsoft" = 1 : i64}} {
  func.func @main(%x: tensor<5x8xf32>, %router: tensor<5x4xf32>, %up: tensor<4x16x8xf32>, %down: tensor<4x8x16xf32>) -> tensor<5x8xf32> {
    %y = onnx.com.microsoft.MoE(%x, %router, %up, _, %down) {activation_type = "relu", k = 2}
        : (tensor<5x8xf32>, tensor<5x4xf32>, tensor<4x16x8xf32>, tensor<4x8x16xf32>) -> tensor<5x8xf32>
    func.return %y : tensor<5x8xf32>
  }
}
// CHECK:         %y = onnx.com.microsoft.MoE(
