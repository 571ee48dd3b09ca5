"""Workdirs from other people's checkpoints, and checkpoints for other people from workdirs."""
