"""Everything that touches the outside: Redis, HTTP, the clock. Known only to `keycache.runtime`."""
