"""Real servers on loopback, one module each: found, started on a free port, waited for, and ended with the tests."""
