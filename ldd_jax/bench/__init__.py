"""Samplers compared: cells of a grid, written one by one, a table, a plot and a page."""
