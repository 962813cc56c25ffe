"""A conformance kit for backends: see `docs/writing-a-backend.md`."""

from .place import Place

__all__ = ["Place"]
