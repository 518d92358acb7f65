// inline-functions,cse,infer-shapes,fold-constants,canonicalize-onnx,cse,dce,infer-shapes,fuse-normalization{keep_parts=true},fuse-activations{keep_parts=true},fuse-rotary{keep_parts=true},fuse-attention{keep_parts=true},write-out-experts{keep_parts=true},write-out-operators{keep_parts=true},dce,annotate-costs
builtin.module attributes {onnx.opsets = {"" = 21 : i64, com.example = 3 : i64, com.microsoft = 1 : i64}, onnx.ir_version = 12 : i64, onnx.model = {graph_name = "g"}, gimlet.phase = "import", gimlet.dialect_version = 1 : i64} {
  func.func @main(%x: tensor<3x4xf32> {onnx.name = "x"}) -> (tensor<3x4xf32> {onnx.name = "y"}, tensor<3xf32> {onnx.name = "z"}) {
    %c = onnx.Constant v21 {sparse_value = #onnx.sparse_tensor<dense<[1.500000e+00, -2.000000e+00, 3.000000e+00]> : tensor<3xf32>, dense<[1, 9223372036854775807, 11]> : tensor<3xi64>, tensor<3x4xf32>>} : !onnx.any
    %y = onnx.Add(%x, %c) : (tensor<3x4xf32>, !onnx.any) -> tensor<3x4xf32>
    %z = onnx.custom "com.example", "Table"(%y) {rows = [#onnx.sparse_tensor<dense<[1.500000e+00, -2.000000e+00, 3.000000e+00]> : tensor<3xf32>, dense<[1, 5, 11]> : tensor<3xi64>, tensor<3x4xf32>>, #onnx.sparse_tensor<dense<[1.500000e+00, -2.000000e+00, 3.000000e+00]> : tensor<3xf32>, dense<[1, 5, 11]> : tensor<3xi64>, tensor<3x4xf32>>]} : (tensor<3x4xf32>) -> tensor<3xf32>
    func.return %y, %z : tensor<3x4xf32>, tensor<3xf32>
  }
}