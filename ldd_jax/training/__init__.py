"""State, update step, optimizers, sharding and checkpoints."""
