// RUN: gimlet-opt %s -p 'sram-separate-tiles{room=64}' | filecheck %s
// RUN: gimlet-opt %s -p 'sram-separate-tiles{room=32}' | filecheck %s --check-prefix=NARROW
// RUN: sed -e 's/depth 2/depth 16/' %s | gimlet-opt - -p 'sram-separate-tiles{room=64}' | filecheck %s --check-prefix=FULL

// The tile of the second kernel goes behind the two copies of the first one's; not where there is no room for it.

builtin.module {
  sram.program @p as "fp32" on 1 attributes {page_bytes = 64, local_bytes = 512, machine = {chiplets = 1, cores = 1}, dims = {}, inputs = {x = @x}, outputs = {y = @y}} {
    sram.tensor @x : "f32" <[8]> in "sram" at 0 {capacity_bytes = 32, role = "input"}
    sram.tensor @t : "f32" <[8]> in "sram" at 512 {capacity_bytes = 32, role = "temporary"}
    sram.tensor @y : "f32" <[8]> in "sram" at 0 {capacity_bytes = 32, role = "output"}
    sram.kernel @first [] attributes {sources = []} {
      %a = sram.tile "a" : "f32" [8] at 0 depth 2
      sram.load %a from <@x[8] at [0] by [[8 along 0]]>
      sram.store %a to <@t[8] at [0] by [[8 along 0]]>
    }
    sram.kernel @second [] attributes {sources = []} {
      %b = sram.tile "b" : "f32" [8] at 0 depth 1
      sram.load %b from <@t[8] at [0] by [[8 along 0]]>
      sram.store %b to <@y[8] at [0] by [[8 along 0]]>
    }
  }
}
// CHECK:       sram.tile "a" : "f32" [8] at 0 depth 2
// CHECK:       sram.tile "b" : "f32" [8] at 64 depth 1
// NARROW:      sram.tile "a" : "f32" [8] at 0 depth 2
// NARROW:      sram.tile "b" : "f32" [8] at 0 depth 1
// FULL:        sram.tile "a" : "f32" [8] at 0 depth 16
// FULL:        sram.tile "b" : "f32" [8] at 0 depth 1
