"""LeNet in JAX: the network of 1998, its modern variants, and the engine that trains them."""
