"""What a layer sends back: gradients, or the second derivatives of 1998.

The paper's optimizer (appendix C) needs h = d2E/du2 for every weight u. Its recursion is that of
back-propagation with every factor squared: for a unit with input a = sum_j u_j x_j and output f(a),

    d2E/du_j^2 = d2E/da^2 x_j^2        d2E/dx_j^2 = sum over its users of u_j^2 d2E/da^2
    d2E/da^2   = f'(a)^2 d2E/df^2      (Gauss-Newton: the term with f'' is dropped)

summed over the connections that share a weight. So it takes no second network: the same layers,
with a backward pass that squares. Each layer is a product of inputs and weights, an element-wise
function, a sum or a choice (of the greatest), and only the first two differ between the two ways.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

Product = Callable[[Array, Any], Array]
Function = Callable[[Array], Array]


def _squared_product(product: Product) -> Product:
    """`product`, affine in either argument, with the backward pass of the recursion above."""

    @jax.custom_vjp
    def squared(x: Array, weights: Any) -> Array:
        return product(x, weights)

    def forward(x: Array, weights: Any) -> tuple[Array, tuple[Array, Any]]:
        return product(x, weights), (x, weights)

    def backward(kept: tuple[Array, Any], curvature: Array) -> tuple[Array, Any]:
        # The derivative by x is made of weights, that by the weights of x: here of their squares.
        x, weights = kept
        squares = jax.tree.map(jnp.square, weights)
        return jax.vjp(product, x * x, squares)[1](curvature)

    squared.defvjp(forward, backward)
    return squared


def _squared_function(function: Function) -> Function:
    @jax.custom_vjp
    def squared(x: Array) -> Array:
        return function(x)

    def forward(x: Array) -> tuple[Array, Array]:
        return function(x), x

    def backward(x: Array, curvature: Array) -> tuple[Array]:
        (slope,) = jax.vjp(function, x)[1](jnp.ones_like(x))
        return (slope * slope * curvature,)

    squared.defvjp(forward, backward)
    return squared


# name -> what becomes of (a product of inputs and weights, an element-wise function).
BACKWARD: dict[str, tuple[Callable[[Product], Product], Callable[[Function], Function]]] = {
    "gradient": (lambda product: product, lambda function: function),
    "curvature": (_squared_product, _squared_function),
}
