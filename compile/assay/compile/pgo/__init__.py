"""Builds guided by a profile: workload, profile data, and the rebuild that works where the time went."""
