"""The project of the documentation's examples. Its module ``tasks`` is the page itself."""
