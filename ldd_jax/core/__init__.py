"""What every stage shares: types, vocabulary rows, draws, divergences, registry, checks."""
