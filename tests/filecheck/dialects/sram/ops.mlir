// RUN: gimlet-opt %s | gimlet-opt | filecheck %s
// RUN: gimlet-opt %s --print-op-generic | gimlet-opt | filecheck %s
// RUN: xdsl-opt %s | filecheck %s

sram.program @s0 as "bf16" on 8 attributes {page_bytes = 8192, local_bytes = 65536,
    machine = {chiplets = 2, cores = 8, clock_hz = 1.2e9, row_cycles = {f32 = 72.0, bf16 = 16.0}},
    dims = {seq = array<i64: 1, 16, 64>}, inputs = {x = @x, ids = @ids, c = @c, g = @g}, outputs = {y = @y, z = @z, d = @c, h = @g}} {
  sram.tensor @x : "bf16" <["seq", 96]> in "sram" at 0 {capacity_bytes = 12288, role = "input"}
  sram.tensor @ids : "i64" <["seq"]> in "sram" at 12288 {capacity_bytes = 512, role = "input"}
  sram.tensor @w : "bf16" <[96, 80]> in "lpddr" at 0 {capacity_bytes = 15360, role = "weight", offset = 64}
  sram.tensor @v : "bf16" <[2, 64, 64]> in "core" at 32768 {capacity_bytes = 16384, role = "weight", offset = 15424, block = 4096, first = 2}
  sram.tensor @y : "f32" <["seq", 80]> in "sram" at 16384 {capacity_bytes = 20480, role = "output"}
  sram.tensor @z : "f32" <["seq"]> in "sram" at 40960 {capacity_bytes = 256, role = "output"}
  sram.tensor @s : "f32" <["seq", 64]> in "sram" at 65536 {capacity_bytes = 16384, role = "temporary"}
  sram.tensor @c : "f32" <[32, 8]> in "sram" at 81920 {capacity_bytes = 1024, role = "state"}
  sram.tensor @g : "f32" <[64, 8]> in "lpddr" at 16384 {capacity_bytes = 2048, role = "state", growth = #sram.growth<0 from "seq - 1" to "seq">}
  sram.kernel @matmul [#sram.range<m = 0 to "seq" step 32>, #sram.range<n = 0 to 80 step 64>] attributes {sources = ["/block/MatMul"]} {
    %a = sram.tile "a" : "bf16" [32, 64] at 0 depth 2
    %b = sram.tile "b" : "bf16" [64, 64] at 8192 depth 2
    %c = sram.tile "c" : "f32" [32, 64] at 24576 depth 1
    sram.fill %c <["r.m.size", "r.n.size"]> with <float "0.0">
    sram.loop <k = 0 to 96 step 64> {
      sram.load %a from <@x["seq", 96] at ["r.m", "r.k"] by [["r.m.size" along 0], ["r.k.size" along 1]]>
      sram.load %b from <@w[96, 80] at ["r.k", "r.n"] by [["r.k.size" along 0], ["r.n.size" along 1]]>
      sram.matmul %c, %a, %b hold "rhs"
    }
    sram.map "leaky_relu" %c = %c by <tile> {parameters = [#sram.value<float "0.1">]}
    sram.map "div" %c = %c by <tile, "seq + 1">
    sram.store %c to <@y["seq", 80] at ["r.m", "r.n"] by [["r.m.size" along 0], ["r.n.size" along 1]]>
  }
  sram.kernel @parts [#sram.range<g = 0 to 2 step 1>] attributes {sources = [], first = 2} {
    %a = sram.tile "a" : "bf16" [64, 64] at 0 depth 2
    %b = sram.tile "b" : "bf16" [64, 64] at 0 depth 0
    %c = sram.tile "c" : "f32" [64, 64] at 16384 depth 1
    sram.loop <k = 0 to 64 step 64> {
      sram.load %a from <@x["seq", 96] at [0, "32 * r.g"] by [["seq" along 0], [64 along 1]]>
      sram.load %b from <@v[2, 64, 64] at ["r.g", 0, 0] by [[64 along 2], [64 along 1]]>
      sram.matmul %c, %a, %b hold "rhs" {begins = "k"}
    }
    sram.add %c to <@s["seq", 64] at [0, 0] by [["seq" along 0], [64 along 1]]>
  }
  sram.kernel @rows [#sram.range<m = 0 to "seq" step 8>] attributes {sources = []} {
    %i = sram.tile "i" : "i64" [8] at 0 depth 2
    %e = sram.tile "e" : "bf16" [8, 8] at 256 depth 2
    %f = sram.tile "f" : "bf16" [8, 8] at 512 depth 2
    %j = sram.tile "j" : "i64" [8, 1] at 1024 depth 1
    %g = sram.tile "g" : "f32" [8, 8] at 2048 depth 1
    %h = sram.tile "h" : "f32" [8, 1] at 4096 depth 1
    sram.load %i from <@ids["seq"] at ["r.m"] by [["r.m.size" along 0]]>
    sram.load %f from <@x["seq", 96] at ["r.m", -2] by [["r.m.size" along 0], [4 along 1 step 3, 2 repeated]] fill float "-inf">
    sram.gather %e from <@x["seq", 96] at [0, 5] by [["r.m.size" along 0], [8 along 1 step -1]]> by %i along 0
    sram.iota %j <["r.m.size", 1]> along 0 from <"r.m"> step 2
    sram.map "max" %g = %e, %f by <tile, tile>
    sram.map "copy" %h = %j by <tile>
    sram.map "multiply_add" %g = %g, %h by <tile, tile, float "0.5">
    sram.reduce "sum" %h = %g over [1]
    sram.store %h to <@z["seq"] at ["r.m"] by [["r.m.size" along 0], []]>
    sram.scatter %g to <@c[32, 8] at [0, 0] by [["r.m.size" along 0], [8 along 1]]> by %i along 0
  }
}

// CHECK: sram.program @s0 as "bf16" on 8 attributes {page_bytes = 8192 : i64, local_bytes = 65536 : i64, machine = {chiplets = 2 : i64, cores = 8 : i64, clock_hz = 1.200000e+09 : f64, row_cycles = {f32 = 7.200000e+01 : f64, bf16 = 1.600000e+01 : f64}}, dims = {seq = array<i64: 1, 16, 64>}, inputs = {x = @x, ids = @ids, c = @c, g = @g}, outputs = {y = @y, z = @z, d = @c, h = @g}} {
// CHECK: sram.tensor @x : "bf16" <["seq", 96]> in "sram" at 0 {capacity_bytes = 12288 : i64, role = "input"}
// CHECK: sram.tensor @ids : "i64" <["seq"]> in "sram" at 12288 {capacity_bytes = 512 : i64, role = "input"}
// CHECK: sram.tensor @w : "bf16" <[96, 80]> in "lpddr" at 0 {capacity_bytes = 15360 : i64, role = "weight", offset = 64 : i64}
// CHECK: sram.tensor @v : "bf16" <[2, 64, 64]> in "core" at 32768 {capacity_bytes = 16384 : i64, role = "weight", offset = 15424 : i64, block = 4096 : i64, first = 2 : i64}
// CHECK: sram.tensor @y : "f32" <["seq", 80]> in "sram" at 16384 {capacity_bytes = 20480 : i64, role = "output"}
// CHECK: sram.tensor @z : "f32" <["seq"]> in "sram" at 40960 {capacity_bytes = 256 : i64, role = "output"}
// CHECK: sram.tensor @c : "f32" <[32, 8]> in "sram" at 81920 {capacity_bytes = 1024 : i64, role = "state"}
// CHECK: sram.tensor @g : "f32" <[64, 8]> in "lpddr" at 16384 {capacity_bytes = 2048 : i64, role = "state", growth = #sram.growth<0 from "seq - 1" to "seq">}
// CHECK: sram.kernel @matmul [#sram.range<m = 0 to "seq" step 32>, #sram.range<n = 0 to 80 step 64>] attributes {sources = ["/block/MatMul"]} {
// CHECK: sram.fill %c <["r.m.size", "r.n.size"]> with <float "0.0">
// CHECK: sram.loop <k = 0 to 96 step 64> {
// CHECK: sram.load %a from <@x["seq", 96] at ["r.m", "r.k"] by {{\[\[}}"r.m.size" along 0], ["r.k.size" along 1{{\]\]}}>
// CHECK: sram.load %b from <@w[96, 80] at ["r.k", "r.n"] by {{\[\[}}"r.k.size" along 0], ["r.n.size" along 1{{\]\]}}>
// CHECK: sram.matmul %c, %a, %b hold "rhs"
// CHECK: sram.map "leaky_relu" %c = %c by <tile> {parameters = [#sram.value<float "0.1">]}
// CHECK: sram.map "div" %c = %c by <tile, "seq + 1">
// CHECK: sram.store %c to <@y["seq", 80] at ["r.m", "r.n"] by {{\[\[}}"r.m.size" along 0], ["r.n.size" along 1{{\]\]}}>
// CHECK: sram.kernel @parts [#sram.range<g = 0 to 2 step 1>] attributes {sources = [], first = 2 : i64} {
// CHECK: %b = sram.tile "b" : "bf16" [64, 64] at 0 depth 0
// CHECK: sram.load %b from <@v[2, 64, 64] at ["r.g", 0, 0] by {{\[\[}}64 along 2], [64 along 1{{\]\]}}>
// CHECK: sram.matmul %c, %a, %b hold "rhs" {begins = "k"}
// CHECK: sram.add %c to <@s["seq", 64] at [0, 0] by {{\[\[}}"seq" along 0], [64 along 1{{\]\]}}>
// CHECK: sram.kernel @rows [#sram.range<m = 0 to "seq" step 8>] attributes {sources = []} {
// CHECK: sram.load %i from <@ids["seq"] at ["r.m"] by {{\[\[}}"r.m.size" along 0{{\]\]}}>
// CHECK: sram.load %f from <@x["seq", 96] at ["r.m", -2] by {{\[\[}}"r.m.size" along 0], [4 along 1 step 3, 2 repeated{{\]\]}} fill float "-inf">
// CHECK: sram.gather %e from <@x["seq", 96] at [0, 5] by {{\[\[}}"r.m.size" along 0], [8 along 1 step -1{{\]\]}}> by %i along 0
// CHECK: sram.iota %j <["r.m.size", 1]> along 0 from <"r.m"> step 2
// CHECK: sram.map "max" %g = %e, %f by <tile, tile>
// CHECK: sram.map "copy" %h = %j by <tile>
// CHECK: sram.map "multiply_add" %g = %g, %h by <tile, tile, float "0.5">
// CHECK: sram.reduce "sum" %h = %g over [1]
// CHECK: sram.store %h to <@z["seq"] at ["r.m"] by {{\[\[}}"r.m.size" along 0], [{{\]\]}}>
// CHECK: sram.scatter %g to <@c[32, 8] at [0, 0] by {{\[\[}}"r.m.size" along 0], [8 along 1{{\]\]}}> by %i along 0

// Tiles of products, which stand beside operations of another dialect.

"test.op"() {sram.tiles = [
  #sram.tiles<[4, 256, 128] "f32" by [4, 64, 64], groups 1 of 4, resident 1>,
  #sram.tiles<[2, 1, 512, 512] "mxint8" from "f32" by [1, 64, 64], groups 4 of 1, streamed, held 1 rows, vector 17, accumulators 2, buffers 4, columns odd, depth even, product 1>,
  #sram.patches<[64, 32, 3, 3] "bf16" by [1, 40], kernel [3, 3], channels 7, outputs 64>,
  #sram.patches<[64, 32, 3, 3] "bf16" by [1, 40], kernel [], channels 32, outputs 64, loaded "f32", resident, cut 2, items [7, 40]>
]} : () -> ()
// CHECK: #sram.tiles<[4, 256, 128] "f32" by [4, 64, 64], groups 1 of 4, resident 1, held 4 rows, buffers 2>
// CHECK-SAME: #sram.tiles<[2, 1, 512, 512] "mxint8" from "f32" by [1, 64, 64], groups 4 of 1, streamed, held 1 rows, buffers 4, accumulators 2, vector 17, depth even, columns odd, product 1>
// CHECK-SAME: #sram.patches<[64, 32, 3, 3] "bf16" by [1, 40], kernel [3, 3], channels 7, outputs 64>
// CHECK-SAME: #sram.patches<[64, 32, 3, 3] "bf16" by [1, 40], kernel [], channels 32, outputs 64, items [7, 40], cut 2, resident, loaded "f32">
