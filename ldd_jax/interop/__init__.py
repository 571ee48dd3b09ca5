"""Other people's checkpoints, in and out, and other people's evaluation harness."""
