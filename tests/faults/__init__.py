"""The battery: every fault at every call through the seam, for every operation on every kind of place.

    seam        the environment that counts calls and lets the fault happen at one of them
    faults      the table of faults
    places      the table of places: a strategy on a storage
    scenes      one prepared root: the operation's targets, and what belongs to others beside them
    operations  the table of operations
    oracle      the judgement: is what the caller was told true, is everything whole, is nothing lost
    leaks       descriptors, threads and locks that an operation has left
    runner      one run in processes of its own, and all runs of a cell of the table
    report      the table of counts, and a failure in words

`python -m tests.faults` runs it; ATOMICPATH_FAULTS=all makes that the whole of it.
"""
