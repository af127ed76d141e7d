"""Memory for SIMD vectors: loads, stores, gathers, transposition, prefetches, sums, and an atomic counter."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils

from distilled_splat.cpu.simd import FLOAT, FLOATS, INT, INTS, LANES, floats, integers, intrinsic


def _element_pointer(context: Any, builder: Any, kind: types.Array, array: Any, at: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [at], inbounds=True)


def _vector_pointer(context: Any, builder: Any, kind: types.Array, array: Any, at: Any) -> Any:
    vector = INTS if kind.dtype == types.int32 else FLOATS
    return builder.bitcast(_element_pointer(context, builder, kind, array, at), vector.as_pointer())


@intrinsic
def load(typingctx: Any, array: Any, at: Any) -> Any:
    """Read the LANES consecutive elements of a contiguous float32 or int32 array from flat position `at`."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        return builder.load(_vector_pointer(context, builder, sig.args[0], *args), align=4)

    return (integers if array.dtype == types.int32 else floats)(array, types.intp), codegen


@intrinsic
def store(typingctx: Any, array: Any, at: Any, vector: Any) -> Any:
    """Write a vector to the LANES consecutive elements of a contiguous array from flat position `at`."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        builder.store(args[2], _vector_pointer(context, builder, sig.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), codegen


@intrinsic
def gather(typingctx: Any, array: Any, first: Any, stride: Any, count: Any) -> Any:
    """Read elements `first + stride * lane` of a contiguous float32 or int32 array as floats.

    Lanes from `count` on repeat lane `count - 1`, so that a block which is not full needs no special case.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        vector = ir.Constant(FLOATS, ir.Undefined)
        for lane, at in enumerate(_lane_positions(builder, *args[1:])):
            element = builder.load(_element_pointer(context, builder, sig.args[0], args[0], at))
            if sig.args[0].dtype == types.int32:
                element = builder.sitofp(element, FLOAT)
            vector = builder.insert_element(vector, element, ir.Constant(INT, lane))
        return vector

    return floats(array, types.intp, types.intp, types.intp), codegen


@intrinsic
def scatter(typingctx: Any, array: Any, first: Any, stride: Any, count: Any, vector: Any) -> Any:
    """Write the lanes below `count` to elements `first + stride * lane` of a contiguous float32 or int32 array.

    The lanes from `count` on must hold what lane `count - 1` holds: they are written to its place.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        for lane, at in enumerate(_lane_positions(builder, *args[1:4])):
            element = builder.extract_element(args[4], ir.Constant(INT, lane))
            if sig.args[0].dtype == types.int32:
                element = builder.fptosi(element, INT)
            builder.store(element, _element_pointer(context, builder, sig.args[0], args[0], at))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, types.intp, vector), codegen


def _lane_positions(builder: Any, first: Any, stride: Any, count: Any) -> list[Any]:
    last = builder.sub(count, ir.Constant(count.type, 1))
    positions = []
    for lane in range(LANES):
        index = ir.Constant(count.type, lane)
        index = builder.select(builder.icmp_signed("<", index, last), index, last)
        positions.append(builder.add(first, builder.mul(index, stride)))
    return positions


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose LANES vectors: at each level the off-diagonal blocks of twice the size are exchanged."""
    block = 1
    while block < LANES:
        upper = [lane if lane & block == 0 else LANES + lane - block for lane in range(LANES)]
        lower = [lane + block if lane & block == 0 else LANES + lane for lane in range(LANES)]
        upper, lower = ir.Constant(INTS, upper), ir.Constant(INTS, lower)
        for i in range(LANES):
            if i & block == 0:
                a, b = rows[i], rows[i + block]
                rows[i], rows[i + block] = builder.shuffle_vector(a, b, upper), builder.shuffle_vector(a, b, lower)
        block *= 2
    return rows


def _row_pointers(context: Any, builder: Any, sig: Any, args: tuple, array: int) -> list[Any]:
    """Give the places of LANES rows: of array argument `array`, from the position and by the stride after it."""
    data, first, stride = args[array : array + 3]
    rows = [builder.add(first, builder.mul(stride, ir.Constant(stride.type, i))) for i in range(LANES)]
    return [_vector_pointer(context, builder, sig.args[array], data, row) for row in rows]


@intrinsic
def load_square(typingctx: Any, array: Any, first: Any, stride: Any, columns: Any, at: Any) -> Any:
    """Read LANES elements from each of the LANES rows `first + stride * i`, and write them column by column to `at`."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        rows = [builder.load(p, align=4) for p in _row_pointers(context, builder, sig, args, 0)]
        for j, column in enumerate(_transposed(builder, rows)):
            place = builder.add(args[4], ir.Constant(args[4].type, j * LANES))
            builder.store(column, _vector_pointer(context, builder, sig.args[3], args[3], place), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, columns, types.intp), codegen


@intrinsic
def store_square(typingctx: Any, columns: Any, at: Any, array: Any, first: Any, stride: Any) -> Any:
    """Write LANES columns from `at` on as rows: LANES elements to each of the rows `first + stride * i`."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        vectors = []
        for j in range(LANES):
            place = builder.add(args[1], ir.Constant(args[1].type, j * LANES))
            vectors.append(builder.load(_vector_pointer(context, builder, sig.args[0], args[0], place), align=4))
        pointers = _row_pointers(context, builder, sig, args, 2)
        for pointer, row in zip(pointers, _transposed(builder, vectors)):
            builder.store(row, pointer, align=4)
        return context.get_dummy_value()

    return types.void(columns, types.intp, array, types.intp, types.intp), codegen


@njit(nogil=True)
def load_rows(array: Any, first: int, stride: int, width: int, count: int, columns: Any) -> None:
    """Read `width` elements from each of the rows `first + stride * i`, i below `count`, into vectors, one per column.

    Column j goes to `columns[j * LANES:]`; its lanes from `count` on repeat lane `count - 1`.
    """
    if count == LANES and width >= LANES:
        for j in range(0, width - LANES, LANES):
            load_square(array, first + j, stride, columns, j * LANES)
        load_square(array, first + width - LANES, stride, columns, (width - LANES) * LANES)
    else:
        for j in range(width):
            store(columns, j * LANES, gather(array, first + j, stride, count))


@njit(nogil=True)
def store_rows(columns: Any, width: int, count: int, array: Any, first: int, stride: int) -> None:
    """Write what `load_rows` reads."""
    if count == LANES and width >= LANES:
        for j in range(0, width - LANES, LANES):
            store_square(columns, j * LANES, array, first + j, stride)
        store_square(columns, (width - LANES) * LANES, array, first + width - LANES, stride)
    else:
        for j in range(width):
            scatter(array, first + j, stride, count, load(columns, j * LANES))


@intrinsic
def prefetch(typingctx: Any, array: Any, at: Any) -> Any:
    """Ask for the cache line of an array's element; any position is safe."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, INT, INT, INT])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer] + [ir.Constant(INT, i) for i in (0, 3, 1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic
def take_next(typingctx: Any, counter: Any) -> Any:
    """Count up the first element of an int64 array atomically, and give what it was before."""

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        zero = ir.Constant(ir.IntType(64), 0)
        pointer = _element_pointer(context, builder, sig.args[0], args[0], zero)
        return builder.atomic_rmw("add", pointer, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), codegen


def _halves(width: int) -> tuple[list[int], list[int]]:
    """Masks that pair even with odd neighbours of two vectors, within each quarter of four lanes."""
    even, odd = [], []
    for quarter in range(0, width, 4):
        for vector in (0, width):
            even += [vector + quarter, vector + quarter + 2]
            odd += [vector + quarter + 1, vector + quarter + 3]
    return even, odd


def _quarters(width: int) -> tuple[list[int], list[int]]:
    """Masks that pair even with odd quarters of two vectors."""
    even, odd = [], []
    for vector in (0, width):
        for quarter in range(0, width, 8):
            even += [vector + quarter + i for i in range(4)]
            odd += [vector + quarter + 4 + i for i in range(4)]
    return even, odd


@intrinsic
def store_sums(typingctx: Any, array: Any, at: Any, vectors: Any) -> Any:
    """Store the horizontal sums of twelve vectors at twelve consecutive places of a float32 array.

    Pairs of vectors are added after shuffling, so that each level of the tree halves their number; up to four places
    after the twelfth are overwritten with nothing of use.
    """
    if len(vectors) != 12:
        raise TypeError(f"store_sums takes twelve vectors, not {len(vectors)}")

    def codegen(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        undefined = ir.Constant(FLOATS, ir.Undefined)
        level = list(cgutils.unpack_tuple(builder, args[2])) + [undefined] * 4
        merges = [_halves(LANES), _halves(LANES)] + [_quarters(LANES)] * (LANES.bit_length() - 3)
        for even, odd in merges:
            even, odd = (ir.Constant(ir.VectorType(INT, LANES), m) for m in (even, odd))
            level = [
                undefined
                if a is undefined
                else builder.fadd(builder.shuffle_vector(a, b, even), builder.shuffle_vector(a, b, odd))
                for a, b in zip(level[::2], level[1::2])
            ]
        for i, sums in enumerate(level):
            at = builder.add(args[1], ir.Constant(args[1].type, i * LANES))
            builder.store(sums, _vector_pointer(context, builder, sig.args[0], args[0], at), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vectors), codegen
