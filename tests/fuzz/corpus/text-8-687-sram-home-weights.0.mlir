// sram-home-weights
builtin.module {
  sram.program @p as "fp32" on 8 attributes {page_bytes = 64 : i64, parts = 2 : i64, machine = {chiplets = 2 : i64, cores = 8 : i64}, dims = {n = array<i64: 1, 3, 8>}, inputs = {}, outputs = {}} {
    sram.tensor @v : "f32" <[4, 8, -9223372036854775808]> in "core" {role = "weight", block = 64 : i64}
    sram.tensor @w : "f32" <[4, 8, 8]> in "core" {role = "weight", block = 64 : i64}
    sram.tensor @y : "f32" <["n"]> in "sram" {role = "output"}
    sram.kernel @reads [#sram.range<i = 0 to 4 step 1>] attributes {sources = []} {
      %b = sram.tile "b" : "f32" [8, 8] at 0 depth 0
      sram.load %b from <@w[4, 8, 8] at ["r.i", 0, 0] by [[8 along 2], [8 along 1]]>
    }
    sram.kernel @stores [#sram.range<i = 0 to "2*n" step 1>, #sram.range<j = 0 to 7 step 2>] attributes {sources = []} {
      %a = sram.tile "a" : "f32" [1] at 0 depth 1
    }
  }
}
