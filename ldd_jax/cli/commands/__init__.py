"""One module for each group of commands: flags, checks, output."""
