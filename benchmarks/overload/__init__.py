"""Overload on a virtual clock: many clients, one gateway, one fault, and what each retry policy makes of it.

Run it from the top of the repository::

    python -m benchmarks.overload                                  # everything, 5 seeds, 200 clients
    python -m benchmarks.overload --scenario outage --policy ours naive3 --seeds 1
"""
