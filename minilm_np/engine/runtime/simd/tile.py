"""The register tile: the inner loop of every matrix product."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minilm_np.engine.runtime.simd.emit import I32, I64, LANES, VECTOR, broadcast, call, constant, pointer
from minilm_np.engine.runtime.simd.lanes import fma
from minilm_np.engine.runtime.simd.memory import load, store


def fma_block(max_rows, vectors, panel_width):
    """Make the inner loop of a matrix product: one block of k, a few rows of x, 16 * vectors columns of a panel.

        block(rows, x, x_stride, panel, count, tile, tile_stride, add, ahead)

        for each row r < rows, for each column c < 16 * vectors:
            acc = 0
            for k in range(count):
                acc = fma(x[r * x_stride + k], panel[k * panel_width + c], acc)
            tile[r * tile_stride + c] = tile[r * tile_stride + c] + acc if add else acc

    It is one loop over k. Its body keeps all rows * vectors accumulators in registers, and exists once for each number
    of rows from 1 to max_rows. For each k, the row of the panel that is `ahead` steps of k further on is prefetched
    into the second-level cache. A prefetch is only a hint: it may point beyond the panel. `ahead` = 0 has no effect.
    """

    @intrinsic
    def block(typingctx, rows, x, x_stride, panel, count, tile, tile_stride, add, ahead):
        def codegen(context, builder, sig, args):
            rows, x, x_stride, panel, count, tile, tile_stride, add, ahead = args
            ahead = builder.mul(ahead, ir.Constant(I64, panel_width))
            done = builder.append_basic_block("tile.done")
            switch = builder.switch(rows, done)
            for r in range(1, max_rows + 1):
                case = builder.append_basic_block(f"tile.{r}x{vectors}")
                switch.add_case(r, case)
                builder.position_at_end(case)
                x_rows = [builder.gep(x, [builder.mul(x_stride, ir.Constant(I64, i))]) for i in range(r)]
                tile_rows = [builder.gep(tile, [builder.mul(tile_stride, ir.Constant(I64, i))]) for i in range(r)]
                _emit_tile(builder, x_rows, panel, count, tile_rows, add, ahead, vectors, panel_width, done)
            builder.position_at_end(done)

        integer = types.int64
        arguments = integer, pointer, integer, pointer, integer, pointer, integer, types.boolean, integer
        return types.void(*arguments), codegen

    return block


def never_unrolled(module):
    """Metadata that forbids LLVM to unroll a loop: unrolled, a full tile's accumulators are spilled from registers."""
    loop = module.add_metadata([module.add_metadata(["llvm.loop.unroll.disable"])])
    if loop.operands[0] is not loop:
        loop.operands = (loop, *loop.operands)  # the first operand of a loop's metadata is the metadata itself
    return loop


def prefetch(builder, p):
    for_reading, second_level, data = (ir.Constant(I32, number) for number in (0, 2, 1))
    call(builder, "llvm.prefetch.p0", ir.VoidType(), p, for_reading, second_level, data)


def _emit_tile(builder, x_rows, panel, count, tile_rows, add, ahead, vectors, panel_width, done):
    start = builder.block
    loop = builder.append_basic_block("tile.k")
    builder.branch(loop)

    builder.position_at_end(loop)
    k = builder.phi(I64)
    k.add_incoming(ir.Constant(I64, 0), start)
    accumulators = [[builder.phi(VECTOR) for _ in range(vectors)] for _ in x_rows]
    panel_row = builder.gep(panel, [builder.mul(k, ir.Constant(I64, panel_width))])
    columns = [load.emit(builder, builder.gep(panel_row, [ir.Constant(I64, LANES * v)])) for v in range(vectors)]
    for v in range(vectors):  # sixteen floats fill a cache line
        prefetch(builder, builder.gep(panel_row, [builder.add(ahead, ir.Constant(I64, LANES * v))]))
    for x_row, row_accumulators in zip(x_rows, accumulators, strict=True):
        x_value = broadcast(builder, builder.load(builder.gep(x_row, [k])))
        for column, accumulator in zip(columns, row_accumulators, strict=True):
            accumulator.add_incoming(constant(0.0), start)
            accumulator.add_incoming(fma.emit(builder, x_value, column, accumulator), loop)
    k_next = builder.add(k, ir.Constant(I64, 1))
    k.add_incoming(k_next, loop)
    stop = builder.append_basic_block("tile.stop")
    back = builder.cbranch(builder.icmp_signed("<", k_next, count), loop, stop)
    back.set_metadata("llvm.loop", never_unrolled(builder.module))

    builder.position_at_end(stop)
    sums = [[accumulator.incomings[1][0] for accumulator in row] for row in accumulators]
    first, following = builder.append_basic_block("tile.first"), builder.append_basic_block("tile.add")
    builder.cbranch(add, following, first)
    for block, adds in ((first, False), (following, True)):
        builder.position_at_end(block)
        for tile_row, row_sums in zip(tile_rows, sums, strict=True):
            for v, total in enumerate(row_sums):
                p = builder.gep(tile_row, [ir.Constant(I64, LANES * v)])
                store.emit(builder, p, builder.fadd(load.emit(builder, p), total) if adds else total)
        builder.branch(done)
