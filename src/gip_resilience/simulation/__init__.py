"""What a configuration would do in bad weather: the shipped engine on a virtual clock, against a simulated gateway.

``gip-resilience simulate`` is the way in; docs/simulation.md says what can be learned from it, and what cannot.

* `scenarios`: what users write (TOML), and what comes with the library.
* `troubles`: the same in absolute numbers, for one size of a fleet.
* `clockwork`: the heap of events, the users and the gateway. `streams`: what the gateway says when it streams.
* `fleets`: the clients: the shipped engine, and callers without a library.
* `measures`: what is read off a run. `runs`: runs. `tables`, `svg`: what is shown of them.

Repeatable: the same seed gives the same bytes. Needs no HTTP library. Not thread-safe, and nothing to import in
production code.
"""
