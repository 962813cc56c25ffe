"""What the directories of a whole job are created with: many at once, deferred, read-only."""
