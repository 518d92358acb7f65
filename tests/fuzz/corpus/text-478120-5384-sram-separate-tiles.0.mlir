// sram-separate-tiles{room=64}
builtin.module {
  sram.program @p as "fp32" on 1 attributes {page_bytes = 64, local_bytes = 512, machine = {chiplets = 1, cores = 1}, dims = {}, inputs = {x = @x}, outputs = {y = @y}} {
    sram.tensor @x : "f32" <[8]> in "sram" at 0 {capacity_bytes = 32, role = "input"}
    sram.tensor @t : "f32" <[8]> in "sram" at 512 {capacity_bytes = 32, role = "temporary"}
    sram.tensor @y : "f32" <[8]> in "sram" at 0 {capacity_bytes = 32, role = "output"}
    sram.kernel @first [] attributes {sources = []} {
      %a = sram.tile "a" : "f32" [8] at 0 depth 16
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