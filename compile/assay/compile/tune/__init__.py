"""Search for better choices than the analytic ones: candidates, measurement, journal, records."""
