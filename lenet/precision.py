"""The precision of matrix products: float32, or the shorter numbers that GPUs multiply faster.

A product of inputs and weights at a lower precision rounds its operands and adds up in float32, and
so do the two products of its backward pass. The rounding is spelled out here, so that a training
means the same on every device. A GPU then multiplies the rounded numbers, exactly, with the units
it has for them; a CPU has none, and shows in float32 what the rounding does to the error.
"""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lenet.registry import lookup

Product = Callable[[Array, Any], Array]


@dataclasses.dataclass(frozen=True)
class Precision:
    """How the operands of a product are kept.

    Attributes:
        name: what JAX calls it.
        mantissa_bits: of an operand, the leading one not counted; all have the 8 bits of float32's
            exponent.
    """

    name: str
    mantissa_bits: int


PRECISIONS = {
    "float32": Precision("highest", 23),
    "tensorfloat32": Precision("tensorfloat32", 10),
    "bfloat16": Precision("bfloat16", 7),
}


def matmul_precision(name: str) -> AbstractContextManager[None]:
    """A context in which JAX multiplies matrices at the named precision, where the device can.

    Raises:
        ValueError: if the name is unknown.
    """
    return jax.default_matmul_precision(lookup(PRECISIONS, name, "precision").name)


def at_precision(product: Product, name: str) -> Product:
    """A product of inputs and weights, affine in each, at the named precision.

    Raises:
        ValueError: if the name is unknown.
    """
    bits = lookup(PRECISIONS, name, "precision").mantissa_bits

    def multiply(x: Array, weights: Any) -> Array:
        with matmul_precision(name):
            return product(x, weights)

    if name == "float32":
        return multiply

    def rounded(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return lax.reduce_precision(x, exponent_bits=8, mantissa_bits=bits)

    @jax.custom_vjp
    def operand(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return rounded(x)

    # The float32 weights are what is trained: a gradient passes the rounding as if it were none.
    operand.defvjp(lambda x: (rounded(x), None), lambda _, cotangent: (cotangent,))

    @jax.custom_vjp
    def result(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return x

    # Backwards, what comes in is an operand of both products.
    result.defvjp(lambda x: (x, None), lambda _, cotangent: (rounded(cotangent),))

    def multiply_rounded(x: Array, weights: Any) -> Array:
        near_x, near_weights = jax.tree.map(lambda leaf: operand(jnp.asarray(leaf)), (x, weights))
        return result(multiply(near_x, near_weights))

    return multiply_rounded
