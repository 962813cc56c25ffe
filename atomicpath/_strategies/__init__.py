"""The commit protocols, one strategy each, and what they share."""
