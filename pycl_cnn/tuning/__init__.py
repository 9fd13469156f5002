"""Tuning: which variant of a kernel suits a device and a shape.

`space` says what can be chosen and what a choice must keep, `database` what is known and shipped, `search` tries variants in a child
process (`worker`) that `tuner` watches over. Nothing here runs by itself: `pycl-cnn tune` does, or ``pycl_cnn.tuning.tuner.tune``.
"""
