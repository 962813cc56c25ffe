"""Publish a directory of files to any file system as one atomic act."""
