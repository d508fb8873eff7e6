"""The ready-made service and the command line, built from keycache and metrics."""
