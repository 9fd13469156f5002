"""Comparison with other engines: same network, same weights, same threads, checked before they are timed, timed in turns.

    python -m benchmarks.compare --peers-python PATH [--rows inference,training/lenet5] [--out docs/benchmarks.md]

`rows` says what is measured and what is to be reached, `contenders` (a folder without __init__.py, because asv imports every package
below benchmarks/) has one file for each engine, `worker` runs one of them in a process of its own, `session` lets them take turns,
`report` writes the tables.
"""
