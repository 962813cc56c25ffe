"""One commit from its options to its record, and the readers of what was committed."""
