"""Processes that share their state, on a virtual network and clock: the shipped engine, store and scripts.

Run it from the top of the repository::

    python -m benchmarks.fleet                                  # the tables of docs/fleet.md
    python -m benchmarks.fleet --scenario dead --clients 100
"""
