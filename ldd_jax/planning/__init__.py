"""What a run will cost, before a chip is rented: operations, memory, time."""
