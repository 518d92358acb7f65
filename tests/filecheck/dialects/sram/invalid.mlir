// RUN: gimlet-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

// CHECK: tensor t is said to live from begin to "a", its kernels need it from "a" to "b"
sram.program @p as "fp32" on 1 attributes {page_bytes = 64, local_bytes = 64, machine = {chiplets = 1, cores = 1}, dims = {}, inputs = {}, outputs = {}} {
  sram.tensor @t : "f32" <[8]> in "sram" at 0 {capacity_bytes = 32, role = "temporary", life = #sram.life<begin to "a">}
  sram.kernel @a [] attributes {sources = []} {
    %a = sram.tile "a" : "f32" [8] at 0 depth 1
    sram.store %a to <@t[8] at [0] by [[8 along 0]]>
  }
  sram.kernel @b [] attributes {sources = []} {
    %a = sram.tile "a" : "f32" [8] at 0 depth 1
    sram.load %a from <@t[8] at [0] by [[8 along 0]]>
  }
}

// -----

// CHECK: tensors s and t have the same memory while both are needed
sram.program @p as "fp32" on 1 attributes {page_bytes = 64, local_bytes = 64, machine = {chiplets = 1, cores = 1}, dims = {}, inputs = {}, outputs = {}} {
  sram.tensor @s : "f32" <[8]> in "sram" at 0 {capacity_bytes = 32, role = "input", life = #sram.life<begin to "a">}
  sram.tensor @t : "f32" <[8]> in "sram" at 16 {capacity_bytes = 32, role = "output", life = #sram.life<"a" to end>}
  sram.kernel @a [] attributes {sources = []} {
    %a = sram.tile "a" : "f32" [8] at 0 depth 1
    sram.load %a from <@s[8] at [0] by [[8 along 0]]>
    sram.store %a to <@t[8] at [0] by [[8 along 0]]>
  }
}

// -----

// CHECK: kernel a is said to have 4 items, 4 a chiplet, 1 a core, its grid has 8 items, 4 a chiplet, 1 a core
sram.program @p as "fp32" on 8 attributes {page_bytes = 64, parts = 2, machine = {chiplets = 2, cores = 8}, dims = {}, inputs = {}, outputs = {}} {
  sram.kernel @a [#sram.range<i = 0 to 15 step 2>] attributes {sources = [], dealt = #sram.dealt<4 items, 4 a chiplet, 1 a core>} {
    %a = sram.tile "a" : "f32" [8] depth 1
  }
}

// -----

// CHECK: tile a ends at byte 96 of 64 private ones
sram.program @p as "fp32" on 1 attributes {page_bytes = 64, machine = {chiplets = 1, cores = 1, sram_bytes_per_core = 64}, dims = {}, inputs = {}, outputs = {}} {
  sram.kernel @a [] attributes {sources = []} {
    %a = sram.tile "a" : "f32" [8] at 64 depth 1
  }
}

// -----

// CHECK: Expected 'items'
"test.op"() {dealt = #sram.dealt<4 kernels>} : () -> ()

// -----

// CHECK: expected: the name of a kernel
"test.op"() {life = #sram.life<begin to 3>} : () -> ()

// -----

// CHECK: expected [rows, depth, columns], and a batch before those at most
"test.op"() {t = #sram.tiles<[256, 128] "f32" by [4, 64, 64], groups 1 of 4, resident 1>} : () -> ()

// -----

// CHECK: a tile stays in the array for 8 rows, not 4
"test.op"() {t = #sram.tiles<[8, 64, 128] "f32" by [4, 64, 64], groups 1 of 1, resident 1, held 4 rows>} : () -> ()

// -----

// CHECK: sizes, groups and copies of tiles are at least 1
"test.op"() {t = #sram.tiles<[8, 64, 128] "f32" by [4, 64, 64], groups 0 of 1, resident 1>} : () -> ()

// -----

// CHECK: expected even or odd
"test.op"() {t = #sram.tiles<[1, 128, 128] "f32" by [1, 64, 64], groups 1 of 1, resident 1, depth first>} : () -> ()

// -----

// CHECK: tiles have no colour
"test.op"() {t = #sram.tiles<[1, 128, 128] "f32" by [1, 64, 64], groups 1 of 1, resident 1, colour 3>} : () -> ()

// -----

// CHECK: patches have no colour
"test.op"() {t = #sram.patches<[64, 32, 3, 3] "f32" by [1, 40], kernel [], channels 32, outputs 64, colour 3>} : () -> ()
