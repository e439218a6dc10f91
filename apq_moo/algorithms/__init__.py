"""Search algorithms, and operators that know the space."""
