"""The endurance run: the library on real clients, at full speed and in bad weather, watched for what stays behind.

    make soak                        an hour
    make soak SOAK_SECONDS=60        a minute
    python -m soak report            docs/soak.md, from the result of the last run

`traffic` makes the calls, `peer` and `weather` answer them from another process, `sampling` looks at what is held at
quiet points, `ledger` counts, and `checking` says what is wrong. All of it talks to this machine only, is bounded in
time, and ends by itself.
"""
