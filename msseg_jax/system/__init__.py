"""Files, errors, processes and signals: what every program needs."""
