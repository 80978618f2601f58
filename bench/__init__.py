"""Side by side with what a user would pick instead. Run it through scripts/bench."""
