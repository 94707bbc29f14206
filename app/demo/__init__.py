"""`vestnik up --demo`: accounts, operation events and simulated far ends, and what came of every message."""
