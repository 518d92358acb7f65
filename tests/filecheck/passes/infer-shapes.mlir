// RUN: gimlet-opt %s --split-input-file -p infer-shapes | filecheck %s
// RUN: gimlet-opt %s --split-input-file -p infer-shapes,infer-shapes | filecheck %s

// Dimensions are expressions over the inputs'; a shape that is computed is followed through Shape, Gather and Concat.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%x: tensor<?x64x?xf32, #onnx.dims<"batch", "", "width">>) -> !onnx.any {
    %shape = onnx.Shape v15(%x) : (tensor<?x64x?xf32, #onnx.dims<"batch", "", "width">>) -> !onnx.any
    %first = onnx.Constant v13 {value_ints = [0]} : tensor<1xi64>
    %batch = onnx.Gather v13(%shape, %first) : (!onnx.any, tensor<1xi64>) -> !onnx.any
    %rest = onnx.Constant v13 {value_ints = [8, -1]} : tensor<2xi64>
    %target = onnx.Concat v13(%batch, %rest) {axis = 0} : (!onnx.any, tensor<2xi64>) -> !onnx.any
    %y = onnx.Reshape v14(%x, %target) : (tensor<?x64x?xf32, #onnx.dims<"batch", "", "width">>, !onnx.any) -> !onnx.any
    func.return %y : !onnx.any
  }
}
// CHECK:       func.func @main(%x: tensor<?x64x?xf32, #onnx.dims<"batch", "", "width">>) -> tensor<?x8x?xf32, #onnx.dims<"batch", "", "8*width">>
// CHECK:         %batch = onnx.Gather v13(%shape, %first) : (tensor<3xi64>, tensor<1xi64>) -> tensor<1xi64>
// CHECK:         %y = onnx.Reshape v14(%x, %target) : {{.*}} -> tensor<?x8x?xf32, #onnx.dims<"batch", "", "8*width">>

// -----

// What depends on data has a symbol and a range, and what the model states is kept.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
  func.func @main(%x: tensor<4xf32>) -> (!onnx.any, !onnx.any) {
    %y = onnx.NonZero v13(%x) : (tensor<4xf32>) -> !onnx.any
    %m = onnx.custom "com.example", "Mystery"(%x) : (tensor<4xf32>) -> tensor<8xf32>
    %z = onnx.Relu v14(%m) : (tensor<8xf32>) -> !onnx.any
    func.return %y, %z : !onnx.any, !onnx.any
  }
}
// CHECK:       builtin.module attributes {{.*}}onnx.dim_bounds = {y_d1 = array<i64: 0, 4, 4>}
// CHECK:       func.func @main(%x: tensor<4xf32>) -> (tensor<1x?xi64, #onnx.dims<"", "y_d1">>, tensor<8xf32>)
// CHECK:         %m = onnx.custom "com.example", "Mystery"(%x) : (tensor<4xf32>) -> tensor<8xf32>
// CHECK-NEXT:    %z = onnx.Relu v14(%m) : (tensor<8xf32>) -> tensor<8xf32>

// -----

// Old versions of operators, which the library has no rule for, have ONNX's own.

builtin.module attributes {onnx.opsets = {"" = 7 : i64}} {
  func.func @main(%x: tensor<?x8xf32, #onnx.dims<"batch", "">>) -> (!onnx.any, !onnx.any) {
    %y = onnx.Slice v1(%x) {axes = [1], ends = [3], starts = [1]} : (tensor<?x8xf32, #onnx.dims<"batch", "">>) -> !onnx.any
    %v, %i = onnx.TopK v1(%y) {axis = 1, k = 1} : (!onnx.any) -> (!onnx.any, !onnx.any)
    func.return %y, %i : !onnx.any, !onnx.any
  }
}
// CHECK:       func.func @main(%x: {{.*}}) -> (tensor<?x2xf32, #onnx.dims<"batch", "">>, tensor<?x1xi64, #onnx.dims<"batch", "">>)

// -----

// So have maps, and operators of ONNX's domain for classical models.

builtin.module attributes {onnx.opsets = {"" = 17 : i64, "ai.onnx.ml" = 3 : i64}} {
  func.func @main(%x: !onnx.map<!onnx.string, tensor<f32>>, %z: tensor<?x3xf32, #onnx.dims<"n", "">>) -> (!onnx.any, !onnx.any, !onnx.any) {
    %y = onnx.ai.onnx.ml.DictVectorizer v1(%x) {string_vocabulary = ["a", "b"]} : (!onnx.map<!onnx.string, tensor<f32>>) -> !onnx.any
    %s = onnx.ai.onnx.ml.Scaler v1(%z) {offset = [1.0], scale = [2.0]} : (tensor<?x3xf32, #onnx.dims<"n", "">>) -> !onnx.any
    %r = onnx.ai.onnx.ml.LinearRegressor v1(%s) {coefficients = [1.0, 1.0, 1.0]} : (!onnx.any) -> !onnx.any
    func.return %y, %s, %r : !onnx.any, !onnx.any, !onnx.any
  }
}
// CHECK:       func.func @main({{.*}}) -> (tensor<*xf32>, tensor<?x3xf32, #onnx.dims<"n", "">>, tensor<?x1xf32, #onnx.dims<"n", "">>)

// -----

// Limits are taken at the largest sizes of the inputs, a range that was narrowed stays, one that nothing has any more goes.

builtin.module attributes {onnx.opsets = {"" = 17 : i64}, onnx.dim_bounds = {"n" = array<i64: 1, 8, 100>, "old_d0" = array<i64: 0, 1, 1>, "u_d0" = array<i64: 0, 7, 500>}} {
  func.func @main(%b: tensor<2x?x4xf32, #onnx.dims<"", "n", "">>, %s: tensor<2x3x?xf32, #onnx.dims<"", "", "n">>, %k: tensor<1xi64>, %m: tensor<?xi1, #onnx.dims<"n">>)
      -> (!onnx.any, !onnx.any, !onnx.any, !onnx.any, !onnx.any, !onnx.any) {
    %most = onnx.initializer {value = dense<5> : tensor<1xi64>} : tensor<1xi64>
    %kept = onnx.NonMaxSuppression v11(%b, %s, %most) : (tensor<2x?x4xf32, #onnx.dims<"", "n", "">>, tensor<2x3x?xf32, #onnx.dims<"", "", "n">>, tensor<1xi64>) -> !onnx.any
    %v, %i = onnx.TopK v11(%s, %k) : (tensor<2x3x?xf32, #onnx.dims<"", "", "n">>, tensor<1xi64>) -> (!onnx.any, !onnx.any)
    %u, %first, %inverse, %counts = onnx.Unique v11(%s) : (tensor<2x3x?xf32, #onnx.dims<"", "", "n">>) -> (!onnx.any, !onnx.any, !onnx.any, !onnx.any)
    %c = onnx.Compress v11(%b, %m) {axis = 1} : (tensor<2x?x4xf32, #onnx.dims<"", "n", "">>, tensor<?xi1, #onnx.dims<"n">>) -> !onnx.any
    %zero = onnx.initializer {value = dense<0> : tensor<1xi64>} : tensor<1xi64>
    %part = onnx.Slice v13(%b, %zero, %k, %zero) : (tensor<2x?x4xf32, #onnx.dims<"", "n", "">>, tensor<1xi64>, tensor<1xi64>, tensor<1xi64>) -> !onnx.any
    func.return %kept, %v, %i, %counts, %c, %part : !onnx.any, !onnx.any, !onnx.any, !onnx.any, !onnx.any, !onnx.any
  }
}
// CHECK:       builtin.module attributes {{.*}}onnx.dim_bounds = {c_d1 = array<i64: 0, 100, 100>, kept_d0 = array<i64: 0, 30, 30>, n = array<i64: 1, 8, 100>, {{.*}}u_d0 = array<i64: 0, 7, 500>, v_d2 = array<i64: 0, 100, 100>}
// CHECK-NEXT:  func.func @main({{.*}}) -> (tensor<?x3xi64, #onnx.dims<"kept_d0", "">>, tensor<2x3x?xf32, #onnx.dims<"", "", "v_d2">>, tensor<2x3x?xi64, #onnx.dims<"", "", "v_d2">>, tensor<?xi64, #onnx.dims<"u_d0">>, tensor<2x?x4xf32, #onnx.dims<"", "c_d1", "">>, tensor<?x?x?xf32, #onnx.dims<"part_d0", "part_d1", "part_d2">>)
