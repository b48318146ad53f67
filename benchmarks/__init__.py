"""Measurements of sqlitereplica beside Litestream and beside no replication at all.

Run ``python -m benchmarks --help``; results that were kept are in RESULTS.md.
"""
