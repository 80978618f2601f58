"""Everything of a hostile owner's is a trap: what it does when it is sprung, and where that is seen."""
