"""Measures of a model and of its samples: likelihood, quality, judges, mechanism."""
