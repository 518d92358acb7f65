// RUN: gimlet-opt %s -p scatter-states --split-input-file | filecheck %s

// Keys and values of one layer, turned so that positions come first: each gets rows at positions of its own.

func.func @main(%at: tensor<?x1xi64, #onnx.dims<"n", "">>, %x: tensor<2x3x?x4xf32, #onnx.dims<"", "", "n", "">>, %y: tensor<?x2x3x4xf32, #onnx.dims<"n", "", "", "">>, %k: tensor<2x3x8x4xf32> {placement.state = "k"}, %v: tensor<2x3x8x4xf32> {placement.state = "v"})
    -> (tensor<2x3x8x4xf32> {placement.state = "k"}, tensor<2x3x8x4xf32> {placement.state = "v"}) {
  %kt = onnx.Transpose(%k) {perm = [2, 0, 1, 3]} : (tensor<2x3x8x4xf32>) -> tensor<8x2x3x4xf32>
  %vt = onnx.Transpose(%v) {perm = [2, 0, 1, 3]} : (tensor<2x3x8x4xf32>) -> tensor<8x2x3x4xf32>
  %xt = onnx.Transpose(%x) {perm = [2, 0, 1, 3]} : (tensor<2x3x?x4xf32, #onnx.dims<"", "", "n", "">>) -> tensor<?x2x3x4xf32, #onnx.dims<"n", "", "", "">>
  %v1 = onnx.ScatterND(%vt, %at, %y) : (tensor<8x2x3x4xf32>, tensor<?x1xi64, #onnx.dims<"n", "">>, tensor<?x2x3x4xf32, #onnx.dims<"n", "", "", "">>) -> tensor<8x2x3x4xf32>
  %k1 = onnx.ScatterND(%kt, %at, %xt) : (tensor<8x2x3x4xf32>, tensor<?x1xi64, #onnx.dims<"n", "">>, tensor<?x2x3x4xf32, #onnx.dims<"n", "", "", "">>) -> tensor<8x2x3x4xf32>
  %k2 = onnx.Transpose(%k1) {perm = [1, 2, 0, 3]} : (tensor<8x2x3x4xf32>) -> tensor<2x3x8x4xf32>
  %v2 = onnx.Transpose(%v1) {perm = [1, 2, 0, 3]} : (tensor<8x2x3x4xf32>) -> tensor<2x3x8x4xf32>
  func.return %k2, %v2 : tensor<2x3x8x4xf32>, tensor<2x3x8x4xf32>
}
// CHECK:         %0 = onnx.Transpose(%y) {perm = [1, 2, 0, 3]}
// CHECK:         %2 = onnx.Reshape(%at, %1)
// CHECK-NEXT:    %3 = onnx.Shape(%0)
// CHECK-NEXT:    %4 = onnx.Expand(%2, %3)
// CHECK-SAME:    -> tensor<2x3x?x4xi64, #onnx.dims<"", "", "n", "">>
// CHECK-NEXT:    %v2 = onnx.ScatterElements(%v, %4, %0) {axis = 2}
// CHECK:         %8 = onnx.Expand(%6, %7)
// CHECK-NEXT:    %k2 = onnx.ScatterElements(%k, %8, %x) {axis = 2}
// CHECK-NEXT:    func.return %k2, %v2

// -----

// Where something else reads the state or what is between, it has to be there as it was.

func.func @main(%at: tensor<1x1xi64>, %x: tensor<1x2xf32>, %a: tensor<2x8xf32> {placement.state = "a"}, %b: tensor<2x8xf32> {placement.state = "b"})
    -> (tensor<2x8xf32> {placement.state = "a"}, tensor<2x8xf32> {placement.state = "b"}, tensor<2x8xf32>, tensor<8x2xf32>) {
  %a1 = onnx.Transpose(%a) {perm = [1, 0]} : (tensor<2x8xf32>) -> tensor<8x2xf32>
  %a2 = onnx.ScatterND(%a1, %at, %x) : (tensor<8x2xf32>, tensor<1x1xi64>, tensor<1x2xf32>) -> tensor<8x2xf32>
  %a3 = onnx.Transpose(%a2) {perm = [1, 0]} : (tensor<8x2xf32>) -> tensor<2x8xf32>
  %c = onnx.Relu(%a) : (tensor<2x8xf32>) -> tensor<2x8xf32>
  %b1 = onnx.Transpose(%b) {perm = [1, 0]} : (tensor<2x8xf32>) -> tensor<8x2xf32>
  %b2 = onnx.ScatterND(%b1, %at, %x) : (tensor<8x2xf32>, tensor<1x1xi64>, tensor<1x2xf32>) -> tensor<8x2xf32>
  %b3 = onnx.Transpose(%b2) {perm = [1, 0]} : (tensor<8x2xf32>) -> tensor<2x8xf32>
  func.return %a3, %b3, %c, %b2 : tensor<2x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>, tensor<8x2xf32>
}
// CHECK:         %a2 = onnx.ScatterND(%a1, %at, %x)
// CHECK:         %b2 = onnx.ScatterND(%b1, %at, %x)

// -----

// Positions of two coordinates, sums, another order behind than before, and a value that is no state stay.

func.func @main(%at: tensor<1x1xi64>, %two: tensor<1x2xi64>, %x: tensor<1x2x2xf32>, %y: tensor<1x2xf32>, %d: tensor<2x8x2xf32>, %a: tensor<2x8x2xf32> {placement.state = "a"}, %b: tensor<2x8x2xf32> {placement.state = "b"}, %c: tensor<2x2x2xf32> {placement.state = "c"})
    -> (tensor<2x8x2xf32> {placement.state = "a"}, tensor<2x8x2xf32> {placement.state = "b"}, tensor<2x2x2xf32> {placement.state = "c"}, tensor<2x8x2xf32>) {
  %a1 = onnx.Transpose(%a) {perm = [1, 0, 2]} : (tensor<2x8x2xf32>) -> tensor<8x2x2xf32>
  %a2 = onnx.ScatterND(%a1, %two, %y) : (tensor<8x2x2xf32>, tensor<1x2xi64>, tensor<1x2xf32>) -> tensor<8x2x2xf32>
  %a3 = onnx.Transpose(%a2) {perm = [1, 0, 2]} : (tensor<8x2x2xf32>) -> tensor<2x8x2xf32>
  %b1 = onnx.Transpose(%b) {perm = [1, 0, 2]} : (tensor<2x8x2xf32>) -> tensor<8x2x2xf32>
  %b2 = onnx.ScatterND(%b1, %at, %x) {reduction = "add"} : (tensor<8x2x2xf32>, tensor<1x1xi64>, tensor<1x2x2xf32>) -> tensor<8x2x2xf32>
  %b3 = onnx.Transpose(%b2) {perm = [1, 0, 2]} : (tensor<8x2x2xf32>) -> tensor<2x8x2xf32>
  %c1 = onnx.Transpose(%c) {perm = [1, 2, 0]} : (tensor<2x2x2xf32>) -> tensor<2x2x2xf32>
  %c2 = onnx.ScatterND(%c1, %at, %x) : (tensor<2x2x2xf32>, tensor<1x1xi64>, tensor<1x2x2xf32>) -> tensor<2x2x2xf32>
  %c3 = onnx.Transpose(%c2) {perm = [1, 2, 0]} : (tensor<2x2x2xf32>) -> tensor<2x2x2xf32>
  %d1 = onnx.Transpose(%d) {perm = [1, 0, 2]} : (tensor<2x8x2xf32>) -> tensor<8x2x2xf32>
  %d2 = onnx.ScatterND(%d1, %at, %x) : (tensor<8x2x2xf32>, tensor<1x1xi64>, tensor<1x2x2xf32>) -> tensor<8x2x2xf32>
  %d3 = onnx.Transpose(%d2) {perm = [1, 0, 2]} : (tensor<8x2x2xf32>) -> tensor<2x8x2xf32>
  func.return %a3, %b3, %c3, %d3 : tensor<2x8x2xf32>, tensor<2x8x2xf32>, tensor<2x2x2xf32>, tensor<2x8x2xf32>
}
// CHECK:         %a2 = onnx.ScatterND
// CHECK:         %b2 = onnx.ScatterND
// CHECK:         %c2 = onnx.ScatterND
// CHECK:         %d2 = onnx.ScatterND
