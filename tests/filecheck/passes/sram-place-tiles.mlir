// RUN: gimlet-opt %s -p sram-place-tiles | filecheck %s

// Tiles lie one after the other at whole lines, all their copies together; a window takes nothing. Every kernel begins
// at 0 again, and what had an address before gets a new one.

builtin.module {
  sram.program @p as "fp32" on 4 attributes {page_bytes = 64, parts = 2, machine = {chiplets = 2, cores = 4}, dims = {}, inputs = {}, outputs = {}} {
    sram.kernel @first [] attributes {sources = []} {
      %a = sram.tile "a" : "f32" [3, 7] depth 2
      %b = sram.tile "b" : "mxint8" [1, 32] depth 0
      %c = sram.tile "c" : "mxint8" [1, 32] depth 1
      %d = sram.tile "d" : "f32" [1] depth 1
    }
    sram.kernel @second [] attributes {sources = []} {
      %e = sram.tile "e" : "f32" [16] at 4096 depth 1
    }
  }
}
// CHECK:       sram.kernel @first
// CHECK-NEXT:    sram.tile "a" : "f32" [3, 7] at 0 depth 2
// CHECK-NEXT:    sram.tile "b" : "mxint8" [1, 32] at 192 depth 0
// CHECK-NEXT:    sram.tile "c" : "mxint8" [1, 32] at 192 depth 1
// CHECK-NEXT:    sram.tile "d" : "f32" [1] at 256 depth 1
// CHECK:       sram.kernel @second
// CHECK-NEXT:    sram.tile "e" : "f32" [16] at 0 depth 1
