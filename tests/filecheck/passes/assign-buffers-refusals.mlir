// RUN: gimlet-opt %s --verify-diagnostics -p assign-buffers | filecheck %s

// CHECK: onnx.Relu is in no segment: run outline-segments first
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %y = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>
  func.return %y : tensor<4xf32>
}
