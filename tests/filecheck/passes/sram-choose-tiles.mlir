// RUN: gimlet-opt %s --split-input-file --verify-diagnostics -p sram-choose-tiles | filecheck %s
// RUN: gimlet-opt %s --split-input-file --verify-diagnostics -p 'sram-choose-tiles{format=mxint8 room=65536}' | filecheck %s --check-prefix=MX
// RUN: gimlet-opt %s --split-input-file --verify-diagnostics -p 'sram-choose-tiles{format=fp8}' | filecheck %s --check-prefix=FORMAT
// RUN: gimlet-opt %s --split-input-file --verify-diagnostics -p 'sram-choose-tiles{room=65536},sram-lower' | filecheck %s --check-prefix=LOWER

// Weights stay on the cores that multiply with them, and a tile of the first in the array for its rows; what was chosen
// for is said beside it. Tiles that are there already stay as they are.

func.func @main(%x: tensor<8x128xf32>) -> tensor<8x64xf32> attributes {sram.machine = {chiplets = 1, cores = 2}} {
  %v = onnx.initializer {value = dense<0.5> : tensor<128x128xf32>} : tensor<128x128xf32>
  %w = onnx.initializer {value = dense<0.5> : tensor<128x64xf32>} : tensor<128x64xf32>
  %a = onnx.MatMul(%x, %v) : (tensor<8x128xf32>, tensor<128x128xf32>) -> tensor<8x128xf32>
  %y = onnx.MatMul(%a, %w) {sram.tiles = [#sram.tiles<[8, 128, 64] "f32" by [2, 64, 32], groups 1 of 2, streamed>]} : (tensor<8x128xf32>, tensor<128x64xf32>) -> tensor<8x64xf32>
  func.return %y : tensor<8x64xf32>
}
// CHECK:       sram.chosen_for = {format = "fp32", cores = 2 : i64, room = 983040 : i64}
// CHECK:       [8, 128, 128] "f32" by [4, 64, 64], groups 1 of 2, resident 1, held 8 rows, buffers 3, accumulators 2>]
// CHECK:       [8, 128, 64] "f32" by [2, 64, 32], groups 1 of 2, streamed, held 2 rows, buffers 2>]
// MX:          main: tiles of MatMul: they are of [8, 128, 64] "f32" from "f32", it multiplies [8, 128, 64] "mxint8" from "f32"
// FORMAT:      main: products are in fp32, bf16, mxint8, not in fp8
// LOWER:       sram.kernel @matmul_0 [#sram.range<i0 = 0 to 128 step 64>]
// LOWER:       sram.tile "v2" : "f32" [64, 64] depth 0
// LOWER:       sram.kernel @matmul_1 [#sram.range<i0 = 0 to 8 step 2>, #sram.range<i1 = 0 to 64 step 32>]

// -----

// An operation without a lowering.

func.func @odd(%x: tensor<4xf32>) -> tensor<4xf32> {
  %y = onnx.Det(%x) : (tensor<4xf32>) -> tensor<4xf32>
  func.return %y : tensor<4xf32>
}
// CHECK:       odd: Det has no lowering to the machine
