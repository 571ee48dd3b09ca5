"""What a trained model does: sample, fill, score, solve, be watched; the Python API."""
