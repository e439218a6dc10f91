"""Measuring layers and networks on the machine at hand."""
