"""Make data: artificial patients, and labelled pairs from real scans."""
