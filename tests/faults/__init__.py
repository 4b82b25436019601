"""A matrix of faults: what can go wrong on the way to a gateway, injected for real, under each of the seven clients.

``tests/data/faults.toml`` says what is done on the wire and what the caller of each client gets. The modules here do
it: `connecting`, `tls`, `http1`, `http2`, `answers`, `streams`, `processes`, `shared`, and `programs`, whose faults
need processes of their own. `running` runs one cell and puts what it saw into the words of the table; `page` makes
``docs/faults.md``.

Everything happens on loopback. ``python tests/faults --observe http1`` prints what is seen, for a person to judge.
"""
