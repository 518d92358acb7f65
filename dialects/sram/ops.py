"""Operations of the sram dialect: a program, its tensors and kernels, and the instructions of the machine.

docs/sram.md says what each instruction does and how long it takes; `gimlet.runtime.sram.verify` has the rules that
`sram.program` verifies.
"""

from __future__ import annotations

from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    DictionaryAttr,
    IntegerAttr,
    StringAttr,
    SymbolNameConstraint,
    i64,
)
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    eq,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import (
    HasParent,
    IsolatedFromAbove,
    NoTerminator,
    SymbolOpInterface,
    SymbolTable,
)
from xdsl.utils.exceptions import VerifyException

from gimlet.dialects.sram.annotations import verify_annotations
from gimlet.dialects.sram.attributes import (
    AccessAttr,
    DealtAttr,
    GrowthAttr,
    LifeAttr,
    OperandsAttr,
    RangeAttr,
    SizesAttr,
    TileType,
    ValueAttr,
)
from gimlet.runtime.errors import InputError

_TILE = TileType()
_INT = IntegerAttr.constr(eq(i64))


@irdl_op_definition
class ProgramOp(IRDLOperation):
    """A program: `sram.program @s0 as "bf16" on 256 attributes {…} { tensors and kernels }`.

    `machine` has the figures of the machine, `dims` the range of each symbolic dimension, `inputs` and `outputs` the
    tensor of each value at the segment's edge. While it is generated, tensors and tiles may be without addresses, and
    `local_bytes` is missing until the private part of SRAM is divided.
    """

    name = "sram.program"

    sym_name = prop_def(SymbolNameConstraint())
    number_format = prop_def(StringAttr, prop_name="format")
    cores = prop_def(_INT)
    page_bytes = prop_def(_INT)
    local_bytes = opt_prop_def(_INT)
    parts = opt_prop_def(_INT)
    machine = prop_def(DictionaryAttr)
    dims = prop_def(DictionaryAttr)
    inputs = prop_def(DictionaryAttr)
    outputs = prop_def(DictionaryAttr)
    body = region_def("single_block")

    traits = traits_def(IsolatedFromAbove(), NoTerminator(), SymbolTable(), SymbolOpInterface())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$sym_name `as` $format `on` $cores attr-dict-with-keyword $body"

    def verify_(self) -> None:
        from gimlet.dialects.sram.assembly import annotations_of, assemble
        from gimlet.runtime.sram.verify import verify

        try:
            program = assemble(self)
            verify(program, complete=False)
            verify_annotations(program, *annotations_of(self))
        except InputError as error:
            place = f" ({error.where})" if error.where else ""
            raise VerifyException(f"{error.message}{place}") from None


@irdl_op_definition
class TensorOp(IRDLOperation):
    """A tensor: `sram.tensor @x : "f32" <["seq", 64]> in "sram" at 0 {…}`, or in `"lpddr"` or `"core"`.

    `copies` says how often the blocks of a weight are there, `together` of how many blocks in a row the copies follow
    each other, `width` that columns are dealt, so many a row, `growth` how much of a state is there before a run and
    after it. `life` is what its address was chosen for: the kernels from which to which it is needed.
    """

    name = "sram.tensor"

    sym_name = prop_def(SymbolNameConstraint())
    dtype = prop_def(StringAttr)
    shape = prop_def(SizesAttr)
    space = prop_def(StringAttr)
    address = opt_prop_def(_INT)
    capacity_bytes = opt_prop_def(_INT)
    role = prop_def(StringAttr)
    offset = opt_prop_def(_INT)
    block = opt_prop_def(_INT)
    first = opt_prop_def(_INT)
    chiplet = opt_prop_def(_INT)
    copies = opt_prop_def(_INT)
    together = opt_prop_def(_INT)
    width = opt_prop_def(_INT)
    growth = opt_prop_def(GrowthAttr)
    life = opt_prop_def(LifeAttr)

    traits = traits_def(HasParent(ProgramOp), SymbolOpInterface())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$sym_name `:` $dtype $shape `in` $space (`at` $address^)? attr-dict"


@irdl_op_definition
class KernelOp(IRDLOperation):
    """The instruction stream of every core, over a grid of items: `sram.kernel @mm [#sram.range<…>, …] { … }`.

    `dealt` says how many items that are, and who has them.
    """

    name = "sram.kernel"

    sym_name = prop_def(SymbolNameConstraint())
    grid = prop_def(ArrayAttr[RangeAttr])
    sources = prop_def(ArrayAttr[StringAttr])
    first = opt_prop_def(_INT)
    chiplet = opt_prop_def(_INT)
    dealt = opt_prop_def(DealtAttr)
    body = region_def("single_block")

    traits = traits_def(HasParent(ProgramOp), IsolatedFromAbove(), NoTerminator(), SymbolOpInterface())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$sym_name $grid attr-dict-with-keyword $body"


@irdl_op_definition
class TileOp(IRDLOperation):
    """A tile: `%a = sram.tile "a" : "bf16" [64, 64] at 0 depth 2`, with `depth` copies."""

    name = "sram.tile"

    tile_name = prop_def(StringAttr)
    dtype = prop_def(StringAttr)
    shape = prop_def(DenseArrayBase.constr(i64))
    address = opt_prop_def(_INT)
    depth = prop_def(_INT)
    result = result_def(_TILE)

    traits = traits_def(HasParent(KernelOp))
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$tile_name `:` $dtype $shape (`at` $address^)? `depth` $depth attr-dict"


@irdl_op_definition
class LoopOp(IRDLOperation):
    """A hardware loop: `sram.loop <k = 0 to 576 step 64> { … }`."""

    name = "sram.loop"

    range = prop_def(RangeAttr)
    body = region_def("single_block")

    traits = traits_def(NoTerminator())
    assembly_format = "$range attr-dict-with-keyword $body"


@irdl_op_definition
class LoadOp(IRDLOperation):
    """DMA into a tile: `sram.load %a from <@x["seq", 64] at ["r.m", 0] by [["r.m.size" along 0], [64 along 1]]>`.

    Like every transfer, it may have `{after = ["k", …]}`: the kernels that must be done before it starts.
    """

    name = "sram.load"

    tile = operand_def(_TILE)
    access = prop_def(AccessAttr)
    after = opt_prop_def(ArrayAttr[StringAttr])

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$tile `from` $access attr-dict"


@irdl_op_definition
class GatherOp(IRDLOperation):
    """DMA into a tile at computed positions: `sram.gather %a from <…> by %i along 0`."""

    name = "sram.gather"

    tile = operand_def(_TILE)
    access = prop_def(AccessAttr)
    indices = operand_def(_TILE)
    axis = prop_def(_INT)
    after = opt_prop_def(ArrayAttr[StringAttr])

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$tile `from` $access `by` $indices `along` $axis attr-dict"


@irdl_op_definition
class StoreOp(IRDLOperation):
    """DMA out of a tile: `sram.store %a to <…>`."""

    name = "sram.store"

    tile = operand_def(_TILE)
    access = prop_def(AccessAttr)
    after = opt_prop_def(ArrayAttr[StringAttr])

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$tile `to` $access attr-dict"


@irdl_op_definition
class AddOp(IRDLOperation):
    """DMA out of a tile that adds to what the tensor holds: `sram.add %a to <…>`."""

    name = "sram.add"

    tile = operand_def(_TILE)
    access = prop_def(AccessAttr)
    after = opt_prop_def(ArrayAttr[StringAttr])

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$tile `to` $access attr-dict"


@irdl_op_definition
class ScatterOp(IRDLOperation):
    """DMA out of a tile that changes a tensor at computed positions: `sram.scatter %a to <…> by %i along 0`.

    With `{function = "add"}` (or `max`, `min`, `mul`) what is there and what comes are put together.
    """

    name = "sram.scatter"

    tile = operand_def(_TILE)
    access = prop_def(AccessAttr)
    indices = operand_def(_TILE)
    axis = prop_def(_INT)
    after = opt_prop_def(ArrayAttr[StringAttr])
    function = opt_prop_def(StringAttr)

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$tile `to` $access `by` $indices `along` $axis attr-dict"


@irdl_op_definition
class FillOp(IRDLOperation):
    """Vector: `sram.fill %a <[64, "r.n.size"]> with <float "0.0">`."""

    name = "sram.fill"

    tile = operand_def(_TILE)
    sizes = prop_def(SizesAttr)
    value = prop_def(ValueAttr)

    assembly_format = "$tile $sizes `with` $value attr-dict"


@irdl_op_definition
class IotaOp(IRDLOperation):
    """Vector: `sram.iota %a <[64]> along 0 from <"r.m"> step 1`."""

    name = "sram.iota"

    tile = operand_def(_TILE)
    sizes = prop_def(SizesAttr)
    axis = prop_def(_INT)
    start = prop_def(ValueAttr)
    step = prop_def(_INT)

    assembly_format = "$tile $sizes `along` $axis `from` $start `step` $step attr-dict"


@irdl_op_definition
class MatmulOp(IRDLOperation):
    """Matrix: `sram.matmul %acc, %a, %b hold "rhs" {begins = "k"}`: the accumulator grows by the product.

    In the first step of the loop `begins` it begins at zero. With `hold "nothing"` the vector unit multiplies.
    """

    name = "sram.matmul"

    accumulator = operand_def(_TILE)
    lhs = operand_def(_TILE)
    rhs = operand_def(_TILE)
    stationary = prop_def(StringAttr)
    begins = opt_prop_def(StringAttr)

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$accumulator `,` $lhs `,` $rhs `hold` $stationary attr-dict"


@irdl_op_definition
class MapOp(IRDLOperation):
    """Vector: `sram.map "multiply_add" %c = %a, %b by <tile, 2, tile>`, parameters in `parameters`."""

    name = "sram.map"

    function = prop_def(StringAttr)
    tile = operand_def(_TILE)
    sources = var_operand_def(_TILE)
    operands_ = prop_def(OperandsAttr, prop_name="arguments")
    parameters = opt_prop_def(ArrayAttr[ValueAttr])

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$function $tile `=` $sources `by` $arguments attr-dict"

    def verify_(self) -> None:
        tiles = sum(isinstance(operand, str) for operand in self.operands_.data)
        if tiles != len(self.sources):
            raise VerifyException(f"{self.function.data} names {tiles} tiles and is given {len(self.sources)}")


@irdl_op_definition
class ReduceOp(IRDLOperation):
    """Vector: `sram.reduce "sum" %b = %a over [1]`; the dimensions keep size 1."""

    name = "sram.reduce"

    function = prop_def(StringAttr)
    tile = operand_def(_TILE)
    source = operand_def(_TILE)
    axes = prop_def(DenseArrayBase.constr(i64))

    assembly_format = "$function $tile `=` $source `over` $axes attr-dict"
