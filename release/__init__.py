"""The package as it is handed out: built, looked into, installed by itself, tested as installed."""
