// RUN: gimlet-opt %s --split-input-file -p fuse-rotary,dce | filecheck %s

// One batch of angles is spread over the batches of x.

builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
  func.func @main(%x: tensor<2x2x3x8xf32>, %angles: tensor<1x3x4xf32>) -> tensor<2x2x3x8xf32> {
    %one = onnx.initializer {value = dense<1> : tensor<1xi64>} : tensor<1xi64>
    %twice = onnx.Concat(%angles, %angles) {axis = -1} : (tensor<1x3x4xf32>, tensor<1x3x4xf32>) -> tensor<1x3x8xf32>
    %cos = onnx.Cos(%twice) : (tensor<1x3x8xf32>) -> tensor<1x3x8xf32>
    %sin = onnx.Sin(%twice) : (tensor<1x3x8xf32>) -> tensor<1x3x8xf32>
    %cos1 = onnx.Unsqueeze(%cos, %one) : (tensor<1x3x8xf32>, tensor<1xi64>) -> tensor<1x1x3x8xf32>
    %sin1 = onnx.Unsqueeze(%sin, %one) : (tensor<1x3x8xf32>, tensor<1xi64>) -> tensor<1x1x3x8xf32>
    %plain = onnx.Mul(%x, %cos1) : (tensor<2x2x3x8xf32>, tensor<1x1x3x8xf32>) -> tensor<2x2x3x8xf32>
    %low, %high = onnx.Split(%x) {axis = -1, num_outputs = 2} : (tensor<2x2x3x8xf32>) -> (tensor<2x2x3x4xf32>, tensor<2x2x3x4xf32>)
    %neg = onnx.Neg(%high) : (tensor<2x2x3x4xf32>) -> tensor<2x2x3x4xf32>
    %turned = onnx.Concat(%neg, %low) {axis = -1} : (tensor<2x2x3x4xf32>, tensor<2x2x3x4xf32>) -> tensor<2x2x3x8xf32>
    %across = onnx.Mul(%turned, %sin1) : (tensor<2x2x3x8xf32>, tensor<1x1x3x8xf32>) -> tensor<2x2x3x8xf32>
    %y = onnx.Add(%across, %plain) : (tensor<2x2x3x8xf32>, tensor<2x2x3x8xf32>) -> tensor<2x2x3x8xf32>
    func.return %y : tensor<2x2x3x8xf32>
  }
}
// CHECK:         %cos_half = onnx.Cos(%angles)
// CHECK-NEXT:    %sin_half = onnx.Sin(%angles)
// CHECK:         %cos_half_spread = onnx.Expand(%cos_half, %cos_half_spread_sizes)
// CHECK-SAME:      -> tensor<2x3x4xf32>
// CHECK:         %y = onnx.RotaryEmbedding(%x, %cos_half_spread, %sin_half_spread)
// CHECK-NEXT:    func.return %y

// -----

// Over a dynamic number of batches.

builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
  func.func @main(%x: tensor<?x2x3x8xf32, #onnx.dims<"batch", "", "", "">>, %angles: tensor<1x3x4xf32>) -> tensor<?x2x3x8xf32, #onnx.dims<"batch", "", "", "">> {
    %one = onnx.initializer {value = dense<1> : tensor<1xi64>} : tensor<1xi64>
    %twice = onnx.Concat(%angles, %angles) {axis = -1} : (tensor<1x3x4xf32>, tensor<1x3x4xf32>) -> tensor<1x3x8xf32>
    %cos = onnx.Cos(%twice) : (tensor<1x3x8xf32>) -> tensor<1x3x8xf32>
    %sin = onnx.Sin(%twice) : (tensor<1x3x8xf32>) -> tensor<1x3x8xf32>
    %cos1 = onnx.Unsqueeze(%cos, %one) : (tensor<1x3x8xf32>, tensor<1xi64>) -> tensor<1x1x3x8xf32>
    %sin1 = onnx.Unsqueeze(%sin, %one) : (tensor<1x3x8xf32>, tensor<1xi64>) -> tensor<1x1x3x8xf32>
    %plain = onnx.Mul(%x, %cos1) : (tensor<?x2x3x8xf32, #onnx.dims<"batch", "", "", "">>, tensor<1x1x3x8xf32>) -> tensor<?x2x3x8xf32, #onnx.dims<"batch", "", "", "">>
    %low, %high = onnx.Split(%x) {axis = -1, num_outputs = 2} : (tensor<?x2x3x8xf32, #onnx.dims<"batch", "", "", "">>) -> (tensor<?x2x3x4xf32, #onnx.dims<"batch", "", "", "">>, tensor<?x2x3x4xf32, #onnx.dims<"batch", "", "", "">>)
    %neg = onnx.Neg(%high) : (tensor<?x2x3x4xf32, #onnx.dims<"batch", "", "", "">>) -> tensor<?x2x3x4xf32, #onnx.dims<"batch", "", "", "">>
    %turned = onnx.Concat(%neg, %low) {axis = -1} : (tensor<?x2x3x4xf32, #onnx.dims<"batch", "", "", "">>, tensor<?x2x3x4xf32, #onnx.dims<"batch", "", "", "">>) -> tensor<?x2x3x8xf32, #onnx.dims<"batch", "", "", "">>
    %across = onnx.Mul(%turned, %sin1) : (tensor<?x2x3x8xf32, #onnx.dims<"batch", "", "", "">>, tensor<1x1x3x8xf32>) -> tensor<?x2x3x8xf32, #onnx.dims<"batch", "", "", "">>
    %y = onnx.Add(%across, %plain) : (tensor<?x2x3x8xf32, #onnx.dims<"batch", "", "", "">>, tensor<?x2x3x8xf32, #onnx.dims<"batch", "", "", "">>) -> tensor<?x2x3x8xf32, #onnx.dims<"batch", "", "", "">>
    func.return %y : tensor<?x2x3x8xf32, #onnx.dims<"batch", "", "", "">>
  }
}
// CHECK:         %cos_half_spread_batch = onnx.Shape(%x) {start = 0, end = 1}
// CHECK:         onnx.Expand(%cos_half, %cos_half_spread_shape)
// CHECK-SAME:      -> tensor<?x3x4xf32, #onnx.dims<"batch", "", "">>
// CHECK:         %y = onnx.RotaryEmbedding(%x, %cos_half_spread, %sin_half_spread)

// -----

// Constants with equal halves.

builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
  func.func @main(%x: tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32> {
    %cos1 = onnx.initializer {value = dense<[[[[1.0, 2.0, 1.0, 2.0], [3.0, 4.0, 3.0, 4.0], [5.0, 6.0, 5.0, 6.0]]]]> : tensor<1x1x3x4xf32>} : tensor<1x1x3x4xf32>
    %sin1 = onnx.initializer {value = dense<[[[[1.0, 2.0, 1.0, 2.0], [3.0, 4.0, 3.0, 4.0], [5.0, 6.0, 5.0, 6.0]]]]> : tensor<1x1x3x4xf32>} : tensor<1x1x3x4xf32>
    %plain = onnx.Mul(%x, %cos1) : (tensor<1x2x3x4xf32>, tensor<1x1x3x4xf32>) -> tensor<1x2x3x4xf32>
    %low, %high = onnx.Split(%x) {axis = -1, num_outputs = 2} : (tensor<1x2x3x4xf32>) -> (tensor<1x2x3x2xf32>, tensor<1x2x3x2xf32>)
    %neg = onnx.Neg(%high) : (tensor<1x2x3x2xf32>) -> tensor<1x2x3x2xf32>
    %turned = onnx.Concat(%neg, %low) {axis = -1} : (tensor<1x2x3x2xf32>, tensor<1x2x3x2xf32>) -> tensor<1x2x3x4xf32>
    %across = onnx.Mul(%turned, %sin1) : (tensor<1x2x3x4xf32>, tensor<1x1x3x4xf32>) -> tensor<1x2x3x4xf32>
    %y = onnx.Add(%across, %plain) : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
    func.return %y : tensor<1x2x3x4xf32>
  }
}
// CHECK:         %cos1_half = onnx.initializer {value = dense<{{\[\[\[}}1.000000e+00, 2.000000e+00], [3.000000e+00, 4.000000e+00], [5.000000e+00, 6.000000e+00]]]> : tensor<1x3x2xf32>}
// CHECK:         %y = onnx.RotaryEmbedding(%x, %cos1_half, %sin1_half)

// -----

// Constants of which one has different halves.

builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
  func.func @main(%x: tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32> {
    %cos1 = onnx.initializer {value = dense<[[[[1.0, 2.0, 1.0, 2.0], [3.0, 4.0, 3.0, 4.0], [5.0, 6.0, 5.0, 6.0]]]]> : tensor<1x1x3x4xf32>} : tensor<1x1x3x4xf32>
    %sin1 = onnx.initializer {value = dense<[[[[1.0, 2.0, 1.0, 2.0], [3.0, 4.0, 3.0, 4.0], [5.0, 6.0, 5.0, 7.0]]]]> : tensor<1x1x3x4xf32>} : tensor<1x1x3x4xf32>
    %plain = onnx.Mul(%x, %cos1) : (tensor<1x2x3x4xf32>, tensor<1x1x3x4xf32>) -> tensor<1x2x3x4xf32>
    %low, %high = onnx.Split(%x) {axis = -1, num_outputs = 2} : (tensor<1x2x3x4xf32>) -> (tensor<1x2x3x2xf32>, tensor<1x2x3x2xf32>)
    %neg = onnx.Neg(%high) : (tensor<1x2x3x2xf32>) -> tensor<1x2x3x2xf32>
    %turned = onnx.Concat(%neg, %low) {axis = -1} : (tensor<1x2x3x2xf32>, tensor<1x2x3x2xf32>) -> tensor<1x2x3x4xf32>
    %across = onnx.Mul(%turned, %sin1) : (tensor<1x2x3x4xf32>, tensor<1x1x3x4xf32>) -> tensor<1x2x3x4xf32>
    %y = onnx.Add(%across, %plain) : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
    func.return %y : tensor<1x2x3x4xf32>
  }
}
// CHECK-NOT:     onnx.RotaryEmbedding
// CHECK:         onnx.Neg

// -----

// Rows of a table by position, behind a factor that is the same along the last dimension.

builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
  func.func @main(%x: tensor<1x2x3x4xf32>, %ids: tensor<1x3xi64>, %factor: tensor<1x3x1xf32>) -> tensor<1x2x3x4xf32> {
    %one = onnx.initializer {value = dense<1> : tensor<1xi64>} : tensor<1xi64>
    %table = onnx.initializer {value = dense<[[1.0, 2.0, 1.0, 2.0], [3.0, 4.0, 3.0, 4.0]]> : tensor<2x4xf32>} : tensor<2x4xf32>
    %cos = onnx.Gather(%table, %ids) {axis = 0} : (tensor<2x4xf32>, tensor<1x3xi64>) -> tensor<1x3x4xf32>
    %scaled = onnx.Mul(%cos, %factor) : (tensor<1x3x4xf32>, tensor<1x3x1xf32>) -> tensor<1x3x4xf32>
    %cos1 = onnx.Unsqueeze(%scaled, %one) : (tensor<1x3x4xf32>, tensor<1xi64>) -> tensor<1x1x3x4xf32>
    %sin1 = onnx.Unsqueeze(%cos, %one) : (tensor<1x3x4xf32>, tensor<1xi64>) -> tensor<1x1x3x4xf32>
    %plain = onnx.Mul(%x, %cos1) : (tensor<1x2x3x4xf32>, tensor<1x1x3x4xf32>) -> tensor<1x2x3x4xf32>
    %low, %high = onnx.Split(%x) {axis = -1, num_outputs = 2} : (tensor<1x2x3x4xf32>) -> (tensor<1x2x3x2xf32>, tensor<1x2x3x2xf32>)
    %neg = onnx.Neg(%high) : (tensor<1x2x3x2xf32>) -> tensor<1x2x3x2xf32>
    %turned = onnx.Concat(%neg, %low) {axis = -1} : (tensor<1x2x3x2xf32>, tensor<1x2x3x2xf32>) -> tensor<1x2x3x4xf32>
    %across = onnx.Mul(%turned, %sin1) : (tensor<1x2x3x4xf32>, tensor<1x1x3x4xf32>) -> tensor<1x2x3x4xf32>
    %y = onnx.Add(%across, %plain) : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
    func.return %y : tensor<1x2x3x4xf32>
  }
}
// CHECK:         %cos_half = onnx.Gather(%table_half, %ids) {axis = 0} : (tensor<2x2xf32>, tensor<1x3xi64>) -> tensor<1x3x2xf32>
// CHECK:         %scaled_half = onnx.Mul(%cos_half, %factor) : (tensor<1x3x2xf32>, tensor<1x3x1xf32>) -> tensor<1x3x2xf32>
// CHECK:         %y = onnx.RotaryEmbedding(%x, %scaled_half, %cos_half)

// -----

// A factor that differs along the last dimension.

builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
  func.func @main(%x: tensor<1x2x3x4xf32>, %angles: tensor<1x1x3x2xf32>, %factor: tensor<4xf32>) -> tensor<1x2x3x4xf32> {
    %twice = onnx.Concat(%angles, %angles) {axis = 3} : (tensor<1x1x3x2xf32>, tensor<1x1x3x2xf32>) -> tensor<1x1x3x4xf32>
    %cos1 = onnx.Cos(%twice) : (tensor<1x1x3x4xf32>) -> tensor<1x1x3x4xf32>
    %sin1 = onnx.Mul(%twice, %factor) : (tensor<1x1x3x4xf32>, tensor<4xf32>) -> tensor<1x1x3x4xf32>
    %plain = onnx.Mul(%x, %cos1) : (tensor<1x2x3x4xf32>, tensor<1x1x3x4xf32>) -> tensor<1x2x3x4xf32>
    %low, %high = onnx.Split(%x) {axis = -1, num_outputs = 2} : (tensor<1x2x3x4xf32>) -> (tensor<1x2x3x2xf32>, tensor<1x2x3x2xf32>)
    %neg = onnx.Neg(%high) : (tensor<1x2x3x2xf32>) -> tensor<1x2x3x2xf32>
    %turned = onnx.Concat(%neg, %low) {axis = -1} : (tensor<1x2x3x2xf32>, tensor<1x2x3x2xf32>) -> tensor<1x2x3x4xf32>
    %across = onnx.Mul(%turned, %sin1) : (tensor<1x2x3x4xf32>, tensor<1x1x3x4xf32>) -> tensor<1x2x3x4xf32>
    %y = onnx.Add(%across, %plain) : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
    func.return %y : tensor<1x2x3x4xf32>
  }
}
// CHECK-NOT:     onnx.RotaryEmbedding
// CHECK:         onnx.Neg

// -----

// The dimension of heads is there from the start.

builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
  func.func @main(%x: tensor<1x2x3x4xf32>, %angles: tensor<1x1x3x2xf32>) -> tensor<1x2x3x4xf32> {
    %twice = onnx.Concat(%angles, %angles) {axis = 3} : (tensor<1x1x3x2xf32>, tensor<1x1x3x2xf32>) -> tensor<1x1x3x4xf32>
    %cos1 = onnx.Cos(%twice) : (tensor<1x1x3x4xf32>) -> tensor<1x1x3x4xf32>
    %sin1 = onnx.Sin(%twice) : (tensor<1x1x3x4xf32>) -> tensor<1x1x3x4xf32>
    %plain = onnx.Mul(%x, %cos1) : (tensor<1x2x3x4xf32>, tensor<1x1x3x4xf32>) -> tensor<1x2x3x4xf32>
    %low, %high = onnx.Split(%x) {axis = -1, num_outputs = 2} : (tensor<1x2x3x4xf32>) -> (tensor<1x2x3x2xf32>, tensor<1x2x3x2xf32>)
    %neg = onnx.Neg(%high) : (tensor<1x2x3x2xf32>) -> tensor<1x2x3x2xf32>
    %turned = onnx.Concat(%neg, %low) {axis = -1} : (tensor<1x2x3x2xf32>, tensor<1x2x3x2xf32>) -> tensor<1x2x3x4xf32>
    %across = onnx.Mul(%turned, %sin1) : (tensor<1x2x3x4xf32>, tensor<1x1x3x4xf32>) -> tensor<1x2x3x4xf32>
    %y = onnx.Add(%across, %plain) : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
    func.return %y : tensor<1x2x3x4xf32>
  }
}
// CHECK:         %cos1_cache = onnx.Squeeze(%cos1_half, %cos1_cache_axis) : (tensor<1x1x3x2xf32>, tensor<1xi64>) -> tensor<1x3x2xf32>
// CHECK:         %sin1_cache = onnx.Squeeze(%sin1_half, %sin1_cache_axis)
// CHECK-NEXT:    %y = onnx.RotaryEmbedding(%x, %cos1_cache, %sin1_cache)

// -----

// Two different halves of angles.

builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
  func.func @main(%x: tensor<1x2x3x8xf32>, %angles: tensor<1x3x4xf32>, %others: tensor<1x3x4xf32>) -> tensor<1x2x3x8xf32> {
    %one = onnx.initializer {value = dense<1> : tensor<1xi64>} : tensor<1xi64>
    %twice = onnx.Concat(%angles, %others) {axis = -1} : (tensor<1x3x4xf32>, tensor<1x3x4xf32>) -> tensor<1x3x8xf32>
    %cos = onnx.Cos(%twice) : (tensor<1x3x8xf32>) -> tensor<1x3x8xf32>
    %sin = onnx.Sin(%twice) : (tensor<1x3x8xf32>) -> tensor<1x3x8xf32>
    %cos1 = onnx.Unsqueeze(%cos, %one) : (tensor<1x3x8xf32>, tensor<1xi64>) -> tensor<1x1x3x8xf32>
    %sin1 = onnx.Unsqueeze(%sin, %one) : (tensor<1x3x8xf32>, tensor<1xi64>) -> tensor<1x1x3x8xf32>
    %plain = onnx.Mul(%x, %cos1) : (tensor<1x2x3x8xf32>, tensor<1x1x3x8xf32>) -> tensor<1x2x3x8xf32>
    %low, %high = onnx.Split(%x) {axis = -1, num_outputs = 2} : (tensor<1x2x3x8xf32>) -> (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>)
    %neg = onnx.Neg(%high) : (tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
    %turned = onnx.Concat(%neg, %low) {axis = -1} : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x8xf32>
    %across = onnx.Mul(%turned, %sin1) : (tensor<1x2x3x8xf32>, tensor<1x1x3x8xf32>) -> tensor<1x2x3x8xf32>
    %y = onnx.Add(%across, %plain) : (tensor<1x2x3x8xf32>, tensor<1x2x3x8xf32>) -> tensor<1x2x3x8xf32>
    func.return %y : tensor<1x2x3x8xf32>
  }
}
// CHECK-NOT:     onnx.RotaryEmbedding
// CHECK:         onnx.Neg

// -----

// The first half is negated.

builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
  func.func @main(%x: tensor<1x2x3x8xf32>, %angles: tensor<1x3x4xf32>) -> tensor<1x2x3x8xf32> {
    %one = onnx.initializer {value = dense<1> : tensor<1xi64>} : tensor<1xi64>
    %twice = onnx.Concat(%angles, %angles) {axis = -1} : (tensor<1x3x4xf32>, tensor<1x3x4xf32>) -> tensor<1x3x8xf32>
    %cos = onnx.Cos(%twice) : (tensor<1x3x8xf32>) -> tensor<1x3x8xf32>
    %sin = onnx.Sin(%twice) : (tensor<1x3x8xf32>) -> tensor<1x3x8xf32>
    %cos1 = onnx.Unsqueeze(%cos, %one) : (tensor<1x3x8xf32>, tensor<1xi64>) -> tensor<1x1x3x8xf32>
    %sin1 = onnx.Unsqueeze(%sin, %one) : (tensor<1x3x8xf32>, tensor<1xi64>) -> tensor<1x1x3x8xf32>
    %plain = onnx.Mul(%x, %cos1) : (tensor<1x2x3x8xf32>, tensor<1x1x3x8xf32>) -> tensor<1x2x3x8xf32>
    %low, %high = onnx.Split(%x) {axis = -1, num_outputs = 2} : (tensor<1x2x3x8xf32>) -> (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>)
    %neg = onnx.Neg(%low) : (tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
    %turned = onnx.Concat(%neg, %high) {axis = -1} : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x8xf32>
    %across = onnx.Mul(%turned, %sin1) : (tensor<1x2x3x8xf32>, tensor<1x1x3x8xf32>) -> tensor<1x2x3x8xf32>
    %y = onnx.Add(%across, %plain) : (tensor<1x2x3x8xf32>, tensor<1x2x3x8xf32>) -> tensor<1x2x3x8xf32>
    func.return %y : tensor<1x2x3x8xf32>
  }
}
// CHECK-NOT:     onnx.RotaryEmbedding
// CHECK:         onnx.Neg

// -----

// Halves of the positions, not of the last dimension.

builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
  func.func @main(%x: tensor<1x2x4x8xf32>) -> tensor<1x2x4x8xf32> {
    %cos1 = onnx.initializer {value = dense<0.0> : tensor<1x1x4x8xf32>} : tensor<1x1x4x8xf32>
    %plain = onnx.Mul(%x, %cos1) : (tensor<1x2x4x8xf32>, tensor<1x1x4x8xf32>) -> tensor<1x2x4x8xf32>
    %low, %high = onnx.Split(%x) {axis = 2, num_outputs = 2} : (tensor<1x2x4x8xf32>) -> (tensor<1x2x2x8xf32>, tensor<1x2x2x8xf32>)
    %neg = onnx.Neg(%high) : (tensor<1x2x2x8xf32>) -> tensor<1x2x2x8xf32>
    %turned = onnx.Concat(%neg, %low) {axis = 2} : (tensor<1x2x2x8xf32>, tensor<1x2x2x8xf32>) -> tensor<1x2x4x8xf32>
    %across = onnx.Mul(%turned, %cos1) : (tensor<1x2x4x8xf32>, tensor<1x1x4x8xf32>) -> tensor<1x2x4x8xf32>
    %y = onnx.Add(%across, %plain) : (tensor<1x2x4x8xf32>, tensor<1x2x4x8xf32>) -> tensor<1x2x4x8xf32>
    func.return %y : tensor<1x2x4x8xf32>
  }
}
// CHECK-NOT:     onnx.RotaryEmbedding
// CHECK:         onnx.Neg

// -----

// Somebody else reads what is negated.

builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
  func.func @main(%x: tensor<1x2x3x8xf32>, %angles: tensor<1x3x4xf32>) -> (tensor<1x2x3x8xf32>, tensor<1x2x3x4xf32>) {
    %one = onnx.initializer {value = dense<1> : tensor<1xi64>} : tensor<1xi64>
    %twice = onnx.Concat(%angles, %angles) {axis = -1} : (tensor<1x3x4xf32>, tensor<1x3x4xf32>) -> tensor<1x3x8xf32>
    %cos = onnx.Cos(%twice) : (tensor<1x3x8xf32>) -> tensor<1x3x8xf32>
    %sin = onnx.Sin(%twice) : (tensor<1x3x8xf32>) -> tensor<1x3x8xf32>
    %cos1 = onnx.Unsqueeze(%cos, %one) : (tensor<1x3x8xf32>, tensor<1xi64>) -> tensor<1x1x3x8xf32>
    %sin1 = onnx.Unsqueeze(%sin, %one) : (tensor<1x3x8xf32>, tensor<1xi64>) -> tensor<1x1x3x8xf32>
    %plain = onnx.Mul(%x, %cos1) : (tensor<1x2x3x8xf32>, tensor<1x1x3x8xf32>) -> tensor<1x2x3x8xf32>
    %low, %high = onnx.Split(%x) {axis = -1, num_outputs = 2} : (tensor<1x2x3x8xf32>) -> (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>)
    %neg = onnx.Neg(%high) : (tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
    %turned = onnx.Concat(%neg, %low) {axis = -1} : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x8xf32>
    %across = onnx.Mul(%turned, %sin1) : (tensor<1x2x3x8xf32>, tensor<1x1x3x8xf32>) -> tensor<1x2x3x8xf32>
    %y = onnx.Add(%across, %plain) : (tensor<1x2x3x8xf32>, tensor<1x2x3x8xf32>) -> tensor<1x2x3x8xf32>
    func.return %y, %neg : tensor<1x2x3x8xf32>, tensor<1x2x3x4xf32>
  }
}
// CHECK-NOT:     onnx.RotaryEmbedding
// CHECK:         onnx.Neg

// -----

// Another type than float32, float16 and bfloat16.

builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
  func.func @main(%x: tensor<1x2x3x8xf64>) -> tensor<1x2x3x8xf64> {
    %cos1 = onnx.initializer {value = dense<0.0> : tensor<1x1x3x8xf64>} : tensor<1x1x3x8xf64>
    %sin1 = onnx.initializer {value = dense<0.0> : tensor<1x1x3x8xf64>} : tensor<1x1x3x8xf64>
    %plain = onnx.Mul(%x, %cos1) : (tensor<1x2x3x8xf64>, tensor<1x1x3x8xf64>) -> tensor<1x2x3x8xf64>
    %low, %high = onnx.Split(%x) {axis = -1, num_outputs = 2} : (tensor<1x2x3x8xf64>) -> (tensor<1x2x3x4xf64>, tensor<1x2x3x4xf64>)
    %neg = onnx.Neg(%high) : (tensor<1x2x3x4xf64>) -> tensor<1x2x3x4xf64>
    %turned = onnx.Concat(%neg, %low) {axis = -1} : (tensor<1x2x3x4xf64>, tensor<1x2x3x4xf64>) -> tensor<1x2x3x8xf64>
    %across = onnx.Mul(%turned, %sin1) : (tensor<1x2x3x8xf64>, tensor<1x1x3x8xf64>) -> tensor<1x2x3x8xf64>
    %y = onnx.Add(%across, %plain) : (tensor<1x2x3x8xf64>, tensor<1x2x3x8xf64>) -> tensor<1x2x3x8xf64>
    func.return %y : tensor<1x2x3x8xf64>
  }
}
// CHECK-NOT:     onnx.RotaryEmbedding
// CHECK:         onnx.Neg

// -----

// Each head has its own angles.

builtin.module attributes {onnx.opsets = {"" = 25 : i64}} {
  func.func @main(%x: tensor<1x2x3x8xf32>) -> tensor<1x2x3x8xf32> {
    %cos1 = onnx.initializer {value = dense<0.0> : tensor<1x2x3x8xf32>} : tensor<1x2x3x8xf32>
    %sin1 = onnx.initializer {value = dense<0.0> : tensor<1x2x3x8xf32>} : tensor<1x2x3x8xf32>
    %plain = onnx.Mul(%x, %cos1) : (tensor<1x2x3x8xf32>, tensor<1x2x3x8xf32>) -> tensor<1x2x3x8xf32>
    %low, %high = onnx.Split(%x) {axis = -1, num_outputs = 2} : (tensor<1x2x3x8xf32>) -> (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>)
    %neg = onnx.Neg(%high) : (tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
    %turned = onnx.Concat(%neg, %low) {axis = -1} : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x8xf32>
    %across = onnx.Mul(%turned, %sin1) : (tensor<1x2x3x8xf32>, tensor<1x2x3x8xf32>) -> tensor<1x2x3x8xf32>
    %y = onnx.Add(%across, %plain) : (tensor<1x2x3x8xf32>, tensor<1x2x3x8xf32>) -> tensor<1x2x3x8xf32>
    func.return %y : tensor<1x2x3x8xf32>
  }
}
// CHECK-NOT:     onnx.RotaryEmbedding
// CHECK:         onnx.Neg

// -----

// Below the operator's opset.

builtin.module attributes {onnx.opsets = {"" = 22 : i64}} {
  func.func @main(%x: tensor<1x2x3x8xf32>) -> tensor<1x2x3x8xf32> {
    %cos1 = onnx.initializer {value = dense<0.0> : tensor<1x1x3x8xf32>} : tensor<1x1x3x8xf32>
    %sin1 = onnx.initializer {value = dense<0.0> : tensor<1x1x3x8xf32>} : tensor<1x1x3x8xf32>
    %plain = onnx.Mul(%x, %cos1) : (tensor<1x2x3x8xf32>, tensor<1x1x3x8xf32>) -> tensor<1x2x3x8xf32>
    %low, %high = onnx.Split(%x) {axis = -1, num_outputs = 2} : (tensor<1x2x3x8xf32>) -> (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>)
    %neg = onnx.Neg(%high) : (tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
    %turned = onnx.Concat v13(%neg, %low) {axis = -1} : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x8xf32>
    %across = onnx.Mul(%turned, %sin1) : (tensor<1x2x3x8xf32>, tensor<1x1x3x8xf32>) -> tensor<1x2x3x8xf32>
    %y = onnx.Add(%across, %plain) : (tensor<1x2x3x8xf32>, tensor<1x2x3x8xf32>) -> tensor<1x2x3x8xf32>
    func.return %y : tensor<1x2x3x8xf32>
  }
}
// CHECK-NOT:     onnx.RotaryEmbedding
// CHECK:         onnx.Neg
