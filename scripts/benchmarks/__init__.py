"""What scripts/bench measures, a section in each module."""
