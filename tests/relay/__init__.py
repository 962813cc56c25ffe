"""A relay that makes one server answer like another: each behaviour with each operation, and what the caller gets."""
