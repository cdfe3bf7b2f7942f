"""The states of Consolidate Memory: an ended session, or a part of one that goes on, becomes records and a summary."""
