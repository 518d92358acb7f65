// RUN: gimlet-opt %s -p sram-allocate --split-input-file --verify-diagnostics | filecheck %s

// The largest choose first, those that are not needed together share memory, and weights come last: one has no room in
// SRAM any more. The input that is meant for LPDDR goes there, the weight that no kernel reads goes.

builtin.module {
  sram.program @p as "fp32" on 2 attributes {page_bytes = 64, local_bytes = 512, machine = {chiplets = 1, cores = 2, sram_bytes_per_core = 1280}, dims = {n = array<i64: 1, 8, 64>}, inputs = {x = @x}, outputs = {y = @y}} {
    sram.tensor @x : "f32" <["n"]> in "lpddr" {role = "input"}
    sram.tensor @w : "f32" <[33]> in "sram" {role = "weight"}
    sram.tensor @v : "f32" <[130]> in "sram" {role = "weight"}
    sram.tensor @u : "f32" <[32]> in "sram" {role = "weight"}
    sram.tensor @s : "f32" <["n"]> in "sram" {role = "temporary"}
    sram.tensor @t : "f32" <["n", 2]> in "sram" {role = "temporary"}
    sram.tensor @y : "f32" <["n"]> in "sram" {role = "output"}
    sram.kernel @first [] attributes {sources = []} {
      %a = sram.tile "a" : "f32" [64] at 0 depth 1
      sram.load %a from <@x["n"] at [0] by [["n" along 0]]>
      sram.store %a to <@s["n"] at [0] by [["n" along 0]]>
    }
    sram.kernel @second [] attributes {sources = []} {
      %a = sram.tile "a" : "f32" [64] at 0 depth 1
      sram.load %a from <@s["n"] at [0] by [["n" along 0]]>
      sram.load %a from <@w[33] at [0] by [[33 along 0]]>
      sram.store %a to <@t["n", 2] at [0, 0] by [["n" along 0]]>
    }
    sram.kernel @third [] attributes {sources = []} {
      %a = sram.tile "a" : "f32" [64] at 0 depth 1
      sram.load %a from <@t["n", 2] at [0, 1] by [["n" along 0]]>
      sram.load %a from <@v[130] at [0] by [[130 along 0]]>
      sram.store %a to <@y["n"] at [0] by [["n" along 0]]>
    }
  }
}
// CHECK:       sram.tensor @x : "f32" <["n"]> in "lpddr" at 0 {capacity_bytes = 256 : i64, role = "input", life = #sram.life<begin to "first">}
// CHECK-NEXT:  sram.tensor @w : "f32" <[33]> in "sram" at 1024 {capacity_bytes = 132 : i64, role = "weight", offset = 0 : i64, life = #sram.life<begin to end>}
// CHECK-NEXT:  sram.tensor @v : "f32" <[130]> in "lpddr" at 512 {capacity_bytes = 520 : i64, role = "weight", offset = 192 : i64, life = #sram.life<begin to end>}
// CHECK-NEXT:  sram.tensor @s : "f32" <["n"]> in "sram" at 512 {capacity_bytes = 256 : i64, role = "temporary", life = #sram.life<"first" to "second">}
// CHECK-NEXT:  sram.tensor @t : "f32" <["n", 2]> in "sram" at 0 {capacity_bytes = 512 : i64, role = "temporary", life = #sram.life<"second" to "third">}
// CHECK-NEXT:  sram.tensor @y : "f32" <["n"]> in "sram" at 512 {capacity_bytes = 256 : i64, role = "output", life = #sram.life<"third" to end>}

// -----

builtin.module {
  sram.program @large as "fp32" on 2 attributes {page_bytes = 64, local_bytes = 512, machine = {chiplets = 1, cores = 2, sram_bytes_per_core = 1024, lpddr_bytes = 2048}, dims = {}, inputs = {}, outputs = {}} {
    sram.tensor @x : "f32" <[1024]> in "sram" {role = "input"}
  }
}
// CHECK: large: its tensors take 4096 bytes, the device has 1024 of SRAM and 2048 of LPDDR
