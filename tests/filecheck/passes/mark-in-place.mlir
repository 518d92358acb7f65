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

// What a Concat puts behind a state is written where the state is; its sizes may be read. A state behind something else,
// one that is read elsewhere, and one that grows in two dimensions are made anew.

func.func @main(%x: tensor<1x2xf32>, %a: tensor<?x2xf32, #onnx.dims<"a", "">> {placement.state = "a"}, %b: tensor<?x2xf32, #onnx.dims<"b", "">> {placement.state = "b"}, %c: tensor<?x2xf32, #onnx.dims<"c", "">> {placement.state = "c"}, %d: tensor<?x?xf32, #onnx.dims<"d", "e">> {placement.state = "d"})
    -> (tensor<?x2xf32, #onnx.dims<"a + 1", "">> {placement.state = "a"}, tensor<?x2xf32, #onnx.dims<"b + 1", "">> {placement.state = "b"}, tensor<?x2xf32, #onnx.dims<"c + 1", "">> {placement.state = "c"}, tensor<?x?xf32, #onnx.dims<"d + 1", "f">> {placement.state = "d"}, tensor<2xi64>, tensor<?x2xf32, #onnx.dims<"c", "">>) {
  %size = onnx.Shape(%a) : (tensor<?x2xf32, #onnx.dims<"a", "">>) -> tensor<2xi64>
  %a1 = onnx.Concat(%a, %x) {axis = 0} : (tensor<?x2xf32, #onnx.dims<"a", "">>, tensor<1x2xf32>) -> tensor<?x2xf32, #onnx.dims<"a + 1", "">>
  %b1 = onnx.Concat(%x, %b) {axis = 0} : (tensor<1x2xf32>, tensor<?x2xf32, #onnx.dims<"b", "">>) -> tensor<?x2xf32, #onnx.dims<"b + 1", "">>
  %c1 = onnx.Concat(%c, %x) {axis = 0} : (tensor<?x2xf32, #onnx.dims<"c", "">>, tensor<1x2xf32>) -> tensor<?x2xf32, #onnx.dims<"c + 1", "">>
  %r = onnx.Relu(%c) : (tensor<?x2xf32, #onnx.dims<"c", "">>) -> tensor<?x2xf32, #onnx.dims<"c", "">>
  %d1 = onnx.Concat(%d, %x) {axis = 0} : (tensor<?x?xf32, #onnx.dims<"d", "e">>, tensor<1x2xf32>) -> tensor<?x?xf32, #onnx.dims<"d + 1", "f">>
  func.return %a1, %b1, %c1, %d1, %size, %r : tensor<?x2xf32, #onnx.dims<"a + 1", "">>, tensor<?x2xf32, #onnx.dims<"b + 1", "">>, tensor<?x2xf32, #onnx.dims<"c + 1", "">>, tensor<?x?xf32, #onnx.dims<"d + 1", "f">>, tensor<2xi64>, tensor<?x2xf32, #onnx.dims<"c", "">>
}
// CHECK:         %a1 = onnx.Concat(%a, %x) {axis = 0, placement.in_place = unit}
// CHECK-NEXT:    %b1 = onnx.Concat(%x, %b) {axis = 0} :
// CHECK-NEXT:    %c1 = onnx.Concat(%c, %x) {axis = 0} :
// CHECK:         %d1 = onnx.Concat(%d, %x) {axis = 0} :

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
