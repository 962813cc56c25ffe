"""Find out what a location guarantees: its backend, the declaration, the probes."""
