"""Systems that APQ is compared with, at equal cost: what they find, and what they spend."""
