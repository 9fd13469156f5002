"""Benchmarks: asv's (bench_*.py), the comparison with other engines (compare), and the floor table of a network's steps (layers)."""
