"""Rehearsals of what must not go wrong, on real processes: a run that is killed, a run on two processes.

``doctor --resume`` and ``doctor --parity`` do it on the user's own configuration; the tests and the stress benchmark do
it many times.
"""
