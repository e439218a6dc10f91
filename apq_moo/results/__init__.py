"""What is made of a run: front, history, verification, pick, gap, breakdown."""
