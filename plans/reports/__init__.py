"""What the user reads: estimates, plans, comparisons and runs, as text, JSON and pages."""
