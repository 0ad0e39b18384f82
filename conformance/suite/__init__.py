"""The runner's parts: what is written once for all clients."""
