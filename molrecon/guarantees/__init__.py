"""Guarantees: certificates put to the test, worst-case perturbations, and reports of what was found."""
