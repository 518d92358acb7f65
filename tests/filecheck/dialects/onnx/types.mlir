// RUN: gimlet-opt %s | filecheck %s
// RUN: gimlet-opt %s | gimlet-opt | filecheck %s

// Types and attributes that are not of the builtin dialect, and what xDSL alone would not read back.

"test.op"() {
  // CHECK: a = !onnx.seq<tensor<?xf32, #onnx.dims<"n">>>
  a = !onnx.seq<tensor<?xf32, #onnx.dims<"n">>>,
  // CHECK-SAME: b = !onnx.optional<tensor<*xf16>>
  b = !onnx.optional<tensor<*xf16>>,
  // CHECK-SAME: c = !onnx.map<i64, tensor<f32>>
  c = !onnx.map<i64, tensor<f32>>,
  // CHECK-SAME: d = !onnx.sparse<tensor<4x4xf64>>
  d = !onnx.sparse<tensor<4x4xf64>>,
  // CHECK-SAME: e = #onnx.strings<["a", "\C3\A9"], tensor<2x!onnx.string>>
  e = #onnx.strings<["a", "\C3\A9"], tensor<2x!onnx.string>>,
  // CHECK-SAME: f = #onnx.raw<"0000807F", tensor<f32>>
  f = #onnx.raw<"0000807F", tensor<f32>>,
  // CHECK-SAME: g = #onnx.weight<"table", tensor<512xf32>>
  g = #onnx.weight<"table", tensor<512xf32>>,
  // CHECK-SAME: h = #onnx.ref<"alpha", "float">
  h = #onnx.ref<"alpha", "float">,
  // CHECK-SAME: i = tensor<?x4xf8E4M3FN, #onnx.dims<"2*n + 1", "">>
  i = tensor<?x4xf8E4M3FN, #onnx.dims<"1 + n + n", "">>
} : () -> ()
