"""Likelihood with error bars and curves."""
