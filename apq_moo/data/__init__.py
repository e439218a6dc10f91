"""Image sets, sample tables and shipped assets."""
