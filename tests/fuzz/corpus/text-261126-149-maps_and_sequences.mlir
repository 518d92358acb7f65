// inline-functions,cse,infer-shapes,fold-constants,canonicalize-onnx,cse,dce,infer-shapes,fuse-normalization{keep_parts=true},fuse-activations{keep_parts=true},fuse-rotary{keep_parts=true},fuse-attention{keep_parts=true},write-out-experts{keep_parts=true},write-out-operators{keep_parts=true},dce,annotate-costs
builtin.module attributes {onnx.opsets = {"" = 21 : i64, ai.onnx.ml =  "g"}, gimlet.phase = "import", gimlet.dialect_version = 1 : i64} {
  func.func @main(%x: tensor<?x3xf32, #onnx.dims<"n", "">> {onnx.name = "x"}) -> (!onnx.seq<!onnx.map<i64, tensor<f32>>> {onnx.name = "m"}) {
    %m = onnx.ai.onnx.ml.ZipMap(%x) {classlabels_int64s = [1, 2, 3]} : (tensor<?x3xf32, #onnx.dims<"n", "">>) -> !onnx.seq<!onnx.map<i64, tensor<f32>>>
    func.return %m : !onnx.seq<!onnx.map<i64, tensor<f32>>>
  }
}