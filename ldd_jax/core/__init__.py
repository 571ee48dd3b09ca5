"""What every stage shares: types, vocabulary tiles, draws, divergences, registry, checks."""
