// RUN: gimlet-opt %s -p sram-home-weights --split-input-file --verify-diagnostics | filecheck %s

// Blocks lie behind the tiles. Those of the second weight begin beside the last of the first one, on the next core of each
// group, and the kernel that multiplies with them deals its items from there on.

builtin.module {
  sram.program @p as "fp32" on 8 attributes {page_bytes = 64, parts = 2, machine = {chiplets = 2, cores = 8}, dims = {n = array<i64: 1, 3, 8>}, inputs = {}, outputs = {}} {
    sram.tensor @v : "f32" <[4, 8, 8]> in "core" {role = "weight", block = 64}
    sram.tensor @w : "f32" <[4, 8, 8]> in "core" {role = "weight", block = 64}
    sram.tensor @y : "f32" <["n"]> in "sram" {role = "output"}
    sram.kernel @reads [#sram.range<i = 0 to 4 step 1>] attributes {sources = []} {
      %b = sram.tile "b" : "f32" [8, 8] at 0 depth 0
      sram.load %b from <@w[4, 8, 8] at ["r.i", 0, 0] by [[8 along 2], [8 along 1]]>
    }
    sram.kernel @stores [#sram.range<i = 0 to "2 * n" step 1>, #sram.range<j = 0 to 7 step 2>] attributes {sources = []} {
      %a = sram.tile "a" : "f32" [1] at 0 depth 1
    }
  }
}
// CHECK:       local_bytes = 320 : i64
// CHECK:       sram.tensor @v : "f32" <[4, 8, 8]> in "core" at 64 {capacity_bytes = 1024 : i64, role = "weight", block = 64 : i64}
// CHECK:       sram.tensor @w : "f32" <[4, 8, 8]> in "core" at 64 {capacity_bytes = 1024 : i64, role = "weight", block = 64 : i64, first = 2 : i64}
// CHECK:       sram.tensor @y : "f32" <["n"]> in "sram" {role = "output"}
// CHECK:       sram.kernel @reads {{.*}} first = 2 : i64, dealt = #sram.dealt<4 items, 2 a chiplet, 1 a core>}
// CHECK:       sram.kernel @stores {{.*}} dealt = #sram.dealt<24 items, 12 a chiplet, 3 a core>}

// -----

builtin.module {
  sram.program @small as "fp32" on 4 attributes {page_bytes = 64, parts = 2, machine = {chiplets = 2, cores = 4, sram_bytes_per_core = 512}, dims = {}, inputs = {}, outputs = {}} {
    sram.tensor @w : "f32" <[4, 8, 8]> in "core" {role = "weight", block = 64}
    sram.kernel @first [] attributes {sources = []} {
      %a = sram.tile "a" : "f32" [80] at 0 depth 1
    }
  }
}
// CHECK: small: tiles and resident weights take 576 bytes of a core's 512
