"""Exact laws of small toys, by enumeration: what every rule and bound is checked against."""
