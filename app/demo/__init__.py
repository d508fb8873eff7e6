"""A local issuer that mints and rotates, and what `keycache demo` shows with it."""
