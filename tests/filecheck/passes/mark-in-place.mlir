// RUN: gimlet-opt %s -p mark-in-place --split-input-file | filecheck %s

// What is put into a state is written where it is, if nothing else reads the state.

func.func @main(%at: tensor<1x1xi64>, %x: tensor<1xf32>, %a: tensor<8xf32> {placement.state = "a"}, %b: tensor<8xf32> {placement.state = "b"})
    -> (tensor<8xf32> {placement.state = "b"}, tensor<8xf32> {placement.state = "a"}, tensor<8xf32>) {
  %a1 = onnx.ScatterND(%a, %at, %x) : (tensor<8xf32>, tensor<1x1xi64>, tensor<1xf32>) -> tensor<8xf32>
  %b1 = onnx.ScatterND(%b, %at, %x) : (tensor<8xf32>, tensor<1x1xi64>, tensor<1xf32>) -> tensor<8xf32>
  %c = onnx.Relu(%b) : (tensor<8xf32>) -> tensor<8xf32>
  func.return %b1, %a1, %c : tensor<8xf32>, tensor<8xf32>, tensor<8xf32>
}
// CHECK:         %a1 = onnx.ScatterND(%a, %at, %x) {placement.in_place
// CHECK-NEXT:    %b1 = onnx.ScatterND(%b, %at, %x) :

// -----

// Another operator makes all of its result anew, a scatter into something else is none into the state, and what is put
// in must not be the state.

func.func @main(%at: tensor<1x1xi64>, %x: tensor<8xf32>, %a: tensor<8xf32> {placement.state = "a"}, %b: tensor<8xf32> {placement.state = "b"}, %c: tensor<1xf32> {placement.state = "c"})
    -> (tensor<8xf32> {placement.state = "a"}, tensor<8xf32> {placement.state = "b"}, tensor<8xf32> {placement.state = "c"}) {
  %a1 = onnx.Relu(%a) : (tensor<8xf32>) -> tensor<8xf32>
  %b1 = onnx.Relu(%b) : (tensor<8xf32>) -> tensor<8xf32>
  %b2 = onnx.ScatterND(%b1, %at, %c) : (tensor<8xf32>, tensor<1x1xi64>, tensor<1xf32>) -> tensor<8xf32>
  %c1 = onnx.ScatterND(%x, %at, %c) : (tensor<8xf32>, tensor<1x1xi64>, tensor<1xf32>) -> tensor<8xf32>
  func.return %a1, %b2, %c1 : tensor<8xf32>, tensor<8xf32>, tensor<8xf32>
}
// CHECK-NOT:     in_place
