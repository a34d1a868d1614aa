"""Callbacks that Lightning lacks, or lacks the switch for; each is a named slot of the command line."""
