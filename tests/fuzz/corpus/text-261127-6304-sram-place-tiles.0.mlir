// sram-place-tiles
builtin.module {
  sram.program @p as "fp32" on 4 attributes {page_bytes = 64, parts = 2, machine = {chiplets = 2, cores = 4}, dims = {}, inputs = {}, outputs = {}} {
    sram.kernel @first [] attributes {sources = []} {
      %a = sram.tile "a" : "f32" [3, 9223372036854775807] depth 2
      %b = sram.tile "b" : "mxint8" [1, 32] depth 0
      %c = sram.tile "c" : "mxint8" [1, 32] depth 1
      %d = sram.tile "d" : "f32" [1] depth 1
    }
    sram.kernel @second [] attributes {sources = []} {
      %d = sram.tile "e" : "f32" [16] at 4096 depth 1
    }
  }
}