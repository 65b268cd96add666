"""From outcomes to the ledger, and then back to the broker."""
