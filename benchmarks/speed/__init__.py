"""Scripts that time parts of the package against what they replace; they agree first."""
