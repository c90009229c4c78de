"""Results: the record format, statistics of repeated measurements, and reports. Imports no other layer."""
