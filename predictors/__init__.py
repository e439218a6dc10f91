"""Accuracy predictors behind one interface."""
