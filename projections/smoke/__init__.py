"""Smoke: does a running installation work, as an operator wants to know after an upgrade."""
