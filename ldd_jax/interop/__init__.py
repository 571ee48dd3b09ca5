"""Other people's parameter names and files."""
