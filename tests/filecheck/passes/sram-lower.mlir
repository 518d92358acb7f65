// RUN: gimlet-opt %s --split-input-file --verify-diagnostics -p sram-lower | filecheck %s
// RUN: gimlet-opt %s --split-input-file --verify-diagnostics -p 'sram-lower{format=fp8}' | filecheck %s --check-prefix=FORMAT
// RUN: gimlet-opt %s --split-input-file --verify-diagnostics -p 'sram-lower{cores=3}' | filecheck %s --check-prefix=CORES
// RUN: gimlet-opt %s --split-input-file --verify-diagnostics -p 'sram-lower{format=bf16 room=0},sram-place-tiles,sram-separate-tiles,sram-home-weights,sram-allocate,sram-synchronise' | filecheck %s --check-prefix=WHOLE

// Weights are resident where there is room for them, and nothing has an address. All levels together make a program that
// runs; without room weights are loaded, and the second kernel waits for the first.

builtin.module attributes {onnx.dim_bounds = {n = array<i64: 1, 8, 16>}} {
  func.func @main(%x: tensor<?x128xf32, #onnx.dims<"n", "">>) -> tensor<?x64xf32, #onnx.dims<"n", "">> attributes {sram.machine = {chiplets = 1, cores = 2}} {
    %w = onnx.initializer {value = dense<0.5> : tensor<128x64xf32>} : tensor<128x64xf32>
    %a = onnx.MatMul(%x, %w) : (tensor<?x128xf32, #onnx.dims<"n", "">>, tensor<128x64xf32>) -> tensor<?x64xf32, #onnx.dims<"n", "">>
    %y = onnx.Softmax(%a) : (tensor<?x64xf32, #onnx.dims<"n", "">>) -> tensor<?x64xf32, #onnx.dims<"n", "">>
    func.return %y : tensor<?x64xf32, #onnx.dims<"n", "">>
  }
}
// CHECK:       sram.program @main as "fp32" on 2 attributes {page_bytes = 1024 : i64, machine = {chiplets = 1 : i64, cores = 2 : i64}, dims = {n = array<i64: 1, 8, 16>}
// CHECK:       sram.tensor @in0 : "f32" <["n", 128]> in "sram" {role = "input"}
// CHECK:       sram.tensor @w0 : "f32" <[1, 2, 64, 64]> in "core" {role = "weight", block = 4096 : i64}
// CHECK:       sram.tile "{{[a-z0-9]+}}" : "f32" [64, 64] depth 0
// FORMAT:      main: products are in fp32, bf16, mxint8, not in fp8
// CORES:       main: 3 of 2 cores are not whole chiplets of 2
// WHOLE:       sram.program @main as "bf16"
// WHOLE:       sram.tensor @in0 : "f32" <["n", 128]> in "sram" at {{[0-9]+}} {capacity_bytes = 8192 : i64, role = "input", life = #sram.life<begin to "
// WHOLE:       sram.kernel @matmul
// WHOLE:       sram.kernel @{{[a-z_0-9]+}} {{.*}}dealt = #sram.dealt<
// WHOLE:       {after = ["matmul

// -----

// An operation without a lowering.

func.func @odd(%x: tensor<4xf32>) -> tensor<4xf32> {
  %y = onnx.Det(%x) : (tensor<4xf32>) -> tensor<4xf32>
  func.return %y : tensor<4xf32>
}
// CHECK:       odd: Det has no lowering to the machine

// -----

// A dimension without a range.

func.func @open(%x: tensor<?xf32, #onnx.dims<"m">>) -> tensor<?xf32, #onnx.dims<"m">> {
  %y = onnx.Relu(%x) : (tensor<?xf32, #onnx.dims<"m">>) -> tensor<?xf32, #onnx.dims<"m">>
  func.return %y : tensor<?xf32, #onnx.dims<"m">>
}
// CHECK:       open: dimension m
