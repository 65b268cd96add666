"""One module a system: its tasks and how they are sent, as a user of it would write them."""
