"""Drivers: how a run becomes something that runs. `base` says what each must do; `registry`
makes them by name.
"""
