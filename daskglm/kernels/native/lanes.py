"""Vectors of eight float64 as values in compiled code.

A reduction whose order the compiler may choose gives other bits on another processor, and one whose order it may not
choose is not vectorised. Writing the eight partial sums out settles the order once: element i of a column goes to lane
i mod 8, every product is one correctly rounded fused multiply-add (IEEE 754 `fusedMultiplyAdd`), and the lanes are
added pairwise at the end. So the bits are the same on every target, and a 512-bit, 256-bit or 128-bit unit runs it at
its full width.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models, register_default
from numba.extending import intrinsic

from daskglm.kernels.blocks import LANES

_DOUBLE = ir.DoubleType()
_VECTOR = ir.VectorType(_DOUBLE, LANES)


class LanesType(types.Type):  # type: ignore[misc]
    """The compiled type of eight float64 side by side."""

    def __init__(self) -> None:
        super().__init__("float64x8")


@register_default(LanesType)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, frontend_type: Any) -> None:
        super().__init__(manager, frontend_type, _VECTOR)


lanes = LanesType()


def _vector_pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """Elements index .. index + 7 of a contiguous float64 vector."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _vector_pointer(context, builder, signature.args[0], args[0], args[1])
        value = builder.load(pointer)
        value.align = 8
        return value

    return lanes(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write eight values at index .. index + 7 of a contiguous float64 vector."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _vector_pointer(context, builder, signature.args[0], args[0], args[1])
        builder.store(args[2], pointer).align = 8
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), "llvm.fma.v8f64"
        )
        return builder.call(function, args)

    return lanes(lanes, lanes, lanes), generate


@intrinsic
def add(typing: Any, a: Any, b: Any) -> Any:
    """a + b."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(args[0], args[1])

    return lanes(lanes, lanes), generate


@intrinsic
def spread(typing: Any, value: Any) -> Any:
    """The same number in every lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.Constant(_VECTOR, ir.Undefined)
        for lane in range(LANES):
            vector = builder.insert_element(vector, args[0], ir.Constant(ir.IntType(32), lane))
        return vector

    return lanes(types.float64), generate


@intrinsic
def zero(typing: Any) -> Any:
    """Eight zeros."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(_VECTOR, [0.0] * LANES)

    return lanes(), generate


@intrinsic
def fold(typing: Any, value: Any) -> Any:
    """The sum of the lanes: ((0+4)+(2+6)) + ((1+5)+(3+7))."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        parts = [builder.extract_element(args[0], ir.Constant(ir.IntType(32), i)) for i in range(LANES)]
        while len(parts) > 1:
            half = len(parts) // 2
            parts = [builder.fadd(parts[i], parts[i + half]) for i in range(half)]
        return parts[0]

    return types.float64(lanes), generate


def _reader(element: Any) -> Any:
    @intrinsic
    def pointer(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(element)(types.int64), generate

    return pointer


# A column is handed over as the address of its buffer, so that one compiled signature serves any mixture of widths.
float64_at = _reader(types.float64)
float32_at = _reader(types.float32)
int8_at = _reader(types.int8)
int16_at = _reader(types.int16)
int32_at = _reader(types.int32)
int64_at = _reader(types.int64)
